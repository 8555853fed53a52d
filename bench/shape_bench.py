"""CPU time of ingest's pure steps per event: decode, check, columns, documents. No services, so it
is a matter of seconds.

    own        records as encode() writes them
    spaced     the same with a space after each colon and comma, as other producers write JSON
    unknown    with a field that no contract knows, so that each is looked at by itself

Each tree runs in a process of its own, in turns; the medians of the rounds are compared:

    python -m bench shape [--rounds N] [--events N] [--against SRC]       SRC: the `src` folder of
    another version
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"
FORMS = ("own", "spaced", "unknown")
# Only what has been the same in all versions, so that it runs in an older tree.
_CHILD = """
import json, sys, time
from datetime import UTC, datetime
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.simulate.load import events_for_bench
from gpu_token_analytics.wire.kind import encode
count = int(sys.argv[1])
own = [encode(event) for event in events_for_bench(count)]
forms = {
    "own": own,
    "spaced": [json.dumps(json.loads(value)).encode() for value in own],
    "unknown": [value[:-1] + b',"x":1}' for value in own],
}
now = datetime.now(UTC)
for name, values in forms.items():
    best = float("inf")
    for _ in range(3):
        shaper = Shaper(LiveRate(30, 0.85), 30)
        at = [int(now.timestamp() * 1000)] * len(values)
        records = RecordBatch("tokens", values, [0] * len(values), list(range(len(values))), at)
        begun = time.thread_time()
        shaped = shaper.shape(records, now)
        best = min(best, time.thread_time() - begun)
        assert not shaped.letters, shaped.letters[:1]
    print(name, best / len(values) * 1e6)
"""


def main(argv: list[str]) -> dict[str, dict[str, float]]:
    """Run and print; microseconds of CPU time per event by tree and form of the record."""
    parser = argparse.ArgumentParser(prog="python -m bench shape", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=16_000)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args(argv)
    trees = {"here": HERE} | ({} if given.against is None else {"against": given.against.resolve()})
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(given.rounds):
        for name, source in trees.items():
            rounds[name].append(_measured(source, given.events))
    medians = {
        name: {form: statistics.median(one[form] for one in measured) for form in FORMS}
        for name, measured in rounds.items()
    }
    for name, by_form in medians.items():
        print(f"{name:<8} " + ", ".join(f"{form} {us:.2f} us" for form, us in by_form.items()))
    if "against" in medians:
        ratios = (
            f"{form} {medians['here'][form] / medians['against'][form]:.2f}" for form in FORMS
        )
        print("ratio    " + ", ".join(ratios))
    return medians


def _measured(source: Path, events: int) -> dict[str, float]:
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(events)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: float(us) for name, us in (line.split() for line in child.stdout.splitlines())}
