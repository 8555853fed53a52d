"""The flow table between pods (`workloads`, `peers`, `pod_flows` in flows.yaml) and the
NetworkPolicies written from it.

    python -m deploy.policies write     after a change of flows.yaml
    python -m deploy.policies check     exit 1 and the stale files when something written differs
                                        from the table

Everything is denied, both ways, then one policy for each end of each flow: a pod may send what the
table says it sends and receive what the table says it receives. Names are asked of the cluster's
DNS by all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy import flows
from deploy.flows import ROOT, Flow, FlowTable, FlowTableError

NAMESPACE = "gpu-tokens"
DNS = "dns"
# Named by the pod's port: 53 on most clusters, another one where CoreDNS does not run as root and
# its Service maps 53 to it.
DNS_PORTS = (53, 1053)
POLICIES = ROOT / "CA3" / "policies" / "network.yaml"
_SSH = 22
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Our pods of one kind, known by the label app.kubernetes.io/name."""

    name: str
    namespace: str = NAMESPACE
    machine: str | None = None  # where it runs in CA0 and CA1; None: only in a cluster

    @property
    def labels(self) -> dict[str, str]:
        """What selects its pods."""
        return {"app.kubernetes.io/name": self.name}


@dataclass(frozen=True)
class Peer:
    """Pods that are not ours: a whole namespace, or those with `labels` in it."""

    name: str
    namespace: str
    why: str
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class PodTable:
    """The flows between pods, checked against the flows between machines."""

    workloads: dict[str, Workload]
    peers: dict[str, Peer]
    flows: tuple[Flow, ...]

    def allowed(self, source: str, target: str, port: int) -> bool:
        """Whether a pod of `source` may open `port` of a pod of `target`. Who is not in the table
        may open nothing."""
        return any(
            (flow.source, flow.target, flow.port) == (source, target, port) for flow in self.flows
        )

    @property
    def ports(self) -> list[int]:
        """Every service port of the table, sorted."""
        return sorted({flow.port for flow in self.flows})

    @property
    def namespaces(self) -> list[str]:
        """The namespaces of our workloads."""
        return sorted({workload.namespace for workload in self.workloads.values()})


def load(path: Path = flows.TABLE) -> PodTable:
    """The table. Raises FlowTableError when an entry names nobody known, or when pods and machines
    disagree."""
    machines = flows.load(path)
    raw: dict[str, Any] = yaml.safe_load(path.read_text())
    workloads = {name: Workload(name, **fields) for name, fields in raw["workloads"].items()}
    peers = {name: Peer(name, **fields) for name, fields in raw["peers"].items()}
    table = PodTable(
        workloads,
        peers,
        tuple(Flow(f["from"], f["to"], f["port"], f["why"]) for f in raw["pod_flows"]),
    )
    _check(table, machines)
    return table


def _check(table: PodTable, machines: FlowTable) -> None:
    for workload in table.workloads.values():
        if workload.machine is not None and workload.machine not in machines.machines:
            raise FlowTableError(f"workload {workload.name}: machine {workload.machine} is unknown")
    seen: set[tuple[str, str, int]] = set()
    for flow in table.flows:
        key = (flow.source, flow.target, flow.port)
        if flow.target not in table.workloads or flow.source not in {
            *table.workloads,
            *table.peers,
        }:
            raise FlowTableError(
                f"pod flow {key}: unknown workload; a target must be ours, a source ours or a peer"
            )
        if not 1 <= flow.port <= 65535 or key in seen:
            raise FlowTableError(
                f"pod flow {key}: port out of range, or the flow stands there twice"
            )
        seen.add(key)
    between_machines = {
        (flow.source, flow.target, flow.port)
        for flow in machines.flows
        if flow.port != _SSH and flow.source != flows.ADMIN
    }
    projected = set(_projected(table))
    if projected != between_machines:
        raise FlowTableError(
            "pod_flows and flows disagree: only between pods "
            f"{sorted(projected - between_machines)}, "
            f"only between machines {sorted(between_machines - projected)}; write both, or give "
            "the workload no `machine`"
        )


def _projected(table: PodTable) -> Iterator[tuple[str, str, int]]:
    """The flows between workloads that stand on two different machines, as flows between these."""
    for flow in table.flows:
        source, target = table.workloads.get(flow.source), table.workloads[flow.target]
        if source and source.machine and target.machine and source.machine != target.machine:
            yield source.machine, target.machine, flow.port


def network_policies(table: PodTable) -> list[Manifest]:
    """Deny all and DNS for each of our namespaces, then the two ends of each flow."""
    manifests: list[Manifest] = []
    for namespace in table.namespaces:
        manifests += [_deny_all(namespace), _dns(namespace, table.peers[DNS])]
    for flow in table.flows:
        manifests.append(_receives(table, flow))
        if flow.source in table.workloads:
            manifests.append(_sends(table, flow))
    return manifests


def _policy(name: str, namespace: str, spec: Manifest, why: str = "") -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": "gpu-tokens"},
    }
    if why:
        metadata["annotations"] = {"gpu-tokens/why": why}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def _deny_all(namespace: str) -> Manifest:
    return _policy("deny-all", namespace, {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})


def _dns(namespace: str, peer: Peer) -> Manifest:
    ports = [
        {"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")
    ]
    egress = [{"to": [_selector(peer.namespace, peer.labels)], "ports": ports}]
    return _policy(
        "dns", namespace, {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}, peer.why
    )


def _receives(table: PodTable, flow: Flow) -> Manifest:
    target = table.workloads[flow.target]
    rule = {
        "from": [_end(table, flow.source, target.namespace)],
        "ports": [{"port": flow.port, "protocol": "TCP"}],
    }
    spec = {
        "podSelector": {"matchLabels": target.labels},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }
    return _policy(
        f"{flow.target}-from-{flow.source}-{flow.port}", target.namespace, spec, flow.why
    )


def _sends(table: PodTable, flow: Flow) -> Manifest:
    source = table.workloads[flow.source]
    rule = {
        "to": [_end(table, flow.target, source.namespace)],
        "ports": [{"port": flow.port, "protocol": "TCP"}],
    }
    spec = {
        "podSelector": {"matchLabels": source.labels},
        "policyTypes": ["Egress"],
        "egress": [rule],
    }
    return _policy(f"{flow.source}-to-{flow.target}-{flow.port}", source.namespace, spec, flow.why)


def _end(table: PodTable, name: str, policy_namespace: str) -> Manifest:
    end = table.workloads.get(name) or table.peers[name]
    if end.namespace == policy_namespace:
        return {"podSelector": {"matchLabels": dict(end.labels or {})}}
    return _selector(end.namespace, end.labels)


def _selector(namespace: str, labels: Mapping[str, str] | None) -> Manifest:
    # Both in one item: pods with these labels in this namespace. As two items it would be either of
    # them.
    selector: Manifest = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    }
    if labels:
        selector["podSelector"] = {"matchLabels": dict(labels)}
    return selector


def documents_tables(table: PodTable) -> dict[str, str]:
    """The tables that the documents of CA2 and CA3 may carry, by name."""
    workloads = [
        [f"`{w.name}`", f"`{w.namespace}`", w.machine or "-"] for w in table.workloads.values()
    ]
    peers = [[f"`{p.name}`", f"`{p.namespace}`", p.why] for p in table.peers.values()]
    rows = [[flow.source, flow.target, f"TCP {flow.port}", flow.why] for flow in table.flows]
    return {
        "workloads": flows.markdown(["Workload", "Namespace", "In CA0 and CA1 on"], workloads),
        "peers": flows.markdown(["Peer", "Namespace", "Who"], peers),
        "pod_flows": flows.markdown(["From", "To", "Port", "Why"], rows),
    }


def rendered(table: PodTable) -> Iterator[tuple[Path, str]]:
    """Every file that comes from the table, with the text it must have."""
    text = "---\n".join(
        yaml.safe_dump(manifest, sort_keys=False) for manifest in network_policies(table)
    )
    yield POLICIES, f"# {flows.GENERATED}\n{text}"
    yield from flows.documents(("CA2", "CA3"), documents_tables(table))


def main(arguments: list[str]) -> int:
    """`write` or `check`; returns the exit status."""
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    return flows.write_or_check(rendered(load()), arguments == ["write"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
