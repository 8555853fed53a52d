"""Who can reach which port: every pair of machines, the administrator and a neighbour, tried with real connections."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deploy.flows import ADMIN, FlowTable
from deploy.vms.machines import OUTSIDER, PREFIX, Bench
from deploy.vms.shell import run

# Kafka's own loopback listeners, an unused port and Docker's API: in no flow, so open to nobody.
CLOSED_PORTS = (19092, 19093, 2375, 9999)

_LISTEN = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try: s.bind(("0.0.0.0", port))
    except OSError: continue  # the service itself listens there
    s.listen(64); ready.register(s, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in ready.select(): key.fileobj.accept()[0].close()
"""
_CONNECT = """
import concurrent.futures, json, socket, sys
def attempt(target):
    try: socket.create_connection(tuple(target), timeout=1.5).close()
    except ConnectionRefusedError: return "refused"
    except OSError: return "silent"
    return "open"
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(40) as pool: print(json.dumps(list(pool.map(attempt, targets))))
"""


@contextmanager
def listeners(bench: Bench, ports: Iterable[int]) -> Iterator[None]:
    """Something listens on every port of every machine, so that a port that cannot be reached is one that is filtered."""
    units = []
    words = [str(port) for port in ports]
    try:
        for name in bench.table.machines:
            bench.inside(name, "systemd-run", "-q", "--unit=bench-listeners", "python3", "-c", _LISTEN, *words)
            units.append(name)
        yield
    finally:
        for name in units:
            bench.inside(name, "systemctl", "stop", "bench-listeners", check=False)


def observe(bench: Bench, ports: Iterable[int]) -> dict[tuple[str, str, int], str]:
    """`open`, `refused` or `silent` for each (source, target, port)."""
    pairs = [(m.name, m.ip, port) for m in bench.table.machines.values() for port in ports]
    seen: dict[tuple[str, str, int], str] = {}
    for source in [*bench.table.machines, ADMIN, OUTSIDER]:
        targets = json.dumps([[ip, port] for _, ip, port in pairs])
        where = [] if source == ADMIN else ["nsenter", f"--net=/run/netns/{PREFIX}-{source}"]
        answers = json.loads(run([*where, "python3", "-c", _CONNECT, targets]).stdout)
        seen |= {
            (source, target, port): answer for (target, _, port), answer in zip(pairs, answers, strict=True) if source != target
        }
    return seen


def differences(table: FlowTable, seen: dict[tuple[str, str, int], str]) -> list[str]:
    """Where the machines and the flow table disagree. A denied port must be silent: `refused` would be a packet let through."""
    wrong = []
    for (source, target, port), answer in seen.items():
        wanted = "open" if table.allowed(source, target, port) else "silent"
        if answer != wanted:
            wrong.append(f"{source} -> {target}:{port} is {answer}, the flow table says {wanted}")
    return wrong


def draw(table: FlowTable, seen: dict[tuple[str, str, int], str]) -> str:
    """The open ports, one line per source."""
    lines = []
    for source in [*table.machines, ADMIN, OUTSIDER]:
        cells = [
            f"{t}:{','.join(str(p) for (s, t2, p), a in seen.items() if s == source and t2 == t and a == 'open') or '-'}"
            for t in table.machines
            if t != source
        ]
        lines.append(f"{source:14}" + "  ".join(cells))
    return "\n".join(lines)
