"""python -m deploy.bench TOPOLOGY ...: the checks of one topology. `TOPOLOGY --help` says what it
takes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def topologies() -> list[str]:
    """The folders beside this file that have a `run.py`: each has a `main(arguments)` that returns
    the exit status."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/run.py"))


def main(arguments: Sequence[str]) -> int:
    """Runs the topology that the first argument names."""
    known = topologies()
    if not arguments or arguments[0] not in known:
        print(f"{__doc__}\ntopologies: {', '.join(known)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"deploy.bench.{arguments[0]}.run").main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
