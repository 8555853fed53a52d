"""The order of the checks of CA2 and CA3. Each group is a module; what a group leaves behind, the next one finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.bench.kubernetes import autoscaling, deployment, reachability, resilience
from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.kubernetes.operator import Operator
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.report import Report


@dataclass(frozen=True)
class Bench:
    """What every group of checks is given."""

    report: Report
    cluster: Cluster
    operator: Operator
    workload: Workload
    full: bool


def run_all(report: Report, cluster: Cluster, *, full: bool, only: str) -> None:
    """Runs the groups in order. Without the first there is nothing to check, so its failure ends the run."""
    bench = Bench(report, cluster, Operator(cluster), Workload(cluster), full)
    report.begin("CA2")
    if not deployment.up(bench):
        return
    groups: list[tuple[str, Callable[[Bench], None]]] = [
        ("deployment", deployment.run_checks),
        ("resilience", resilience.run_checks),
        ("cpu", autoscaling.by_cpu),
        ("reachability", reachability.run_checks),
        ("lag", autoscaling.by_lag),
    ]
    for name, group in groups:
        if only in name:
            with report.check(f"{report.stage}: the group {name} ran to its end"):
                group(bench)
