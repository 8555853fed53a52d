"""The order of the checks of CA2 and CA3. Each group is a module; what a group leaves behind, the
next one finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.bench.kubernetes import (
    autoscaling,
    deployment,
    faults,
    operations,
    reachability,
    resilience,
    runbooks,
)
from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.kubernetes.operator import Operator
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.report import Report

# Only with --full, or when asked for by name.
_LONG = {
    "members": "each node drained, the other Kafka and MongoDB pods deleted",
    "cpu": "the API scaled by CPU",
    "faults": "a wrong secret, a full volume and a missing topic, each named by doctor",
    "lag": "processors scaled by the group's lag, and by one that comes and goes",
    "chaos": (
        "networks cut, a cable pulled, a disk filled, busy nodes, rolling restarts of the stores"
    ),
    "alerts": "alerts of the shipped rules, by real faults, to a receiver",
    "runbooks": "every other alert, and every runbook followed as written",
}


@dataclass(frozen=True)
class Bench:
    """What every group of checks is given."""

    report: Report
    cluster: Cluster
    operator: Operator
    workload: Workload


def run_all(report: Report, cluster: Cluster, *, full: bool, only: str) -> None:
    """Runs the groups in order. Without the first there is nothing to check, so its failure ends
    the run."""
    bench = Bench(report, cluster, Operator(cluster), Workload(cluster))
    report.begin("CA2")

    def wanted(group: str) -> bool:
        return any(word in group for word in only.split(","))

    if not deployment.up(bench, from_earlier=wanted("CA2 resilience")):
        return
    stages: list[tuple[str, dict[str, Callable[[Bench], None]]]] = [
        ("CA2", {
            "resilience": resilience.run_checks,
            "deployment": deployment.run_checks,
            "members": resilience.every_member,
            "cpu": autoscaling.by_cpu,
            "faults": faults.run_checks,
        }),
        ("CA3", {
            "operations": operations.up,
            "reachability": reachability.run_checks,
            "lag": autoscaling.by_lag,
            "chaos": resilience.chaos,
        }),
        # With evidence of its own; all of it needs `operations`.
        ("CA3/observability", {"alerts": runbooks.shipped, "runbooks": runbooks.hurried}),
        ("CA3", {
            "down": deployment.down,
        }),
    ]  # fmt: skip
    for stage, groups in stages:
        report.begin(stage)
        for name, group in groups.items():
            if not wanted(f"{stage} {name}"):
                continue
            if name in _LONG and not (full or only):
                report.leave_out(f"{stage}: {_LONG[name]}", "only in make kubernetes-full")
                continue
            with report.check(f"{stage}: the group {name} ran to its end"):
                group(bench)
