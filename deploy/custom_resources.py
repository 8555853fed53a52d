"""Objects of operators that no cluster of ours runs (KEDA, External Secrets, MongoDB's), checked
against their own schemas.

The schemas are the CustomResourceDefinitions in the operators' Go modules, of the versions named
here; Go verifies their sums. A field that the schema does not know is an error, as it is for an API
server with strict validation.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml

Manifest = dict[str, Any]
# Group of the objects: module, version, folder of its definitions.
MODULES = {
    "keda.sh": ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases"),
    "mongodbcommunity.mongodb.com": (
        "github.com/mongodb/mongodb-kubernetes-operator",
        "v0.9.0",
        "config/crd/bases",
    ),
    "external-secrets.io": (
        "github.com/external-secrets/external-secrets",
        "v1.3.2",
        "config/crds/bases",
    ),
}


def group(manifest: Manifest) -> str:
    """The API group of an object; empty for the core's."""
    before, slash, _ = str(manifest["apiVersion"]).partition("/")
    return before if slash else ""


def definitions(module: str, version: str, folder: str) -> list[Manifest]:
    """A module's CustomResourceDefinitions. Raises CalledProcessError when Go cannot fetch it."""
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    files = sorted(Path(json.loads(done.stdout)["Dir"], folder).glob("*.yaml"))
    documents = [document for path in files for document in yaml.safe_load_all(path.read_text())]
    return [
        document
        for document in documents
        if document and document["kind"] == "CustomResourceDefinition"
    ]


def schema(crds: list[Manifest], manifest: Manifest) -> Manifest:
    """The schema of an object's kind and version. Raises LookupError when the operator does not
    have that."""
    version = manifest["apiVersion"].partition("/")[2]
    for crd in crds:
        if crd["spec"]["names"]["kind"] == manifest["kind"] and crd["spec"]["group"] == group(
            manifest
        ):
            for served in crd["spec"]["versions"]:
                if served["name"] == version and served["served"]:
                    strict: Manifest = _strict(served["schema"]["openAPIV3Schema"])
                    return strict
    raise LookupError(
        f"{manifest['apiVersion']} {manifest['kind']} is not served by this version of the operator"
    )


def _strict(node: Any) -> Any:
    """A copy that refuses unknown fields, but where the definition lets any through."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    copy = {key: _strict(value) for key, value in node.items()}
    closed = isinstance(node.get("properties"), dict) and "additionalProperties" not in node
    if closed and not node.get("x-kubernetes-preserve-unknown-fields"):
        copy["additionalProperties"] = False
    return copy


def problems(manifest: Manifest, crds: list[Manifest]) -> Iterator[str]:
    """What the operator's schema finds wrong with an object, each with its path."""
    try:
        validator = jsonschema.Draft7Validator(_open_metadata(schema(crds, manifest)))
    except LookupError as lack:
        yield str(lack)
        return
    for error in validator.iter_errors(manifest):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def _open_metadata(root: Manifest) -> Manifest:
    # The API server knows metadata itself; definitions leave it empty.
    root["properties"]["metadata"] = {"type": "object"}
    return root
