"""The manifests for an existing mesh are what Istio's own CRDs allow. Nothing of them is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from deploy.sites import kubernetes, table

_MODULE = "istio.io/api@v1.27.0"
# of the module's files: what the schemas are does not change
_SUM = "h1:KU1DeyIvZkY2k0pF9ZY+6D0ZVB1ZgvimaPkM55NVRWk="
TABLE = table.load()
FOLDER = table.ROOT / "CA4" / "kubernetes"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Kind and version to the schema, unknown fields refused."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go on PATH to fetch Istio's CRDs with")
    done = subprocess.run(
        [go, "mod", "download", "-json", _MODULE],
        cwd=tmp_path_factory.mktemp("go"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if done.returncode != 0:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"Istio's CRDs cannot be fetched: {done.stderr[-200:]}")
    module = json.loads(done.stdout)
    assert module["Sum"] == _SUM
    found = {}
    for crd in yaml.safe_load_all(
        (Path(module["Dir"]) / "kubernetes/customresourcedefinitions.gen.yaml").read_text()
    ):
        if not crd:
            continue
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
            found[key] = _strict(schema["properties"]["spec"])
    return found


def _strict(schema: Any) -> Any:
    """Kubernetes drops fields it does not know: here they are an error."""
    if isinstance(schema, dict):
        closed = {name: _strict(value) for name, value in schema.items()}
        if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed:
            closed |= (
                {}
                if closed.get("x-kubernetes-preserve-unknown-fields")
                else {"additionalProperties": False}
            )
        # these speak of single fields, never of all
        for combined in ("oneOf", "anyOf", "allOf", "not"):
            if combined in schema:
                closed[combined] = schema[combined]
        return closed
    return [_strict(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("site", TABLE.sites)
def test_every_object_is_what_the_crds_allow(
    site: str, schemas: dict[tuple[str, str], Any]
) -> None:
    manifests = list(yaml.safe_load_all((FOLDER / f"istio-{site}.yaml").read_text()))
    assert manifests == kubernetes.manifests(TABLE, TABLE.sites[site])
    checked = 0
    for manifest in manifests:
        if manifest["apiVersion"] == "v1":
            continue
        jsonschema.validate(manifest["spec"], schemas[manifest["apiVersion"], manifest["kind"]])
        checked += 1
    assert checked >= 3


def test_a_wrong_object_is_noticed(schemas: dict[tuple[str, str], Any]) -> None:
    schema = schemas["security.istio.io/v1", "AuthorizationPolicy"]
    wrongs: list[dict[str, Any]] = [{"action": "MAYBE"}, {"rules": [{"form": []}]}]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("site", TABLE.sites)
def test_policies_name_the_callers_of_the_table(site: str) -> None:
    raw = yaml.safe_load(table.TABLE.read_text())
    guarded = set()
    for manifest in yaml.safe_load_all((FOLDER / f"istio-{site}.yaml").read_text()):
        if manifest["kind"] != "AuthorizationPolicy":
            continue
        guarded.add(manifest["metadata"]["name"])
        (rule,) = manifest["spec"]["rules"]
        principals = set(rule["from"][0]["source"]["principals"])
        expected = {
            f"{raw['sites'][call['from']]['trust_domain']}/ns/gpu-tokens/sa/{call['as']}"
            for call in raw["calls"]
            if manifest["metadata"]["name"] in call["to"]
        }
        assert principals - {f"{raw['sites'][site]['trust_domain']}/ns/gpu-tokens/sa/*"} == expected
    assert guarded == {service.name for service in TABLE.at(site)}
