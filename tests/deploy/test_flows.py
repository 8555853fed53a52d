"""Every document, firewall and security group says what deploy/flows.yaml says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy import flows
from gpu_token_analytics.tools.reference import FOUR_MACHINES
from gpu_token_analytics.tools.sizing import size

TABLE = flows.load()
ROOT = flows.ROOT


def test_everything_written_from_the_table_is_up_to_date() -> None:
    assert [str(path.relative_to(ROOT)) for path in flows.stale(TABLE)] == [], "run: make flows"


def test_the_documents_carry_the_tables() -> None:
    carried = {
        name
        for path in (ROOT / "CA0").rglob("*.md")
        for name in re.findall(r"<!-- flows:(\w+) -->", path.read_text())
    }
    assert carried >= set(flows.documents_tables(TABLE))


@pytest.mark.parametrize("machine", TABLE.machines.values(), ids=lambda machine: machine.name)
def test_firewall_rules_are_the_flows_into_the_machine(machine: flows.Machine) -> None:
    """Read back independently of the code that writes them."""
    text = (ROOT / "CA0" / machine.name / "firewall.rules").read_text()
    rules = set(re.findall(r"^(\d+)/tcp from (\S+)", text, re.MULTILINE))
    raw = yaml.safe_load(flows.TABLE.read_text())
    address = {name: entry["ip"] for name, entry in raw["machines"].items()} | {
        "admin": "ADMIN_CIDR"
    }
    assert rules == {
        (str(flow["port"]), address[flow["from"]])
        for flow in raw["flows"]
        if flow["to"] == machine.name
    }


def test_the_table_is_the_least_that_was_asked_for() -> None:
    services = {(flow.source, flow.target, flow.port) for flow in TABLE.flows if flow.port != 22}
    assert services == {
        ("vm3-processor", "vm1-kafka", 9092),
        ("vm4-producers", "vm1-kafka", 9092),
        ("vm3-processor", "vm2-mongo", 27017),
        ("admin", "vm3-processor", 8080),
        ("admin", "vm3-processor", 8081),
    }
    assert {(flow.source, flow.target) for flow in TABLE.flows if flow.port == 22} == {
        ("admin", name) for name in TABLE.machines
    }


@pytest.mark.parametrize("stage", ["CA0", "CA1", "CA2", "CA3", "CA4"])
def test_every_stage_says_how_it_is_built_and_what_was_given_up(stage: str) -> None:
    for name in ("architecture.md", "conversation-summary.md"):
        assert (ROOT / stage / "docs" / name).is_file(), f"{stage}/docs/{name}"


def test_terraform_takes_machines_and_flows_from_the_table_only() -> None:
    texts = [path.read_text() for path in (ROOT / "CA1/terraform").rglob("*.tf")]
    assert any("deploy/flows.yaml" in text for text in texts)
    for port in (9092, 27017, 8080, 22):
        assert not any(
            re.search(rf"\b{port}\b", re.sub(r"(?m)#.*|description\s*=.*", "", text))
            for text in texts
        ), port


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("to: vm2-mongo, port: 27017", "to: vm9, port: 27017", "unknown machine"),
        ("ip: 10.0.1.11", "ip: 10.9.1.11", "outside subnet_cidr"),
        (
            "from: vm4-producers, to: vm1-kafka",
            "from: vm3-processor, to: vm1-kafka",
            "stands there twice",
        ),
        ("to: vm2-mongo, port: 27017", "to: vm2-mongo, port: 270170", "port out of range"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    tmp_path: Path, replace: str, by: str, message: str
) -> None:
    text = flows.TABLE.read_text()
    assert replace in text
    (tmp_path / "flows.yaml").write_text(text.replace(replace, by))
    with pytest.raises(flows.FlowTableError, match=message):
        flows.load(tmp_path / "flows.yaml")


def test_a_stale_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = flows.FlowTable(TABLE.subnet_cidr, TABLE.os, TABLE.machines, TABLE.flows[1:])
    assert ROOT / "CA0/vm1-kafka/firewall.rules" in flows.stale(changed)


def test_disks_hold_what_the_sizes_say() -> None:
    """Of the fleet that CA0's document names, with 20 GB for the system."""
    needed = size(FOUR_MACHINES)
    machines = TABLE.machines
    assert machines["vm1-kafka"].disk_gb >= needed.kafka_disk_gb + 20
    assert machines["vm2-mongo"].disk_gb >= needed.mongo_disk_gb + 20
