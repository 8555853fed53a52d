"""`python -m bench [ingest|queries ...]`: runnable comparisons. Results are printed, not committed as truth."""

from __future__ import annotations

import argparse
import importlib.util


def main() -> None:
    """Run the named benches, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("which", nargs="*", choices=["ingest", "queries", []], help="default: all")
    parser.add_argument("--events", type=int, default=100_000, help="events of the ingest bench")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the ingest bench")
    given = parser.parse_args()
    which = given.which or ["ingest", "queries"]
    if "ingest" in which:
        from bench import ingest_bench

        ingest_bench.main(given.events, given.rounds)
    if "queries" in which and importlib.util.find_spec("bench.query_bench"):
        from bench import query_bench

        query_bench.main()


main()
