"""Ingest and ledger against the same mongod, in one run: ratios, not absolute speeds (machines
differ, and are noisy).

    baseline   the same documents, encoded beforehand, inserted by one client with the same indexes
               and write concern, as many at a time as the processor inserts
    ingest     a processor (its own process; or several that share the partitions) reading the same
               events from the in-memory broker; the ledger held back
    ledger     the same again with the ledger computed to the end: time until nothing is due
    cpu        the processors' CPU time per event, in all and by step (their own metric)
    memory     a processor's highest resident set at full speed (VmHWM)
    storage    bytes in MongoDB per event, indexes included

Run: `python -m bench ingest [--events N] [--rounds N] [--processors N]`.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.processes import cpu_seconds, peak_rss_mb
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.commands import MAX_COMMAND_BYTES, write_command
from gpu_token_analytics.mongo.encoded import Joined
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.simulate.load import events_for_bench
from gpu_token_analytics.wire.events import KINDS
from gpu_token_analytics.wire.kind import Event, encode

PARTITIONS = 12
NEVER_SECONDS = 3600
# debounce where the ledger is timed: what cells wait for late events is a setting, not work
SOON_SECONDS = 0.2
MOST_SECONDS = 180


@dataclass(frozen=True)
class Measured:
    """Processors over all events: events per second; CPU time per event of all of them; the highest
    resident set of one."""

    rate: float
    cpu_us: float
    rss_mb: float
    steps_us: dict[str, float]


@dataclass(frozen=True)
class Round:
    """Events per second of one round."""

    baseline: float
    ingest: float
    ledger: float
    cpu_us: float
    rss_mb: float
    steps_us: dict[str, float]


def main(events_count: int, rounds: int, processors: int) -> list[Round]:
    """Run and print; returns the rounds."""
    events = events_for_bench(events_count)
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    print(
        f"{len(events):,} events of 64 GPUs, {rounds} rounds, processors: {processors}, {machine}"
    )
    found: list[Round] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedMongod(Path(folder), cache_mb=1024) as mongod,
    ):
        for number in range(rounds):
            found.append(_round(mongod.uri, number, events, Path(folder), processors))
            one = found[-1]
            rates = (
                f"baseline {one.baseline:,.0f}/s, ingest {one.ingest:,.0f}/s = "
                f"{one.ingest / one.baseline:.2f}"
            )
            ledger = f"with ledger {one.ledger:,.0f}/s = {one.ledger / one.baseline:.2f}"
            print(
                f"round {number + 1}: {rates}, {ledger}, {one.cpu_us:.1f} us CPU/event, RSS "
                f"{one.rss_mb:.0f} MB"
            )
    _summary(found)
    return found


def _round(uri: str, number: int, events: Sequence[Event], folder: Path, processors: int) -> Round:
    def run(name: str, debounce_seconds: float, *, ledger: bool) -> Measured:
        return _processors(
            bench_settings(uri, f"{name}{number}", debounce_seconds),
            events,
            folder,
            processors,
            ledger=ledger,
        )

    baseline = _baseline(bench_settings(uri, f"base{number}"), events)
    raw = run("raw", NEVER_SECONDS, ledger=False)
    whole = run("ledger", SOON_SECONDS, ledger=True)
    return Round(
        baseline, raw.rate, whole.rate, raw.cpu_us, max(raw.rss_mb, whole.rss_mb), whole.steps_us
    )


def bench_settings(uri: str, database: str, debounce_seconds: float = 10) -> Settings:
    return load(
        mongodb_uri=uri,
        mongodb_database=database,
        close_debounce_seconds=debounce_seconds,
        silent_gpu_owned_minutes=0,
        log_level="WARNING",
    )


@contextmanager
def database_of(settings: Settings) -> Iterator[Store]:
    store = open_store(settings, "bench")
    try:
        ensure_indexes(store, settings)
        yield store
    finally:
        store.client.drop_database(settings.mongodb_database)
        store.close()


def insert_commands(
    values: Sequence[bytes], now: datetime, most_documents: int
) -> list[tuple[str, list[Joined]]]:
    """The insert commands that ingest sends for these records: (collection, its documents as
    bytes)."""
    size = len(values)
    records = RecordBatch(
        "tokens", list(values), [0] * size, list(range(size)), [int(now.timestamp() * 1000)] * size
    )
    shaped = Shaper(LiveRate(30, 0.85), 30).shape(records, now)
    return [
        (name, joined)
        for name, raws in ((kind.collection, raws) for kind, raws in shaped.raws.items())
        for _, joined in raws.documents.commands(
            range(len(raws.documents)), most_documents, MAX_COMMAND_BYTES
        )
    ]


def _baseline(settings: Settings, events: Sequence[Event]) -> float:
    """Rate at which mongod takes these documents when nothing else has to be done."""
    commands = insert_commands(
        [encode(event) for event in events], datetime.now(UTC), settings.batch_max_records
    )
    with database_of(settings) as store:
        begun = time.perf_counter()
        inserted: int = sum(
            write_command(store[name], "insert", joined)["n"] for name, joined in commands
        )
        seconds = time.perf_counter() - begun
        assert inserted == len(events), f"{inserted:,} of {len(events):,} documents were inserted"
        return inserted / seconds


def _processors(
    settings: Settings, events: Sequence[Event], folder: Path, count: int, *, ledger: bool
) -> Measured:
    """Processors that find all events waiting."""
    topics = {settings.kafka_topic: PARTITIONS, settings.dlq_topic: PARTITIONS}
    with database_of(settings) as store, EmbeddedBroker(topics) as broker:
        settings = settings.model_copy(update={"kafka_bootstrap": broker.bootstrap})
        create_topics(settings)
        with _running(settings, folder, count) as children:
            wait_until(lambda: share_partitions(children), "the processors share the partitions")
            with stopped(children), EventProducer(settings) as producer:
                for event in events:
                    producer.send(event)
                producer.flush(60)
            cpu_begun = _cpu_seconds(children)
            wait_until(
                lambda: stored_count(store) > 0, "the processors store something", lambda: 0.005
            )
            begun = time.perf_counter()
            progress = Progress(store, len(events))
            wait_until(
                progress.all_stored,
                "all events are stored (too many for the broker in memory?)",
                progress.pause,
            )
            cpu = _cpu_seconds(children) - cpu_begun
            if ledger:
                cells = LedgerStore(store).cells
                wait_until(lambda: not cells.count_due(), "nothing is due")
            seconds = time.perf_counter() - begun
            steps = steps_us(children, len(events))
            rss_mb = max(peak_rss_mb(child.process.pid) for child in children)
        if ledger:
            report = audit(LedgerStore(store), params_of(settings))
            assert report.holds, report.findings[:3]
        else:
            _print_storage(store)
        return Measured(len(events) / seconds, cpu / len(events) * 1e6, rss_mb, steps)


@dataclass(frozen=True)
class Child:
    process: subprocess.Popen[bytes]
    url: str

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def _running(settings: Settings, folder: Path, count: int) -> Iterator[Sequence[Child]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(one_running(settings, folder / f"processor-{number}.log"))
            for number in range(count)
        ]


@contextmanager
def one_running(settings: Settings, log: Path) -> Iterator[Child]:
    port = free_port()
    own = {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KAFKA_TOPIC": settings.kafka_topic,
        "KAFKA_GROUP": settings.kafka_group,
        "MONGODB_URI": settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": settings.mongodb_database,
        "CLOSE_DEBOUNCE_SECONDS": str(settings.close_debounce_seconds),
        "SILENT_GPU_OWNED_MINUTES": "0",
        "HTTP_PORT": str(port),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_token_analytics", "processor"],
            env={**os.environ, **own},
            stdout=out,
            stderr=out,
        )
    try:
        yield Child(process, f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(30) != 0:
            print(log.read_text(errors="replace")[-2000:])


def wait_until(
    until: Callable[[], bool],
    what: str,
    pause: Callable[[], float] = lambda: 0.02,
    most_seconds: float = MOST_SECONDS,
) -> None:
    """pause: seconds until it is asked again. Raises TimeoutError."""
    last = time.perf_counter() + most_seconds
    while not until():
        if time.perf_counter() > last:
            raise TimeoutError(f"waited {most_seconds:g} s in vain until {what}")
        time.sleep(pause())


class Progress:
    """How far the processors are. To be asked the more often the nearer the end is: each time costs
    them CPU time."""

    def __init__(self, store: Store, count: int) -> None:
        self._store, self._count, self._stored = store, count, 0
        self._begun = time.perf_counter()

    def all_stored(self) -> bool:
        self._stored = stored_count(self._store)
        return self._stored >= self._count

    def pause(self) -> float:
        """A quarter of the time that is left, at this rate."""
        left = (
            (time.perf_counter() - self._begun)
            * (self._count - self._stored)
            / max(self._stored, 1)
        )
        return min(max(left / 4, 0.005), 1)


def share_partitions(children: Sequence[Child]) -> bool:
    try:
        found = [
            re.search(r"^gpu_tokens_assigned_partitions (\S+)$", child.metrics(), re.MULTILINE)
            for child in children
        ]
    except OSError:  # not listening yet
        return False
    owned = [float(each.group(1)) if each else 0.0 for each in found]
    return min(owned) > 0 and sum(owned) == PARTITIONS


@contextmanager
def stopped(children: Sequence[Child]) -> Iterator[None]:
    """Meanwhile they read nothing, and stay in their group: it waits longer for a heartbeat than a
    few seconds."""
    for child in children:
        child.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            child.process.send_signal(signal.SIGCONT)


def stored_count(store: Store) -> int:
    return sum(
        store[name].estimated_document_count() for name in (kind.collection for kind in KINDS)
    )


def _cpu_seconds(children: Sequence[Child]) -> float:
    return sum(cpu_seconds(child.process.pid) for child in children)


def steps_us(children: Sequence[Child], events: int) -> dict[str, float]:
    """CPU microseconds per event of each step, as the processors count them."""
    found: dict[str, float] = {}
    for child in children:
        for name, seconds in re.findall(
            r'^gpu_tokens_step_cpu_seconds_total\{step="(\w+)"\} (\S+)$', child.metrics(), re.M
        ):
            found[name] = found.get(name, 0.0) + float(seconds) / events * 1e6
    return found


def _print_storage(store: Store) -> None:
    store.client.admin.command("fsync")  # sizes on disk are those of the last checkpoint
    for name in (kind.collection for kind in KINDS):
        stats: dict[str, Any] = store.database.command("collStats", name)
        count = stats["count"]
        if count:
            size, disk, index = (
                stats[key] / count for key in ("size", "storageSize", "totalIndexSize")
            )
            print(
                f"  {name}: {size:.0f} bytes BSON, {disk:.0f} on disk + {index:.0f} of indexes per "
                "event"
            )


def _summary(rounds: Sequence[Round]) -> None:
    def median(pick: Callable[[Round], float]) -> float:
        return statistics.median(pick(one) for one in rounds)

    print("median of the rounds:")
    print(
        f"  ingest / pre-encoded insert            {median(lambda r: r.ingest / r.baseline):.2f}   "
        "(wanted: 0.85 or more)"
    )
    print(
        f"  ingest + ledger / pre-encoded insert   {median(lambda r: r.ledger / r.baseline):.2f}   "
        "(wanted: 0.60 or more)"
    )
    print(
        f"  processor peak RSS                     {max(r.rss_mb for r in rounds):.0f} MB   "
        "(wanted: under 400)"
    )
    print(f"  processor CPU of ingest                {median(lambda r: r.cpu_us):.1f} us per event")
    print("  and by step, of ingest with ledger:")
    for name in rounds[-1].steps_us:
        print(
            f"    {name:<36} "
            f"{statistics.median(one.steps_us.get(name, 0.0) for one in rounds):.2f} us per event"
        )
