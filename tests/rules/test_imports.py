"""Imports go one way: cli -> demo -> processes -> {kafka, store} -> ledger -> the shared vocabulary (ARCHITECTURE.md).

shared     events, strict_json, values, foreign_text, terminal,
           documents, settings, running_demo, errors, metrics, clock, sinks, logs, signals, http_server, http_guard
ledger     pure: of the shared only events, documents, settings, errors; besides numpy nothing that is not Python's own
clients    kafka (alone imports confluent_kafka), store (alone imports pymongo)
processes  agent, processor, api, exporter, simulate, embedded, tools: never each other
demo       runs all of them on one machine; cli lists their commands
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "gpu_token_analytics"
SOURCE = Path(__file__).parents[2] / "src" / PACKAGE

SHARED = {
    "events",
    "strict_json",
    "names",
    "values",
    "foreign_text",
    "terminal",
    "documents",
    "settings",
    "running_demo",
    "errors",
    "metrics",
    "clock",
    "sinks",
    "logs",
    "signals",
    "http_server",
    "http_guard",
}
CLIENTS = {"kafka", "store"}
PROCESSES = {"agent", "processor", "api", "exporter", "simulate", "embedded", "tools"}

# What each part may import of the package, besides itself.
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(SHARED, SHARED),
    "ledger": {"events", "documents", "names", "settings", "errors"},
    **{name: SHARED | {"ledger"} for name in CLIENTS},
    **{name: SHARED | {"ledger"} | CLIENTS for name in PROCESSES},
    "api": SHARED | {"ledger", "web"} | CLIENTS,
    "web": set(),
    "demo": SHARED | {"ledger", "web"} | CLIENTS | PROCESSES,
    "schemas_command": {"events"},
    "cli": SHARED | CLIENTS | PROCESSES | {"demo", "schemas_command"},
    "__main__": {"cli"},
    "__init__": set(),
}

# Who may import a library that has one door. `bson` comes with pymongo. embedded starts mongod and asks it whether it is up.
DOORS = {
    "confluent_kafka": {"kafka"},
    "pymongo": {"store", "embedded"},
    "bson": {"store"},
    "numpy": {"ledger", "store", "processor", "simulate"},
    "pynvml": {"agent"},
    "pyrage": {"tools"},
}

Import = tuple[str, str, int]  # file, what it imports (dotted), line


def imports_of(text: str, file: str) -> Iterator[Import]:
    """Every import in a module, those inside functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield file, name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: import by full name, so that this test can see it"
            for name in node.names:
                # `from gpu_token_analytics import kafka` imports the part kafka.
                yield file, f"{node.module}.{name.name}" if node.module == PACKAGE else str(node.module), node.lineno


def all_imports() -> list[Import]:
    return [
        found for path in sorted(SOURCE.rglob("*.py")) for found in imports_of(path.read_text(), str(path.relative_to(SOURCE)))
    ]


def part_of(file: str) -> str:
    return file.split("/", 1)[0].removesuffix(".py")


def wrong(imports: list[Import]) -> list[str]:
    """Each import that goes the wrong way, as `file:line imports what`."""
    found = []
    for file, name, line in imports:
        part, (top, *rest) = part_of(file), name.split(".")
        if top == PACKAGE:
            target = rest[0] if rest else "__init__"
            fine = target in (part, "__init__", "__version__") or target in ALLOWED.get(part, set())
        elif top in DOORS:
            fine = part in DOORS[top]
        else:
            fine = part != "ledger" or top in sys.stdlib_module_names
        if not fine:
            found.append(f"{file}:{line} imports {name}")
    return found


def test_every_import_goes_the_one_way() -> None:
    assert wrong(all_imports()) == []


def test_every_part_has_its_rule() -> None:
    assert {part_of(file) for file, _, _ in all_imports()} <= set(ALLOWED), "a new part needs a place in ALLOWED"


def test_the_ledger_reads_no_clock_and_no_environment() -> None:
    banned = {"time", "os", "random", "socket", "threading", "asyncio", "logging", "pathlib", "subprocess", "secrets", "uuid"}
    assert [found for found in all_imports() if part_of(found[0]) == "ledger" and found[1].split(".")[0] in banned] == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ledger/cells.py", "from gpu_token_analytics.store.reads import x"),
        ("ledger/cells.py", "from gpu_token_analytics import kafka"),
        ("ledger/cells.py", "import pandas"),
        ("ledger/cells.py", "from gpu_token_analytics.clock import Clock"),
        ("store/reads.py", "from gpu_token_analytics.processor.run import x"),
        ("store/reads.py", "def f():\n    import confluent_kafka.admin"),
        ("api/routes.py", "import gpu_token_analytics.processor"),
        ("api/routes.py", "from pymongo import MongoClient"),
        ("processor/run.py", "from gpu_token_analytics.agent.run import Agent"),
        ("events.py", "from gpu_token_analytics.ledger.money import nusd_per_hour"),
    ],
)
def test_a_wrong_import_is_found(file: str, text: str) -> None:
    assert len(wrong(list(imports_of(text, file)))) == 1
