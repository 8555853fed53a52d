"""The reachability matrix of the four machines, the administrator and a neighbour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deploy.bench.checks import matrix
from deploy.bench.shell import run
from deploy.bench.vms.machines import OUTSIDER, PREFIX, Bench
from deploy.flows import ADMIN, FlowTable

# Kafka's own loopback listeners, an unused port and Docker's API: in no flow, so open to nobody.
CLOSED_PORTS = (19092, 19093, 2375, 9999)


@contextmanager
def listeners(bench: Bench, ports: Iterable[int]) -> Iterator[None]:
    """Something listens on every port of every machine, so that a port that cannot be reached is
    one that is filtered."""
    units = []
    words = [str(port) for port in ports]
    try:
        for name in bench.table.machines:
            bench.inside(
                name,
                "systemd-run",
                "-q",
                "--unit=bench-listeners",
                "python3",
                "-c",
                matrix.LISTEN,
                *words,
            )
            units.append(name)
        yield
    finally:
        for name in units:
            bench.inside(name, "systemctl", "stop", "bench-listeners", check=False)


def observe(bench: Bench, ports: Iterable[int]) -> dict[matrix.Attempt, str]:
    """`open`, `refused` or `silent` for each (source, target, port)."""
    pairs = [(m.name, m.ip, port) for m in bench.table.machines.values() for port in ports]
    seen: dict[matrix.Attempt, str] = {}
    for source in [*bench.table.machines, ADMIN, OUTSIDER]:
        targets = matrix.targets_argument([(ip, port) for _, ip, port in pairs])
        where = [] if source == ADMIN else ["nsenter", f"--net=/run/netns/{PREFIX}-{source}"]
        answers = matrix.answers(run([*where, "python3", "-c", matrix.CONNECT, targets]).stdout)
        seen |= {
            (source, target, port): answer
            for (target, _, port), answer in zip(pairs, answers, strict=True)
            if source != target
        }
    return seen


def draw(table: FlowTable, seen: dict[matrix.Attempt, str]) -> str:
    """The open ports, one line per source."""
    return matrix.draw([*table.machines, ADMIN, OUTSIDER], list(table.machines), seen)
