"""Who yields to whom: one processor on a real broker and mongod, at rates below and above what the
machine can do, over time.

    each stage      live events at a rate for some seconds; the last stage shows how what waited is
                    worked off
    each sample     records that wait in Kafka, the delay of events until they are stored (p99 of
                    the interval) and of cells until they are in the ledger, the age of the oldest
                    cell that is due, the resident memory
    at the end      a table, a plot over time (SVG), and exit code 1 where memory was not bounded

The sender shares the machine, and sends what it can. Delays count from an event's own time, so one
that it sends late is late.

    python -m bench pressure [--rates 2000,20000,2000] [--seconds 40] [--stored 0]
                             [--plot build/pressure.svg]
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from msgspec.structs import replace

from bench.ingest_bench import Child, bench_settings, one_running, stored_count, wait_until
from bench.processes import peak_rss_mb, rss_mb
from bench.size_bench import endless, fill, first_stored_at
from bench.soak import Sender
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.simulate.load import events_for_bench
from gpu_token_analytics.wire.identity import new_event_id
from gpu_token_analytics.wire.kind import Event

MEMORY_LIMIT_MB = 400
SAMPLE_SECONDS = 2.0


@dataclass(frozen=True)
class Sample:
    """At one moment. Delays in seconds; None where nothing was stored or closed in the interval."""

    seconds: float
    sent: int
    stored: int
    stored_p99: float | None
    ledger_p99: float | None
    oldest_due_seconds: float
    rss_mb: float

    @property
    def waiting(self) -> int:
        """Records that were sent and are not stored."""
        return self.sent - self.stored


def main(argv: list[str]) -> None:
    """Run, print, plot."""
    parser = argparse.ArgumentParser(prog="python -m bench pressure", description=__doc__)
    parser.add_argument(
        "--rates", default="2000,20000,2000", help="events a second, stage after stage"
    )
    parser.add_argument("--seconds", type=float, default=40, help="of each stage")
    parser.add_argument(
        "--stored", type=int, default=0, help="events that are in the database before it begins"
    )
    parser.add_argument("--plot", type=Path, default=Path("build/pressure.svg"))
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all of it is removed
    rates = [float(rate) for rate in given.rates.split(",")]
    samples, peak = run(rates, given.seconds, given.stored)
    given.plot.parent.mkdir(parents=True, exist_ok=True)
    given.plot.write_text(plot(samples, rates, given.seconds))
    print(f"peak resident memory {peak:.0f} MB (goal: under {MEMORY_LIMIT_MB}); {given.plot}")
    sys.exit(peak >= MEMORY_LIMIT_MB)


def run(rates: Sequence[float], seconds: float, stored: int = 0) -> tuple[list[Sample], float]:
    """(samples, the processor's highest resident MB). stored: events that are there before."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pressure-")))
        broker = stack.enter_context(KafkaBroker(CURRENT_VERSION, folder / "kafka"))
        mongod = stack.enter_context(EmbeddedMongod(folder / "mongod", cache_mb=512))
        settings = bench_settings(mongod.uri, "pressure").model_copy(
            update={"kafka_bootstrap": broker.bootstrap}
        )
        store = open_store(settings, "pressure")
        stack.callback(store.close)
        ensure_indexes(store, settings)
        fill(store, endless(), stored, first_stored_at(stored))
        create_topics(settings)
        child = stack.enter_context(one_running(settings, folder / "processor.log"))
        wait_until(
            lambda: "gpu_tokens_assigned_partitions" in _metrics(child),
            "the processor answers",
            lambda: 0.2,
        )
        watch = _Watch(store, child)
        heads = ("stored p99 s", "ledger p99 s", "oldest due s")
        delays = "".join(f"{head:>14}" for head in heads)
        print(f"{'s':>5}{'sent':>10}{'stored':>10}{'waiting':>9}{delays}{'RSS MB':>8}")
        fleet = events_for_bench(50_000)
        for rate in rates:
            sender = Sender(settings, rate, _now(fleet))
            try:
                watch.stage(sender, seconds)
            finally:
                sender.stop()
            watch.sent_before += len(sender.ids)
        return watch.samples, peak_rss_mb(child.process.pid)


def _now(events: Sequence[Event]) -> Iterator[Event]:
    """The same events again and again, as new ones of this moment: 64 simulated GPUs would not
    serve as many requests."""
    for event in cycle(events):
        yield replace(event, event_id=new_event_id(), ts=datetime.now(UTC))


def _metrics(child: Child) -> str:
    try:
        return child.metrics()
    except OSError:  # not listening yet
        return ""


class Quantiles:
    """Of one of the processor's histograms, of what it observed since the last look."""

    def __init__(self, name: str) -> None:
        self._bucket = re.compile(rf'^gpu_tokens_{name}_bucket{{le="(\S+)"}} (\S+)$', re.MULTILINE)
        self._counts: dict[float, float] = {}

    def p99(self, text: str) -> float | None:
        """The bound of its bucket; None: nothing was observed. text: of /metrics."""
        counts = {float(bound): float(count) for bound, count in self._bucket.findall(text)}
        before, self._counts = self._counts, counts
        new = {bound: count - before.get(bound, 0.0) for bound, count in counts.items()}
        whole = max(new.values(), default=0.0)
        return (
            min((bound for bound, count in new.items() if count >= 0.99 * whole), default=None)
            if whole
            else None
        )


class _Watch:
    def __init__(self, store: Store, child: Child) -> None:
        self.samples: list[Sample] = []
        self.sent_before = 0
        self._store, self._child, self._reads = store, child, Reads(store.database)
        self._begun = time.monotonic()
        self._stored_before = stored_count(store)
        self._to_stored, self._to_ledger = (
            Quantiles("event_to_stored_seconds"),
            Quantiles("event_to_ledger_seconds"),
        )

    def stage(self, sender: Sender, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(SAMPLE_SECONDS)
            self.samples.append(self._sample(sender))
            print(_line(self.samples[-1]), flush=True)

    def _sample(self, sender: Sender) -> Sample:
        text = self._child.metrics()
        stored = stored_count(self._store) - self._stored_before
        _, due_at = self._reads.due()
        oldest = 0.0 if due_at is None else max(0.0, (self._store.now() - due_at).total_seconds())
        return Sample(
            seconds=time.monotonic() - self._begun,
            sent=self.sent_before + len(sender.ids),
            stored=stored,
            stored_p99=self._to_stored.p99(text),
            ledger_p99=self._to_ledger.p99(text),
            oldest_due_seconds=oldest,
            rss_mb=rss_mb(self._child.process.pid),
        )


def _line(one: Sample) -> str:
    def shown(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:g}"

    return (
        f"{one.seconds:5.0f}{one.sent:10,}{one.stored:10,}{one.waiting:9,}{shown(one.stored_p99):>14}{shown(one.ledger_p99):>14}"
        f"{one.oldest_due_seconds:14.1f}{one.rss_mb:8.0f}"
    )


_WIDTH, _HEIGHT, _LEFT, _GAP = 760, 110, 70, 44


def plot(samples: Sequence[Sample], rates: Sequence[float], seconds: float) -> str:
    """Curves over time, one below the other, with the stages."""
    curves: tuple[tuple[str, Sequence[float | None]], ...] = (
        ("records that wait in Kafka", [float(one.waiting) for one in samples]),
        ("event to stored, p99 (s)", [one.stored_p99 for one in samples]),
        ("event to ledger, p99 (s)", [one.ledger_p99 for one in samples]),
        ("oldest cell that is due (s)", [one.oldest_due_seconds for one in samples]),
        ("resident memory (MB)", [one.rss_mb for one in samples]),
    )
    times = [one.seconds for one in samples]
    last = max(times[-1], seconds * len(rates))
    parts = [
        _panel(number, name, times, values, last) for number, (name, values) in enumerate(curves)
    ]
    for number, rate in enumerate(rates):
        x = _LEFT + number * seconds / last * _WIDTH
        parts.append(f'<text x="{x + 4:.0f}" y="14" fill="#555">{rate:,.0f} events/s</text>')
        parts.append(
            f'<line x1="{x:.0f}" x2="{x:.0f}" y1="4" y2="{len(curves) * (_HEIGHT + _GAP)}" '
            'stroke="#bbb"/>'
        )
    size = f'width="{_WIDTH + _LEFT + 20}" height="{len(curves) * (_HEIGHT + _GAP) + 20}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )


def _panel(
    number: int, name: str, times: Sequence[float], values: Sequence[float | None], last: float
) -> str:
    bottom = number * (_HEIGHT + _GAP) + _HEIGHT + 34
    known = [
        (at, value)
        for at, value in zip(times, values, strict=True)
        if value is not None and value != float("inf")
    ]
    most = max((value for _, value in known), default=0.0) or 1.0
    points = " ".join(
        f"{_LEFT + at / last * _WIDTH:.1f},{bottom - value / most * _HEIGHT:.1f}"
        for at, value in known
    )
    return (
        f'<text x="{_LEFT}" y="{bottom - _HEIGHT - 6}" font-weight="bold">{name}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom - _HEIGHT + 10}" text-anchor="end">{most:,.0f}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{bottom}" y2="{bottom}" stroke="#333"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
    )
