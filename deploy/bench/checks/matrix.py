"""Who can reach which port: every pair, tried with real connections, compared with what a table
allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

Attempt = tuple[str, str, int]
"""Source, target, port."""

LISTEN = """
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
CONNECT = """
import concurrent.futures, json, socket, sys
def attempt(target):
    try: socket.create_connection(tuple(target), timeout=1.5).close()
    except ConnectionRefusedError: return "refused"
    except OSError: return "silent"
    return "open"
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    print(json.dumps(list(pool.map(attempt, targets))))
"""


def targets_argument(targets: Sequence[tuple[str, int]]) -> str:
    """The argument of the program CONNECT: which addresses and ports it tries."""
    return json.dumps([list(target) for target in targets])


def answers(said: str) -> list[str]:
    """What CONNECT printed: `open`, `refused` or `silent` for each target, in order."""
    outcomes: list[str] = json.loads(said.strip().splitlines()[-1])
    return outcomes


def differences(
    allowed: Callable[[str, str, int], bool],
    seen: Mapping[Attempt, str],
    denied: Sequence[str] = ("silent",),
) -> list[str]:
    """Where what was seen and what is allowed disagree.

    `denied` are the answers of a filter that holds: a packet filter that drops is `silent`, and
    `refused` would be a packet let through; one that rejects is `refused` as well.
    """
    wrong = []
    for (source, target, port), answer in seen.items():
        permitted = allowed(source, target, port)
        if answer != "open" if permitted else answer not in denied:
            wanted = "open" if permitted else " or ".join(denied)
            wrong.append(f"{source} -> {target}:{port} is {answer}, the flow table says {wanted}")
    return wrong


def draw(sources: Sequence[str], targets: Sequence[str], seen: Mapping[Attempt, str]) -> str:
    """The open ports, one line per source."""
    width = max(14, *(len(source) + 1 for source in sources))
    open_ports: dict[tuple[str, str], list[str]] = {}
    for (source, target, port), answer in seen.items():
        if answer == "open":
            open_ports.setdefault((source, target), []).append(str(port))
    lines = []
    for source in sources:
        cells = [
            f"{target}:{','.join(open_ports.get((source, target), ['-']))}"
            for target in targets
            if target != source
        ]
        lines.append(f"{source:{width}}" + "  ".join(cells))
    return "\n".join(lines)
