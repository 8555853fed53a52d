"""Objects of KEDA, External Secrets and MongoDB's operator fit the operators' own schemas. None of
them is run here."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import yaml
from deploy.custom_resources import MODULES, Manifest, definitions, group, problems
from deploy.rendering import OVERLAYS, copy_with_secrets, render

pytestmark = pytest.mark.skipif(
    shutil.which("go") is None, reason="go is not here: it fetches the operators' schemas"
)


@pytest.fixture(scope="module")
def crds() -> dict[str, list[Manifest]]:
    return {name: definitions(*module) for name, module in MODULES.items()}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    folder: Path = copy_with_secrets(tmp_path_factory.mktemp("stages"))
    items = [item for overlay in OVERLAYS for item in render(folder / overlay)]
    items += list(yaml.safe_load_all((folder / "CA2/alternatives/mongodb.yaml").read_text()))
    return [item for item in items if group(item) in MODULES]


def test_every_object_fits_its_operators_schema(
    objects: list[Manifest], crds: dict[str, list[Manifest]]
) -> None:
    kinds = {item["kind"] for item in objects}
    assert kinds == {
        "ScaledObject",
        "TriggerAuthentication",
        "SecretStore",
        "ExternalSecret",
        "MongoDBCommunity",
    }
    for item in objects:
        assert list(problems(item, crds[group(item)])) == [], item["metadata"]["name"]


def test_no_group_is_left_unchecked(tmp_path: Path) -> None:
    folder = copy_with_secrets(tmp_path)
    groups = {group(item) for overlay in OVERLAYS for item in render(folder / overlay)}
    known = {
        name
        for name in groups
        if not name
        or name.endswith(".k8s.io")
        or name in {"apps", "batch", "policy", "autoscaling"}
    }
    # an alternative, in no overlay
    assert groups - known == set(MODULES) - {"mongodbcommunity.mongodb.com"}


def test_a_misspelt_field_a_wrong_type_and_an_old_version_are_found(
    objects: list[Manifest], crds: dict[str, list[Manifest]]
) -> None:
    (scaled,) = {
        item["metadata"]["name"]: item for item in objects if item["kind"] == "ScaledObject"
    }.values()
    misspelt, wrong, old = (copy.deepcopy(scaled) for _ in range(3))
    misspelt["spec"]["maxReplicas"] = 12
    wrong["spec"]["pollingInterval"] = "15"
    old["apiVersion"] = "keda.sh/v1alpha2"
    for broken, said in (
        (misspelt, "maxReplicas"),
        (wrong, "pollingInterval"),
        (old, "not served"),
    ):
        (problem,) = problems(broken, crds["keda.sh"])
        assert said in problem
