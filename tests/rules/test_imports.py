"""Rooms are entered one way: each may import what stands for it in ROOMS, and only rooms above it
there (ARCHITECTURE.md).

The docstring of a room's `__init__.py` says what it holds and what it may import; this table is the
same, checked. Tests of rooms lie in folders of the same names.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "gpu_token_analytics"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / PACKAGE

SHARED = {
    "errors",
    "foreign_text",
    "units",
    "sentences",
    "settings",
    "running_demo",
    "metrics",
    "clock",
    "logs",
    "signals",
    "http_guard",
    "http_server",
}
SHAPES = SHARED | {"wire", "documents"}
STORED = SHAPES | {"ledger", "mongo"}

# What each room or file beside them may import of the package, besides itself. Who is imported
# stands above who imports.
ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    **dict.fromkeys(SHARED, SHARED),
    "wire": {"errors", "foreign_text", "units"},
    "documents": {"wire"},
    "sources": {"wire", "errors"},
    "ledger": {"wire", "documents", "settings", "errors", "units"},
    "kafka": SHARED | {"wire"},
    "mongo": SHAPES,
    "books": STORED | {"sources"},
    "cells": STORED,
    "raw": STORED | {"books", "cells"},
    "rollups": STORED | {"cells"},
    "closing": STORED | {"books", "cells", "raw", "rollups"},
    "ingest": STORED | {"sources", "kafka", "books", "cells", "raw"},
    "costs": STORED | {"sources", "books", "cells", "raw", "rollups", "closing"},
    "budgets": STORED | {"books", "rollups", "costs"},
    "warehouse": STORED | {"kafka", "cells", "rollups", "costs"},
    "web": set(),
    "api": STORED | {"sources", "kafka", "costs", "budgets", "web"},
    "processor": STORED | {"kafka", "books", "raw", "rollups", "closing", "ingest", "warehouse"},
    "exporter": STORED | {"kafka", "books", "rollups", "closing", "costs", "budgets"},
    "agent": SHARED | {"wire", "kafka"},
    "simulate": SHARED | {"wire", "kafka"},
    "embedded": SHARED,
    "terminal": STORED | {"rollups", "costs", "budgets", "api", "warehouse"},
    "tools": STORED | {"kafka", "cells", "closing", "terminal", "warehouse"},
    "demo": STORED | {"kafka", "closing", "costs", "simulate", "embedded", "terminal"},
    "cli": SHARED
    | {
        "kafka",
        "processor",
        "exporter",
        "agent",
        "simulate",
        "embedded",
        "terminal",
        "tools",
        "demo",
    },
    "__main__": {"cli"},
}

# Who may import a library that has one door: rooms, or single files. `bson` comes with pymongo.
DOORS = {
    "confluent_kafka": {"kafka"},
    "pymongo": {
        "mongo",
        # These say what they ask in the driver's words (collections, operations, write concerns)
        # and get its errors mapped by mongo/client.py. Nobody else: figures, closing and processes
        # ask these.
        "books/declarations.py",
        "books/instances.py",
        "books/prices.py",
        "books/store.py",
        "books/dated.py",
        "budgets/store.py",
        "cells/line_chunks.py",
        "cells/lines.py",
        "cells/store.py",
        "raw/insert.py",
        "raw/read.py",
        "rollups/lines.py",
        "rollups/store.py",
        "costs/lookups.py",
        "costs/read.py",
        "warehouse/outbox.py",
        "api/keys.py",
        "embedded/mongod.py",  # asks the server it started whether it is up
    },
    # sizes and bytes of documents
    "bson": {"mongo", "cells/line_chunks.py", "cells/lines.py", "raw/encoding.py"},
    "numpy": {"ledger", "raw", "rollups", "closing", "ingest", "simulate"},
    "fastapi": {"api", "web", "processor", "exporter"},
    "starlette": {"api", "web"},
    "uvicorn": {"api", "http_server", "http_guard"},
    "pyarrow": {"costs/files.py"},
    "pynvml": {"agent"},
    "pyrage": {"tools"},
    "opentelemetry": {"sources/otlp.py"},
    "google": {"sources/otlp.py", "agent/pods/kubelet.py"},  # protobuf, and google.rpc.Status
    "grpc": {"api/otlp_grpc.py", "agent/pods/kubelet.py"},  # an extra: imported where it is needed
}

# Rooms that import nothing but Python's own and these.
PURE = {
    "ledger": {"numpy"},
    "wire": {"msgspec", "uuid_utils"},
    "sources": {"msgspec", "opentelemetry", "google"},
}

# Of closing, the files that ask the database, each through rooms that do. What they load is
# computed by the ledger, which asks nobody: load, then compute, then write.
ASKS_THE_STORE = ("raw", "cells", "books", "rollups", "mongo", "closing.store")
CLOSING_ASKS = {
    "closer.py",
    "load.py",
    "request_view.py",
    "load_counters.py",
    "load_requests.py",
    "load_samples.py",
    "mark.py",
    "neighbours.py",
    "silence.py",
    "spread.py",
    "audit.py",
    "store.py",
    "write.py",
}

Import = tuple[str, str, int]  # file, what it imports (dotted), line


def imports_of(text: str, file: str) -> Iterator[Import]:
    """Every import in a module, those inside functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield file, name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{file}:{node.lineno}: import by full name, so that this test can see it"
            )
            for name in node.names:
                # `from gpu_token_analytics import kafka` imports the room kafka.
                yield (
                    file,
                    f"{node.module}.{name.name}" if node.module == PACKAGE else str(node.module),
                    node.lineno,
                )


def all_imports() -> list[Import]:
    """Of every file of the package."""
    return [
        line
        for path in sorted(SOURCE.rglob("*.py"))
        for line in imports_of(path.read_text(), str(path.relative_to(SOURCE)))
    ]


def room_of(file: str) -> str:
    """The room a file lies in; for a file beside the rooms its own name."""
    return file.split("/", 1)[0].removesuffix(".py")


def wrong(imports: list[Import]) -> list[str]:
    """Each import that goes the wrong way, as `file:line imports what`."""
    lines = []
    for file, name, line in imports:
        room, (top, *rest) = room_of(file), name.split(".")
        if top == PACKAGE:
            target = rest[0] if rest else "__init__"
            fine = target in (room, "__init__", "__version__") or target in ROOMS.get(room, set())
        else:
            fine = top not in DOORS or not DOORS[top].isdisjoint((room, file))
            fine = fine and (
                room not in PURE or top in PURE[room] or top in sys.stdlib_module_names
            )
        if not fine:
            lines.append(f"{file}:{line} imports {name}")
    return lines


def test_every_import_goes_the_one_way() -> None:
    assert wrong(all_imports()) == []


def test_rooms_stand_below_what_they_import() -> None:
    order = list(ROOMS)
    late = {
        (room, other)
        for room, others in ROOMS.items()
        for other in others
        if order.index(other) > order.index(room) and not {room, other} <= SHARED
    }
    assert late == set(), "an import both ways, if both were used"


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(str(path.relative_to(SOURCE))) for path in SOURCE.rglob("*.py")}
    assert rooms == set(ROOMS), "a new room needs a place in ROOMS, and one that is gone none"


def test_every_exception_is_needed() -> None:
    """A file that has stopped importing what it may import loses its place in DOORS."""
    used = {(name.split(".")[0], file) for file, name, _ in all_imports()}
    assert [
        (door, file)
        for door, files in DOORS.items()
        for file in files
        if "/" in file and (door, file) not in used
    ] == []


def test_unit_tests_lie_in_the_rooms_of_what_they_test() -> None:
    folders = {path.parent.name for path in (ROOT / "tests" / "unit").glob("*/*.py")}
    assert folders <= {path.name for path in SOURCE.iterdir() if path.is_dir()}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")))
def test_every_room_says_what_it_holds_and_imports(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text()))
    assert docstring is not None
    assert "May import " in docstring
    named = set(re.findall(r"\b(\w+)\.py\b", docstring))
    files = {path.stem for path in (SOURCE / room).glob("*.py")} - {"__init__"}
    assert named <= files, f"not there: {sorted(named - files)}"
    if re.search(r"^ *\w+\.py ", docstring, re.MULTILINE):
        assert named == files, f"its table leaves out {sorted(files - named)}"


def test_the_ledger_reads_no_clock_and_no_environment() -> None:
    banned = {
        "time",
        "os",
        "random",
        "socket",
        "threading",
        "asyncio",
        "logging",
        "pathlib",
        "subprocess",
        "secrets",
        "uuid",
    }
    assert [
        line
        for line in all_imports()
        if room_of(line[0]) == "ledger" and line[1].split(".")[0] in banned
    ] == []


def test_of_closing_only_loading_marking_and_writing_ask_the_store() -> None:
    asking = {
        file.removeprefix("closing/")
        for file, name, _ in all_imports()
        if room_of(file) == "closing"
        and f"{name}.".startswith(tuple(f"{PACKAGE}.{asked}." for asked in ASKS_THE_STORE))
    }
    assert asking == CLOSING_ASKS


def test_nothing_in_the_ledger_is_handed_a_function_to_ask() -> None:
    """What is computed depends on values alone. Labels map a function over a column."""
    assert {
        file
        for file, name, _ in all_imports()
        if room_of(file) == "ledger" and names_a_function(file)
    } == {"ledger/labels.py"}


def names_a_function(file: str) -> bool:
    """Whether a file has anything typed as a function."""
    names = {
        node.id
        for node in ast.walk(ast.parse((SOURCE / file).read_text()))
        if isinstance(node, ast.Name)
    }
    return not names.isdisjoint({"Callable", "Awaitable", "Protocol", "partial"})


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ledger/cells.py", "from gpu_token_analytics.mongo.client import x"),
        ("ledger/cells.py", "from gpu_token_analytics import kafka"),
        ("ledger/cells.py", "import pandas"),
        ("ledger/cells.py", "from gpu_token_analytics.clock import Clock"),
        ("wire/events.py", "import numpy"),
        ("wire/events.py", "from gpu_token_analytics.ledger.money import nusd_per_hour"),
        ("mongo/client.py", "from gpu_token_analytics.cells.store import x"),
        ("rollups/store.py", "from gpu_token_analytics.closing.closer import x"),
        ("costs/read.py", "def f():\n    import confluent_kafka.admin"),
        ("costs/read.py", "from fastapi import Request"),
        ("costs/rows.py", "from pymongo import MongoClient"),
        ("ingest/run.py", "from gpu_token_analytics.closing.closer import Closer"),
        ("api/routes.py", "import gpu_token_analytics.processor"),
        ("api/routes.py", "from pymongo import MongoClient"),
        ("processor/service.py", "from gpu_token_analytics.agent.run import Agent"),
    ],
)
def test_a_wrong_import_is_found(file: str, text: str) -> None:
    assert len(wrong(list(imports_of(text, file)))) == 1
