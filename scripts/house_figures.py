"""Figures of the house: sizes of files and functions, how deep imports go, how many rooms, lines
over 100.

Usage: python scripts/house_figures.py [COMMIT ...]     each commit is a column; without one: the
files as they lie here
"""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "gpu_token_analytics"
PREFIX = f"src/{PACKAGE}/"
LONG_LINE = 100

Files = dict[str, str]  # path below the package -> text


def files_here() -> Files:
    """The package as it lies here."""
    return {
        str(path.relative_to(ROOT / PREFIX)): path.read_text()
        for path in sorted((ROOT / PREFIX).rglob("*.py"))
    }


def files_of(commit: str) -> Files:
    """The package as it was at a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, PREFIX], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [
            member for member in tar.getmembers() if member.isfile() and member.name.endswith(".py")
        ]
        return {member.name.removeprefix(PREFIX): _text(tar, member) for member in members}


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member)
    assert content is not None
    return content.read().decode()


def module_of(path: str) -> str:
    """`store/cells.py` is `store.cells`, `store/__init__.py` is `store`."""
    return (
        path.removesuffix(".py")
        .replace("/", ".")
        .removesuffix(".__init__")
        .removesuffix("__init__")
    )


def imports_of(files: Files) -> dict[str, set[str]]:
    """Modules of the package that each of its modules imports when it is loaded (not those inside
    of functions)."""
    modules = {module_of(path) for path in files}
    graph: dict[str, set[str]] = {}
    for path, text in files.items():
        targets: set[str] = set()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                base = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
                inner = {f"{base}.{name.name}".removeprefix(".") for name in node.names} & modules
                targets |= inner or {base}
            elif isinstance(node, ast.Import):
                targets |= {
                    name.name.removeprefix(PACKAGE + ".")
                    for name in node.names
                    if name.name.startswith(PACKAGE + ".")
                }
        graph[module_of(path)] = (targets & modules) - {module_of(path), ""}
    return graph


def deepest(graph: dict[str, set[str]]) -> list[str]:
    """The longest chain of imports, first to last. Raises RecursionError where imports go in a
    circle."""

    @cache
    def chain(module: str) -> list[str]:
        chains = [chain(target) for target in sorted(graph[module])]
        return [module, *max(chains, key=len, default=[])]

    chains = [chain(module) for module in sorted(graph)]
    return max(chains, key=len)


def rooms_of(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph by room: the first part of a module's name."""
    rooms: dict[str, set[str]] = {module.split(".")[0]: set() for module in graph}
    for module, targets in graph.items():
        rooms[module.split(".")[0]] |= {target.split(".")[0] for target in targets} - {
            module.split(".")[0]
        }
    return rooms


def p90(lengths: list[int]) -> int:
    """The smallest length that nine of ten do not exceed."""
    return sorted(lengths)[max(0, -(-len(lengths) * 9 // 10) - 1)]


def figures(files: Files) -> dict[str, str]:
    """Name of a figure -> its value."""
    sizes = [len(text.splitlines()) for text in files.values()]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for text in files.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    graph = imports_of(files)
    by_room: dict[str, list[int]] = {}
    for path, text in files.items():
        if "/" in path:
            by_room.setdefault(path.split("/")[0], []).append(len(text.splitlines()))
    largest = max(by_room, key=lambda room: sum(by_room[room]))
    rooms = deepest(rooms_of(graph))
    return {
        "files": str(len(files)),
        "lines": str(sum(sizes)),
        "lines of a file, median / p90 / most": (
            f"{statistics.median(sizes):.0f} / {p90(sizes)} / {max(sizes)}"
        ),
        "lines of a function, median / p90 / most": (
            f"{statistics.median(functions):.0f} / {p90(functions)} / {max(functions)}"
        ),
        "rooms": str(len(by_room)),
        "largest room": f"{largest}: {len(by_room[largest])} files, {sum(by_room[largest])} lines",
        "deepest import chain, modules": str(len(deepest(graph))),
        "deepest import chain, rooms": f"{len(rooms)} ({' > '.join(rooms)})",
        f"lines over {LONG_LINE}": str(
            sum(len(line) > LONG_LINE for text in files.values() for line in text.splitlines())
        ),
    }


def main() -> None:
    """Print the figures as a table."""
    columns = {commit: figures(files_of(commit)) for commit in sys.argv[1:]} or {
        "here": figures(files_here())
    }
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} | " + " | ".join(column[name] for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
