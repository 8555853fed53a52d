"""The parts of the Kubernetes bench that need no cluster: what it counts, builds from and would
notice."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from deploy.bench import __main__ as bench
from deploy.bench import shell
from deploy.bench.checks import matrix
from deploy.bench.images import archive
from deploy.bench.images.archive import Image, Layer
from deploy.bench.kubernetes import (
    autoscaling,
    binary,
    conditions,
    gpus,
    images,
    lag_server,
    runbooks,
    topology,
    workload,
)
from deploy.observability.table import alert_names

from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem
from gpu_token_analytics.agent.sources.nvidia_smi import NvidiaSmiSource


@pytest.mark.parametrize(
    ("committed", "ends", "threshold", "value"),
    [
        ({0: 5, 1: 10}, {0: 10, 1: 10}, 100, 5),
        # no offset committed: all of the partition, as `earliest` would read it
        ({0: -1001, 1: 10}, {0: 7, 1: 10}, 100, 7),
        ({}, {0: 7, 1: 3}, 100, 10),
        # two partitions never ask for more than two consumers
        ({0: 0, 1: 0}, {0: 900, 1: 900}, 100, 200),
        ({0: 4}, {0: 4}, 100, 0),
    ],
)
def test_the_lag_is_the_number_that_keda_gives(
    committed: dict[int, int], ends: dict[int, int], threshold: int, value: int
) -> None:
    assert lag_server.keda_lag(committed, ends, threshold) == value


def test_the_metrics_api_answers_discovery_and_the_metric_only() -> None:
    prefix = "/apis/external.metrics.k8s.io/v1beta1"
    discovery = lag_server.answer(prefix, "lag", 3)
    assert discovery is not None
    assert discovery["resources"][0]["name"] == "lag"
    value = lag_server.answer(f"{prefix}/namespaces/gpu-tokens/lag", "lag", 3)
    assert value is not None
    assert value["items"][0]["value"] == "3"
    assert lag_server.answer(f"{prefix}/namespaces/gpu-tokens/other", "lag", 3) is None


def item(
    ready: int, updated: int, replicas: int, *, wanted: int = 3, observed: int = 2
) -> dict[str, Any]:
    status = {
        "readyReplicas": ready,
        "updatedReplicas": updated,
        "replicas": replicas,
        "observedGeneration": observed,
    }
    return {
        "metadata": {"name": "kafka", "generation": 2},
        "spec": {"replicas": wanted},
        "status": status,
    }


@pytest.mark.parametrize(
    ("seen", "lacks"),
    [
        (item(3, 3, 3), ""),
        (item(2, 3, 3), "2/3 ready"),
        (item(3, 1, 3), "1 new"),  # a rolling update under way
        (item(3, 3, 4), "3/3 ready"),  # the old pod is still there
        (item(3, 3, 3, observed=1), "not looked at yet"),
        (item(0, 0, 0, wanted=0), ""),
    ],
)
def test_whole_means_full_strength_in_the_newest_form(seen: dict[str, Any], lacks: str) -> None:
    said = workload.lack("statefulset", seen)
    assert lacks in said
    assert bool(said) == bool(lacks)


def test_an_image_file_has_what_the_importer_reads_and_the_same_folder_gives_the_same_layer(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "data/file").write_text("content")
    (root / "link").symlink_to("data/file")
    for name in ("first", "second"):
        archive.write(
            [Image("bench.local/x:1", [Layer(root, {"data": 999})], {"User": "1:1"})],
            tmp_path / name,
            tmp_path,
        )
        (root / "data/file").touch()
    with tarfile.open(tmp_path / "first") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))[0]
        config = json.load(tar.extractfile(manifest["Config"]) or pytest.fail("no config"))
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][0])) as layer:
            owners = {member.name: member.uid for member in layer}
        assert manifest["RepoTags"] == ["bench.local/x:1"]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{manifest['Layers'][0].partition('/')[0]}"]
        assert owners == {"data": 999, "data/file": 999, "link": 0}
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_the_binary_is_another_one_when_a_source_or_a_flag_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(binary, "shutil", type("none", (), {"which": staticmethod(lambda _: None)}))
    before = binary.identity()
    assert binary.identity() == before
    monkeypatch.setattr(binary, "_FLAGS", ["-race"])
    assert binary.identity() != before


def test_an_upgrade_starts_from_another_product_whose_data_this_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(path: str, content: str) -> str:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["add", "."], ["commit", "-q", "--no-gpg-sign", "-m", path]):
            shell.run(["git", *author, *words], cwd=tmp_path)
        return shell.run(["git", "rev-parse", "HEAD"], cwd=tmp_path).stdout.strip()

    monkeypatch.setattr(images, "ROOT", tmp_path)
    assert images.previous_commit() is None  # no git here
    shell.run(["git", "init", "-q", str(tmp_path)])
    commit("src/a.py", "data of another format")
    commit(images.DATA_FORMAT_SINCE, "decision")
    commit("src/a.py", "1")
    assert images.previous_commit() is None  # the product that is checked now
    commit("src/a.py", "2")
    readable = images.previous_commit()
    for number in range(30):
        commit("README.md", str(number))
    # commits that leave the product as it is do not push it out
    assert images.previous_commit() == readable is not None


def test_every_kubernetes_module_has_the_version_that_the_servers_report() -> None:
    modules = (binary.SOURCES / "go.mod").read_text()
    staging = binary.KUBERNETES_VERSION.replace("v1.", "v0.")
    replaced = [
        line.split("=>")[1].split() for line in modules.splitlines() if "=> k8s.io/" in line
    ]
    assert len(replaced) > 25
    assert {version for _, version in replaced} == {staging}


def test_the_patch_takes_the_plain_list_out_of_its_wrapper() -> None:
    plain = "&cache.ListWatch{\n\t\t\tListFunc: f(a, b),\n\t\t}"
    wrapped = (
        f"x(\n\tcache.ToListWatcherWithWatchListSemantics(\n\t\t{plain},\n\t\tkubeClient,\n\t),\n)"
    )
    assert binary.NEWER_CLIENT.sub(r"\1", wrapped) == f"x(\n\t{plain},\n)"


def test_a_filter_that_rejects_holds_where_it_may() -> None:
    seen = {("a", "b", 1): "refused", ("a", "b", 2): "open", ("a", "b", 3): "silent"}
    assert (
        matrix.differences(
            lambda *_: False, {**seen, ("a", "b", 2): "refused"}, ("refused", "silent")
        )
        == []
    )
    assert len(matrix.differences(lambda *_: False, seen, ("refused", "silent"))) == 1
    assert len(matrix.differences(lambda *_: True, seen, ("refused", "silent"))) == 2


def test_machines_have_names_and_addresses_of_their_own() -> None:
    machines = (topology.CONTROL_PLANE, *topology.NODES)
    assert len({topology.address(machine) for machine in machines}) == len(machines)
    assert all(topology.namespace(machine).startswith(topology.PREFIX) for machine in machines)


def test_the_bench_knows_its_topologies(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["nothing"]) == 2
    assert {"vms", "kubernetes"} <= set(
        capsys.readouterr().err.rpartition("topologies: ")[2].strip().split(", ")
    )


def test_every_alert_is_made_and_its_runbook_followed() -> None:
    made = [*conditions.with_shipped_rules(), *conditions.with_hurried_rules()]
    assert sorted(name for condition in made for name in condition.alerts) == sorted(alert_names())
    preparation, books = runbooks.read()
    assert set(books) == set(alert_names())
    assert "gpu-tokens() {" in preparation
    for name, book in books.items():
        assert book.commands or book.see, f"{name} has no command and names no other runbook"


def test_a_runbooks_commands_are_those_of_its_blocks_before_and_after_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "runbooks.md"
    page.write_text(
        "# Runbooks\n\n```bash\nsay() { echo; }\n```\n\n## TargetDown\n\n1. Look:\n\n   ```bash\n  "
        " # why\n   say one\n"
        "   ```\n\nWhen the cause is gone, see ExporterDown:\n\n```bash\nsay two\n```\n\n## "
        "ExporterDown\n\nAs TargetDown.\n"
    )
    monkeypatch.setattr(runbooks, "PAGE_FILE", page)
    preparation, books = runbooks.read()
    assert preparation == "say() { echo; }\n"
    assert books["TargetDown"] == runbooks.Runbook(
        "TargetDown", ("say one",), ("say two",), ("ExporterDown",)
    )
    assert books["ExporterDown"] == runbooks.Runbook("ExporterDown", (), (), ("TargetDown",))


@pytest.mark.parametrize(
    ("numbers", "turns"),
    [([2], 0), ([2, 6, 6, 10], 0), ([2, 6, 2], 1), ([2, 6, 10, 6, 2], 1), ([2, 6, 2, 6, 2], 3)],
)
def test_turns_of_an_autoscaler_are_counted(numbers: list[int], turns: int) -> None:
    assert autoscaling.reversals(numbers) == turns


def test_the_benchs_nvidia_smi_tells_of_one_gpu_and_of_one_that_is_lost(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(gpus.NVIDIA_SMI.replace("/tmp/well", str(tmp_path / "well")))
    program.chmod(0o755)
    readings = NvidiaSmiSource(str(program)).read()
    assert [type(reading) for reading in readings] == [GpuReading, GpuProblem]
    assert [reading.problem for reading in readings if isinstance(reading, GpuProblem)] == [
        Problem.LOST
    ]
    (tmp_path / "well").touch()
    assert [type(reading) for reading in NvidiaSmiSource(str(program)).read()] == [GpuReading]
