"""Ingest and closing with more and more stored: CPU microseconds per event of the processor and of
mongod, and bytes on disk.

    fill       events of a busy fleet, encoded and inserted as ingest does, until so many are stored
    ingest     a processor reads events of the hours that follow; the ledger is held back
    closing    the same again with the ledger computed to the end: the processor's CPU time for
               closing and sums, as it counts it, and mongod's less what it took for ingest, which
               checkpoints make a rough figure
    bytes      of the collection and its indexes on disk, of usage events, after a checkpoint

A checkpoint is forced before and after each measurement and belongs to it: pages that an index
dirties all over are written there. All sizes are measured in one mongod, one after another, and
shown against the first: other load on the machine shows in rates, hardly in CPU time.

    python -m bench size [--sizes 0,500000,2000000] [--events N] [--cache-mb N] [--ids time|random]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid5

from msgspec.structs import replace

from bench.ingest_bench import (
    NEVER_SECONDS,
    PARTITIONS,
    SOON_SECONDS,
    bench_settings,
    database_of,
    insert_commands,
    one_running,
    share_partitions,
    steps_us,
    stopped,
    stored_count,
    wait_until,
)
from bench.processes import cpu_seconds, peak_rss_mb
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import write_command
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.usage import USAGE

START = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE = 8000
_STORED_PER_SECOND = (
    # what is there has come in at the rate at which mongod's checkpoints, one a minute, meet a
    # measurement
    500
)
_NAMES = UUID("6c0b2f5e-5f1d-5b0a-9a52-1f6f6a3d1c11")


@dataclass(frozen=True)
class Cost:
    """CPU microseconds per event."""

    processor: float
    mongod: float

    @property
    def both(self) -> float:
        """Of both processes."""
        return self.processor + self.mongod

    def less(self, other: Cost) -> Cost:
        """What it is more than another."""
        return Cost(self.processor - other.processor, self.mongod - other.mongod)


@dataclass(frozen=True)
class Measured:
    """With `stored` events in the database."""

    stored: int
    ingest: Cost
    closing: Cost
    rss_mb: float
    data_bytes: float
    index_bytes: float


def main(argv: list[str]) -> list[Measured]:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench size", description=__doc__)
    parser.add_argument(
        "--sizes", default="0,500000,2000000", help="events stored before each measurement"
    )
    parser.add_argument("--events", type=int, default=40_000, help="of a measurement")
    parser.add_argument("--cache-mb", type=int, default=512, help="of mongod")
    parser.add_argument(
        "--ids",
        choices=("time", "random"),
        default="time",
        help="event ids begin with their time, or do not",
    )
    given = parser.parse_args(argv)
    events = endless(random_ids=given.ids == "random")
    results: list[Measured] = []
    sizes = list(map(int, given.sizes.split(",")))
    begun = first_stored_at(max(sizes))
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedMongod(Path(folder), cache_mb=given.cache_mb) as mongod,
        database_of(bench_settings(mongod.uri, "size", NEVER_SECONDS)) as store,
    ):
        # imports, connections, indexes
        _measure(store, mongod, islice(events, 5_000), Path(folder), SOON_SECONDS)
        for size in sizes:
            fill(store, events, size, begun)
            results.append(_all(store, mongod, events, Path(folder), given.events))
            print(_line(results[-1], results[0]), flush=True)
    return results


def endless(*, random_ids: bool = False) -> Iterator[Event]:
    """Events of a year of a busy fleet of 64 GPUs."""
    load = Load(requests_per_second=160.0, diurnal_amplitude=0.0)
    for event in generate(
        default_fleet(8, 8), START, timedelta(days=365).total_seconds(), 1, load=load
    ):
        yield replace(event, event_id=str(uuid5(_NAMES, event.event_id))) if random_ids else event


def first_stored_at(size: int) -> datetime:
    """When the first of so many events came, if the last one comes now."""
    return datetime.now(UTC) - timedelta(seconds=size / _STORED_PER_SECOND)


def fill(store: Store, events: Iterator[Event], size: int, begun_at: datetime) -> None:
    """Insert events as ingest does, until so many are stored."""
    begun, before = time.perf_counter(), stored_count(store)
    while (lacking := size - stored_count(store)) > 0:
        stored_at = begun_at + timedelta(seconds=(size - lacking) / _STORED_PER_SECOND)
        values = [encode(event) for event in islice(events, min(_AT_ONCE, lacking))]
        for name, joined in insert_commands(values, stored_at, _AT_ONCE):
            write_command(store[name], "insert", joined)
    if stored_count(store) > before:
        print(
            (
                f"{stored_count(store) - before:,} events inserted in "
                f"{time.perf_counter() - begun:.0f} s"
            ),
            flush=True,
        )


def _all(
    store: Store, mongod: EmbeddedMongod, events: Iterator[Event], folder: Path, count: int
) -> Measured:
    stored = stored_count(store)
    ingest, _, ingest_rss = _measure(store, mongod, islice(events, count), folder, NEVER_SECONDS)
    whole, closing_us, whole_rss = _measure(
        store, mongod, islice(events, count), folder, SOON_SECONDS
    )
    closing = Cost(closing_us, whole.mongod - ingest.mongod)
    stats = store.database.command("collStats", USAGE.collection)
    size, index = stats["storageSize"] / stats["count"], stats["totalIndexSize"] / stats["count"]
    return Measured(stored, ingest, closing, max(ingest_rss, whole_rss), size, index)


def _measure(
    store: Store,
    mongod: EmbeddedMongod,
    events: Iterator[Event],
    folder: Path,
    debounce_seconds: float,
) -> tuple[Cost, float, float]:
    """(what an event costs, of it the processor's closing in microseconds, its peak resident MB).
    With a short debounce cells are closed, too."""
    cells = LedgerStore(store).cells
    # Cells that an earlier measurement held back belong to none.
    store["ledger_cells"].delete_many({"due_at": {"$exists": True}})
    settings = bench_settings(mongod.uri, store.database.name, debounce_seconds)
    topics = {settings.kafka_topic: PARTITIONS, settings.dlq_topic: PARTITIONS}
    waiting = list(events)
    with EmbeddedBroker(topics) as broker:
        settings = settings.model_copy(update={"kafka_bootstrap": broker.bootstrap})
        create_topics(settings)
        with one_running(settings, folder / "processor.log") as child:
            wait_until(lambda: share_partitions([child]), "the processor has its partitions")
            with stopped([child]):
                _produce(settings, waiting)
            aim = stored_count(store) + len(waiting)
            begun = _cpu(store, child.process.pid, mongod)
            wait_until(lambda: stored_count(store) >= aim, "all events are stored", lambda: 0.2)
            if debounce_seconds < 1:
                wait_until(lambda: not cells.count_due(), "nothing is due", lambda: 0.2)
            ended = _cpu(store, child.process.pid, mongod)
            used = ended.less(begun)
            steps = steps_us([child], len(waiting))
            rss_mb = peak_rss_mb(child.process.pid)
    cost = Cost(used.processor / len(waiting), used.mongod / len(waiting))
    return cost, steps.get("close", 0.0) + steps.get("roll_up", 0.0), rss_mb


def _produce(settings: Settings, events: list[Event]) -> None:
    with EventProducer(settings) as producer:
        for event in events:
            producer.send(event)
        producer.flush(60)


def _cpu(store: Store, processor: int, mongod: EmbeddedMongod) -> Cost:
    """Microseconds, after a checkpoint."""
    store.client.admin.command("fsync")
    assert mongod.pid is not None
    return Cost(cpu_seconds(processor) * 1e6, cpu_seconds(mongod.pid) * 1e6)


def _line(one: Measured, first: Measured) -> str:
    ingest, closing = one.ingest, one.closing
    costs = (
        f"ingest {ingest.processor:.1f} + {ingest.mongod:.1f} us = "
        f"{first.ingest.both / ingest.both:.2f} of empty, "
        f"closing {closing.processor:.1f} us = {first.closing.processor / closing.processor:.2f} "
        f"of empty + {closing.mongod:.1f}"
    )
    disk = (
        f"{one.data_bytes:.0f} + {one.index_bytes:.0f} = {one.data_bytes + one.index_bytes:.0f} "
        "bytes a usage event"
    )
    return (
        f"{one.stored:>10,} stored: {costs} (processor + mongod), RSS {one.rss_mb:.0f} MB, {disk}"
    )
