"""The constants of `gpu-tokens size`: bytes and CPU time of an event, a cell and a GPU's hour, on a
real Kafka and mongod.

    python -m bench constants [--events N] [--write]      --write: into
    src/gpu_token_analytics/tools/sizing.json, with the date

One processor finds all events waiting and closes them to the end: first samples of idle GPUs alone,
then a busy fleet. What the cells of the second cost more is their requests'. CPU times are those of
the processes (/proc), bytes those of the last checkpoint on disk. Records are counted as they are,
not as batches compress: those of a slow producer have one record.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.ingest_bench import (
    SOON_SECONDS,
    Progress,
    database_of,
    one_running,
    share_partitions,
    stopped,
    wait_until,
)
from bench.processes import cpu_seconds, peak_rss_mb
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import load
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, events_for_bench, generate
from gpu_token_analytics.tools.sizing import CONSTANTS_FILE, UNITS
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

IDLE_SECONDS = 1500
START = datetime(2026, 1, 1, tzinfo=UTC)
# of a record besides key and value: https://kafka.apache.org/documentation/#record
RECORD_BYTES = 12


def main(argv: list[str]) -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench constants", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument(
        "--write",
        action="store_true",
        help="Keep the result in the file that `gpu-tokens size` reads.",
    )
    given = parser.parse_args(argv)
    events = events_for_bench(given.events)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mongod = stack.enter_context(EmbeddedMongod(folder / "mongod", cache_mb=1024))
        kafka = stack.enter_context(KafkaBroker(CURRENT_VERSION, folder / "kafka"))
        values = measured(events, mongod, kafka, folder)
        log_bytes = sum(file.stat().st_size for file in (folder / "kafka").rglob("tokens-*/*.log"))
    print(
        f"{len(events):,} events; Kafka's segments: {log_bytes / len(events):.0f} bytes an event, "
        "compressed in large batches"
    )
    for name, value in values.items():
        print(f"  {name:<34} {value:>12,.1f} {UNITS[name]}")
    if given.write:
        found = {
            "measured_by": f"python -m bench constants --events {given.events} --write",
            "measured_on": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": (
                f"{os.cpu_count()} cores, {platform.machine()}, Kafka {CURRENT_VERSION}, MongoDB "
                "6.0.5, both on it"
            ),
            "constants": {name: round(value, 1) for name, value in values.items()},
        }
        CONSTANTS_FILE.write_text(json.dumps(found, indent=2) + "\n")
        print(f"wrote {CONSTANTS_FILE}")


def measured(
    events: Sequence[Event], mongod: EmbeddedMongod, kafka: KafkaBroker, folder: Path
) -> dict[str, float]:
    """Every constant by name; units are `sizing.UNITS`."""
    idle = list(
        generate(
            default_fleet(8, 8), START, IDLE_SECONDS, 1, load=Load(0.0), sample_interval_seconds=5.0
        )
    )
    idle_cell_us = 1e6 * (alone := _run("idle", idle, mongod, kafka, folder)).closing / alone.cells
    busy = _run("busy", events, mongod, kafka, folder)
    usages = sum(isinstance(event, TokenUsage) for event in events)
    return {
        "processor_events_per_second": len(events) / busy.seconds,
        "processor_us_per_event": 1e6 * (busy.processor - busy.closing) / len(events),
        "closer_us_per_cell": idle_cell_us,
        "closer_us_per_request": (1e6 * busy.closing - idle_cell_us * busy.cells) / usages,
        "mongod_us_per_event": 1e6 * busy.mongod / len(events),
        "processor_rss_mb": busy.rss_mb,
        **busy.stored,
    }


@dataclass(frozen=True)
class _Run:
    """CPU seconds of the processor, of its closing alone, and of mongod; cells computed; bytes
    stored."""

    seconds: float
    processor: float
    closing: float
    mongod: float
    cells: float
    rss_mb: float
    stored: dict[str, float]


def _run(
    name: str, events: Sequence[Event], mongod: EmbeddedMongod, kafka: KafkaBroker, folder: Path
) -> _Run:
    settings = load(
        mongodb_uri=mongod.uri,
        mongodb_database=name,
        kafka_bootstrap=kafka.bootstrap,
        kafka_topic=f"tokens-{name}",
        kafka_group=name,
        close_debounce_seconds=SOON_SECONDS,
        silent_gpu_owned_minutes=0,
        log_level="WARNING",
    )
    create_topics(settings)
    with database_of(settings) as store, one_running(settings, folder / f"{name}.log") as child:
        wait_until(lambda: share_partitions([child]), "the processor has its partitions")
        with stopped([child]), EventProducer(settings) as producer:
            for event in events:
                producer.send(event)
            producer.flush(60)
        processor_begun, mongod_begun, begun = (
            cpu_seconds(child.process.pid),
            cpu_seconds(mongod.pid or 0),
            time.perf_counter(),
        )
        wait_until(Progress(store, len(events)).all_stored, "all events are stored")
        cells = LedgerStore(store).cells
        wait_until(lambda: not cells.count_due(), "nothing is due")
        seconds = time.perf_counter() - begun
        wait_until(lambda: not _is_dirty(store), "the sums hold every cell")
        metrics = child.metrics()
        return _Run(
            seconds=seconds,
            processor=cpu_seconds(child.process.pid) - processor_begun,
            closing=sum(
                _metric(metrics, f'gpu_tokens_step_cpu_seconds_total{{step="{step}"}}')
                for step in ("close", "roll_up")
            ),
            mongod=cpu_seconds(mongod.pid or 0) - mongod_begun,
            cells=_metric(metrics, "gpu_tokens_cells_computed_total"),
            rss_mb=peak_rss_mb(child.process.pid),
            stored=_bytes(store, events),
        )


def _bytes(store: Store, events: Sequence[Event]) -> dict[str, float]:
    store.client.admin.command("fsync")  # sizes on disk are those of the last checkpoint
    names = {
        "usage": USAGE.collection,
        "sample": SAMPLE.collection,
        "cell": Collection.LEDGER_CELLS,
        "gpu_hour": Collection.ROLLUPS_HOURLY,
        "gpu_day": Collection.ROLLUPS_DAILY,
    }
    stats = {what: store.database.command("collStats", str(name)) for what, name in names.items()}
    found = {
        f"mongo_bytes_per_{what}": (one["storageSize"] + one["totalIndexSize"]) / one["count"]
        for what, one in stats.items()
        if one["count"]
    }
    indexes = sum(stats[what]["totalIndexSize"] for what in ("usage", "sample")) / len(events)
    records: dict[str, list[int]] = {}
    for event in events:
        what = "usage" if isinstance(event, TokenUsage) else "sample"
        records.setdefault(what, []).append(len(encode(event)) + len(event.host) + RECORD_BYTES)
    logged = {f"kafka_bytes_per_{what}": sum(sizes) / len(sizes) for what, sizes in records.items()}
    return {**logged, **found, "mongo_index_bytes_per_event": indexes}


def _is_dirty(store: Store) -> bool:
    return any(
        store[name].find_one({"rolled": False}) is not None
        for name in (Collection.LEDGER_CELLS, Collection.ROLLUPS_HOURLY)
    )


def _metric(text: str, name: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} ")
    )
