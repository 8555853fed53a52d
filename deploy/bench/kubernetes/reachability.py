"""Every pod against every pod's ports, with the flow table's NetworkPolicies in force."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deploy import policies
from deploy.bench.checks import matrix
from deploy.bench.kubernetes import probes, topology
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.machines import cgroups
from deploy.bench.report import expect

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_CLOSED_PORT = 9999  # in no flow: open to nobody
_LISTENERS = f"{topology.PREFIX}listeners"
# in a namespace of its own; in ours, without a label that a policy knows
_STRANGER, _NOBODY = "stranger", "nobody"
# A filter that holds: kube-router rejects a new connection, and a policy may drop it.
_DENIED = ("refused", "silent")

# a peer, and the workload that it is when CA3's observability runs
_LIVES_IN = {"monitoring": "prometheus"}

Pod = dict[str, Any]


def run_checks(bench: Bench) -> None:
    """Needs the policies applied. Leaves nothing behind."""
    with bench.report.check("CA3: exactly the flow table's flows are open between pods"):
        table = policies.load()
        try:
            ends = _ends(bench, table)
            with _listeners(
                bench.workload,
                [*{pods[-1]["metadata"]["uid"]: pods[-1] for pods in ends.values()}.values()],
                table,
            ):
                seen = _observe(bench.workload, table, ends)
        finally:
            probes.remove(bench.cluster)
        sources, targets = list(ends), [name for name in ends if name in table.workloads]
        bench.report.say(
            f"{len(seen)} connections tried; open:\n{matrix.draw(sources, targets, seen)}"
        )
        wrong = matrix.differences(table.allowed, seen, _DENIED)
        expect(not wrong, "; ".join(wrong))


def _ends(bench: Bench, table: policies.PodTable) -> dict[str, list[Pod]]:
    """The pods of each workload and peer, and of two that are in no flow. Probes stand in for those
    that do not run now."""
    ends: dict[str, list[Pod]] = {}
    missing = []
    for name, workload in table.workloads.items():
        running = [
            pod for pod in Workload(bench.cluster, workload.namespace).pods(name) if _runs(pod)
        ]
        if running:
            ends[name] = running
        else:
            missing.append(probes.pod(f"probe-{name}", workload.namespace, workload.labels))
    for name, peer in table.peers.items():
        if name == policies.DNS:
            continue
        # A peer's namespace may have policies of its own, which speak of the pods that really live
        # there.
        running = [
            pod
            for pod in Workload(bench.cluster, peer.namespace).pods(_LIVES_IN.get(name, "none"))
            if _runs(pod)
        ]
        if running:
            ends[name] = running
            continue
        missing.append(probes.pod(f"probe-{name}", peer.namespace, peer.labels))
    missing.append(probes.pod(f"probe-{_STRANGER}", _STRANGER))
    missing.append(probes.pod(f"probe-{_NOBODY}", policies.NAMESPACE))
    for pod in probes.create(bench.cluster, missing):
        ends[pod["metadata"]["name"].removeprefix("probe-")] = [pod]
    return ends


def _runs(pod: Pod) -> bool:
    return bool(pod["status"]["phase"] == "Running")


@contextmanager
def _listeners(
    workload: Workload, targets: Sequence[Pod], table: policies.PodTable
) -> Iterator[None]:
    """Something listens on every port of every target, so that a port that cannot be reached is one
    that is filtered."""
    ports = [str(port) for port in (*table.ports, _CLOSED_PORT)]
    groups = cgroups.make(_LISTENERS)
    try:
        for pod in targets:
            listen = [
                "nsenter",
                "-t",
                str(workload.process_of(pod)),
                "-n",
                "--",
                sys.executable,
                "-c",
                matrix.LISTEN,
                *ports,
            ]
            # Processes of this host: no output to keep, and their cgroup is how they are found
            # again.
            process = subprocess.Popen(
                cgroups.enter(groups, listen),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            expect(
                process.stdout.readline().strip() == "ready",
                f"no listeners in {pod['metadata']['name']}",
            )
        time.sleep(2)  # kube-router needs a moment for the probes' addresses
        yield
    finally:
        cgroups.kill([f"/{_LISTENERS}"])
        cgroups.remove(_LISTENERS)


def _observe(
    workload: Workload, table: policies.PodTable, ends: Mapping[str, list[Pod]]
) -> dict[matrix.Attempt, str]:
    """`open`, `refused` or `silent` from the first pod of each end to the last pod of each
    workload."""
    seen: dict[matrix.Attempt, str] = {}
    for source, pods in ends.items():
        pod = pods[0]
        attempts = [
            (target, ends[target][-1]["status"]["podIP"], port)
            for target in table.workloads
            for port in (*table.ports, _CLOSED_PORT)
            if ends[target][-1]["metadata"]["uid"] != pod["metadata"]["uid"]
        ]
        argument = matrix.targets_argument([(address, port) for _, address, port in attempts])
        said = workload.in_network_of(pod, [sys.executable, "-c", matrix.CONNECT, argument])
        for (target, _, port), answer in zip(attempts, matrix.answers(said), strict=True):
            seen[source, target, port] = answer
    return seen
