"""The bill of materials is the lock file, whole, and the same bytes every time."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from typing import Any

import pytest
from deploy.flows import ROOT

_PATH = ROOT / "scripts/sbom.py"
_SPEC = importlib.util.spec_from_file_location("sbom", _PATH)
assert _SPEC
assert _SPEC.loader
sbom: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sbom)
LOCK = (ROOT / "requirements/grpc.txt").read_text()


def test_every_pinned_package_is_listed_with_every_hash() -> None:
    bill = sbom.bill(LOCK, "image:1.2")
    pinned = {
        tuple(line.split(" ")[0].split("=="))
        for line in LOCK.splitlines()
        if re.match(r"^[a-z0-9._-]+==", line)
    }
    assert {(part["name"], part["version"]) for part in bill["components"]} == pinned
    listed = [
        digest["content"]
        for part in bill["components"]
        for digest in part["externalReferences"][0]["hashes"]
    ]
    assert sorted(listed) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))
    assert bill["metadata"]["component"]["version"] == "1.2"


def test_it_is_the_same_twice() -> None:
    first, second = (
        subprocess.run([sys.executable, _PATH], capture_output=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second
    assert b'"specVersion": "1.6"' in first


@pytest.mark.parametrize("entry", ["numpy>=2", "numpy==2.0.0"])
def test_what_is_not_pinned_by_version_and_hash_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="make lock"):
        sbom.components(entry + "\n")
