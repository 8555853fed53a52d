"""CA3's NetworkPolicies allow the flow table's flows and no other; judged as Kubernetes judges
them, not by who wrote them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import flows, policies

TABLE = policies.load()
Policy = dict[str, Any]


def written() -> list[Policy]:
    return [policy for policy in yaml.safe_load_all(policies.POLICIES.read_text()) if policy]


def ends() -> dict[str, tuple[str, dict[str, str]]]:
    """Namespace and labels of a pod of every kind: ours, the peers, and two that nobody knows."""
    known: dict[str, tuple[str, dict[str, str]]] = {
        workload.name: (workload.namespace, workload.labels)
        for workload in TABLE.workloads.values()
    }
    known |= {
        peer.name: (peer.namespace, dict(peer.labels or {"x": "y"}))
        for peer in TABLE.peers.values()
    }
    # A stranger beside us, and one elsewhere that calls itself what one of ours is called.
    return known | {
        "stranger": ("gpu-tokens", {"app": "stranger"}),
        "impostor": ("other", {"app.kubernetes.io/name": "processor"}),
    }


def matches(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    return selector is not None and all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    )


def selects_peer(
    peer: dict[str, Any], policy: Policy, namespace: str, labels: dict[str, str]
) -> bool:
    if "namespaceSelector" in peer:
        right_namespace = matches(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}
        )
    else:
        right_namespace = policy["metadata"]["namespace"] == namespace
    return right_namespace and matches(peer.get("podSelector", {}), labels)


def passes(
    way: str,
    me: tuple[str, dict[str, str]],
    other: tuple[str, dict[str, str]],
    port: int,
    all_: list[Policy],
) -> bool:
    """As NetworkPolicy says: no policy of this way selects the pod, or a rule of one that does
    allows it."""
    mine = [
        policy
        for policy in all_
        if policy["metadata"]["namespace"] == me[0]
        and matches(policy["spec"]["podSelector"], me[1])
        and way in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    rules, side = ("ingress", "from") if way == "Ingress" else ("egress", "to")
    return any(
        {"port": port, "protocol": "TCP"} in rule["ports"]
        and any(selects_peer(peer, policy, *other) for peer in rule[side])
        for policy in mine
        for rule in policy["spec"].get(rules, [])
    )


def opened(all_: list[Policy]) -> set[tuple[str, str, int]]:
    pods = ends()
    return {
        (source, target, port)
        for source in pods
        for target in TABLE.workloads
        for port in [*TABLE.ports, 22, 9999]
        if passes("Egress", pods[source], pods[target], port, all_)
        and passes("Ingress", pods[target], pods[source], port, all_)
    }


def test_what_is_written_is_up_to_date() -> None:
    assert [
        str(path) for path, text in policies.rendered(TABLE) if path.read_text() != text
    ] == [], "run: make flows"


def test_exactly_the_tables_flows_are_open() -> None:
    wanted = {(flow.source, flow.target, flow.port) for flow in TABLE.flows}
    assert opened(written()) == wanted
    assert all(TABLE.allowed(*flow) for flow in wanted)


def test_nothing_of_ours_may_leave_but_for_names() -> None:
    pods = ends()
    for workload in TABLE.workloads:
        for peer in ("users", "monitoring", "scaler", "impostor"):
            assert not passes("Egress", pods[workload], pods[peer], 443, written()), (
                workload,
                peer,
            )
        assert passes("Egress", pods[workload], pods["dns"], 53, written()), workload


@pytest.mark.parametrize(
    "name",
    ["deny-all", "kafka-from-processor-9092", "processor-to-kafka-9092", "mongo-from-mongo-27017"],
)
def test_a_policy_that_is_missing_is_noticed(name: str) -> None:
    wanted = {(flow.source, flow.target, flow.port) for flow in TABLE.flows}
    assert any(policy["metadata"]["name"] == name for policy in written())
    assert opened([policy for policy in written() if policy["metadata"]["name"] != name]) != wanted


def test_a_selector_that_is_too_wide_is_noticed() -> None:
    wider = written()
    for policy in wider:
        if policy["metadata"]["name"] == "kafka-from-agent-9092":
            # Two items in place of one: every pod of that namespace, or an agent in any.
            (peer,) = policy["spec"]["ingress"][0]["from"]
            policy["spec"]["ingress"][0]["from"] = [{key: value} for key, value in peer.items()]
        if policy["metadata"]["name"] == "mongo-from-api-27017":
            policy["spec"]["ingress"][0]["from"] = [{"namespaceSelector": {}, "podSelector": {}}]
    wrong = opened(wider) - {(flow.source, flow.target, flow.port) for flow in TABLE.flows}
    assert ("impostor", "mongo", 27017) in wrong
    assert ("users", "mongo", 27017) in wrong


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        ("from: processor, to: mongo", "from: processer, to: mongo", "unknown workload"),
        (
            "{from: topics, to: kafka, port: 9092",
            "{from: topics, to: dns, port: 9092",
            "unknown workload",
        ),
        ("{from: topics, to: kafka", "{from: processor, to: kafka", "stands there twice"),
        (
            "{from: api, to: kafka, port: 9092",
            "{from: api, to: kafka, port: 99092",
            "port out of range",
        ),
        # A flow that the machines do not have, and one that only they have.
        ("exporter: {}", "exporter: {machine: vm4-producers}", "only between pods"),
        (
            "  - {from: processor, to: mongo, port: 27017",
            "  - {from: api, to: mongo, port: 27018",
            "only between machines",
        ),
        ("kafka: {machine: vm1-kafka}", "kafka: {machine: vm9}", "unknown"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    tmp_path: Path, replace: str, by: str, message: str
) -> None:
    text = flows.TABLE.read_text()
    assert replace in text
    (tmp_path / "flows.yaml").write_text(text.replace(replace, by))
    with pytest.raises(flows.FlowTableError, match=message):
        policies.load(tmp_path / "flows.yaml")


def test_every_port_that_a_manifest_opens_is_in_the_table() -> None:
    ports = {
        int(port)
        for stage in ("CA2", "CA3/gpu")
        for path in (flows.ROOT / stage).rglob("*.yaml")
        for port in re.findall(r"containerPort: (\d+)", path.read_text())
    }
    optional = {9404, 9216}  # exporters inside the servers' pods: CA3's observability adds them
    assert ports | optional == set(TABLE.ports)


def test_the_api_gets_out_to_receivers_only_where_that_is_asked_for_and_to_no_private_address() -> (
    None
):
    folder = flows.ROOT / "CA3/policies/budget-receivers"
    shipped = [
        path for path in (flows.ROOT / "CA3").rglob("kustomization.yaml") if path.parent != folder
    ]
    assert not [
        path for path in shipped if re.search(r"(?m)^\s*-.*budget-receivers", path.read_text())
    ], "it is opt-in"
    made = list(yaml.safe_load_all((folder / "network.yaml").read_text()))
    ways = {}
    for policy in made:
        (rule,) = policy["spec"].get("egress") or policy["spec"]["ingress"]
        ways[policy["metadata"]["name"]] = (rule, [port["port"] for port in rule["ports"]])
    assert ways["api-to-alertmanager-9093"][1] == ways["alertmanager-from-api-9093"][1] == [9093]
    rule, ports = ways["api-to-receivers"]
    assert ports == [443, 465, 587]
    (end,) = rule["to"]
    closed = [ipaddress.ip_network(network) for network in end["ipBlock"]["except"]]
    for inside in (
        "10.1.2.3",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "127.0.0.1",
        "100.64.0.1",
    ):
        assert any(ipaddress.ip_address(inside) in network for network in closed), inside
