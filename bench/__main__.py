"""`python -m bench [ingest|names|peers|faults|soak|queries|shape|size|pressure|constants]
[options]`: runnable comparisons.

Results are printed, not committed as truth.

ingest    ingest and ledger as ratios against the same mongod (minutes)
names     very many names: an hour of 200,000 (model, tenant) pairs, a GPU-minute of 50,000
          requests, a price change back over 72,000 requests of 600 tenants: memory of processor and
          API, and a neighbour's costs (minutes)
peers     this processor next to Kafka Connect, Quix Streams and tutorial consumers: speed, kill -9,
          one invalid record
shape     what decoding and shaping an event costs, by how its record is written; against another
          source tree (a minute)
size      ingest and closing with 0, 500,000 and 2,000,000 events stored: CPU time per event, bytes
          on disk (five minutes)
pressure  one processor below and above what the machine can do: lag, delays and memory over time,
          with a plot (three minutes)
constants what `gpu-tokens size` computes with: bytes and CPU time of an event, a cell, a GPU's hour
(a minute)
faults    every fault that delivery is designed for: row, expected, seen (runs tests; half an hour,
          see --rows)
soak      minutes of live events with a processor killed again and again: memory, lag, identity
queries   /v1/costs over 30 days of 64 GPUs while ingest goes on (loads 2.8 million cells first:
          half an hour; see --days)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from bench import (
    constants_bench,
    ingest_bench,
    many_names_bench,
    pressure_bench,
    query_bench,
    shape_bench,
    size_bench,
    soak,
)
from bench.faults import run as faults_bench
from bench.peers import run as peers_bench

_OTHERS: dict[str, Callable[[list[str]], Any]] = {
    "constants": constants_bench.main,
    "queries": query_bench.main,
    "peers": peers_bench.main,
    "faults": faults_bench.main,
    "soak": soak.main,
    "names": many_names_bench.main,
    "shape": shape_bench.main,
    "size": size_bench.main,
    "pressure": pressure_bench.main,
}


def main(argv: list[str]) -> None:
    """Run the named bench; ingest without a name."""
    which = argv.pop(0) if argv and not argv[0].startswith("-") else "ingest"
    if which in _OTHERS:
        _OTHERS[which](argv)
        return
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processors", type=int, default=1)
    given = parser.parse_args(argv)
    if which != "ingest":
        parser.error(f"{which!r} is no bench: ingest, {', '.join(_OTHERS)}")
    ingest_bench.main(given.events, given.rounds, given.processors)


main(sys.argv[1:])
