"""What a fleet needs: from GPUs, requests a second and retention to partitions, processors, disk
and memory. Pure.

Bytes and CPU times are measured: sizing.json says by which bench command, when and where. What is a
rule and not a measurement stands in `Rules`, with its reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from math import ceil
from pathlib import Path

CONSTANTS_FILE = Path(__file__).parent / "sizing.json"
SECONDS_PER_HOUR, HOURS_PER_DAY, MINUTES_PER_DAY = 3600, 24, 1440
GB, GIB_MB = 1e9, 1024

# What the bench measures, and in what. Disk is data and indexes, after compression.
UNITS = {
    "processor_events_per_second": (
        "events/s stored and closed, one processor and mongod on the machine"
    ),
    "processor_us_per_event": "us CPU, ingest",
    "closer_us_per_cell": "us CPU of a computed cell without requests, its sums included",
    "closer_us_per_request": "us CPU that a request adds to its cells",
    "mongod_us_per_event": "us CPU, ledger and sums included",
    "processor_rss_mb": "MB, highest",
    "kafka_bytes_per_usage": "bytes before compression",
    "kafka_bytes_per_sample": "bytes before compression",
    "mongo_bytes_per_usage": "bytes",
    "mongo_bytes_per_sample": "bytes",
    "mongo_index_bytes_per_event": "bytes",
    "mongo_bytes_per_cell": "bytes",
    "mongo_bytes_per_gpu_hour": "bytes",
    "mongo_bytes_per_gpu_day": "bytes",
}


@dataclass(frozen=True)
class Constants:
    """What was measured, and how one measures it again."""

    measured_by: str
    measured_on: date
    machine: str
    values: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]


@cache
def constants() -> Constants:
    """Those of sizing.json."""
    raw = json.loads(CONSTANTS_FILE.read_text())
    return Constants(
        raw["measured_by"], date.fromisoformat(raw["measured_on"]), raw["machine"], raw["constants"]
    )


@dataclass(frozen=True)
class Rules:
    """What is decided, not measured."""

    burst: float = 5.0  # the highest minute over the average: traffic has days and nights
    # of a processor's and a database's measured rate: backups, elections and a backlog take their
    # part
    busy: float = 0.5
    free_disk: float = 0.25  # MongoDB needs room to rewrite, Kafka to hold more than its retention
    least_partitions: int = 12
    # so that processors can be doubled without another number of partitions
    partitions_per_processor: int = 2
    least_processors: int = 2  # one may restart
    computes_per_cell: float = 8.0  # every CLOSE_DEBOUNCE_SECONDS of its minute, and after it
    # whose indexes stay in memory: late events and audits read no further back
    hot_days: float = 1.0
    shard_cores: int = 16  # of one machine that is still easy to buy; more of them is shards
    shard_gb: float = 4000.0
    # in, replication included: half of what a gp3 volume of 125 MB/s takes
    broker_mb_per_second: float = 50.0
    broker_heap_mb: int = 1024
    least_cache_mb: int = 1536


@dataclass(frozen=True)
class Load:
    """What is to be carried."""

    gpus: int
    requests_per_second: float  # on average
    sample_interval_seconds: float = 5.0
    kafka_retention_hours: float = 168.0
    raw_retention_days: float = 30.0
    ledger_days: float = 365.0  # cells and sums are kept until somebody removes them
    copies: int = 3  # of both stores: 1 without replication


@dataclass(frozen=True)
class Size:
    """What carries it. Disk is of one copy, free room included; memory and cores of one machine or
    process of its kind."""

    events_per_second: float
    peak_events_per_second: float
    partitions: int
    processors: int
    processor_cores: float
    processor_mb: int
    kafka_brokers: int
    kafka_disk_gb: float  # of all brokers together, replicas included
    kafka_mb: int
    shards: int
    mongod_cores: float  # of one shard's primary
    mongod_mb: int
    mongo_raw_gb: float
    mongo_ledger_gb: float
    mongo_disk_gb: float  # of one member of a shard
    closer_cores: float  # of all processors together: what closing costs


def size(load: Load, rules: Rules | None = None, measured: Constants | None = None) -> Size:
    """The size for a load."""
    rules, measured = rules or Rules(), measured or constants()
    samples = load.gpus / load.sample_interval_seconds
    events = samples + load.requests_per_second
    # samples come at the same rate day and night
    peak = samples + load.requests_per_second * rules.burst
    computed_us = (
        load.gpus / 60 * measured["closer_us_per_cell"]
        + load.requests_per_second * measured["closer_us_per_request"]
    )
    closer_cores = rules.computes_per_cell * computed_us / 1e6
    ingest_cores = peak * measured["processor_us_per_event"] / 1e6
    by_rate = peak / (rules.busy * measured["processor_events_per_second"])
    by_cores = (ingest_cores + closer_cores) / rules.busy  # a processor computes on about one core
    processors = max(rules.least_processors, ceil(by_rate), ceil(by_cores))

    log_bytes = (
        samples * measured["kafka_bytes_per_sample"]
        + load.requests_per_second * measured["kafka_bytes_per_usage"]
    )
    log_disk = (
        log_bytes
        * load.kafka_retention_hours
        * SECONDS_PER_HOUR
        * load.copies
        / (1 - rules.free_disk)
    )
    peak_bytes = peak / events * log_bytes if events else 0.0
    brokers = max(load.copies, ceil(peak_bytes * load.copies / (rules.broker_mb_per_second * 1e6)))

    day = HOURS_PER_DAY * SECONDS_PER_HOUR
    raw_day = day * (
        samples * measured["mongo_bytes_per_sample"]
        + load.requests_per_second * measured["mongo_bytes_per_usage"]
    )
    ledger_day = load.gpus * (
        MINUTES_PER_DAY * measured["mongo_bytes_per_cell"]
        + HOURS_PER_DAY * measured["mongo_bytes_per_gpu_hour"]
        + measured["mongo_bytes_per_gpu_day"]
    )
    raw, ledger = raw_day * load.raw_retention_days / GB, ledger_day * load.ledger_days / GB
    disk = (raw + ledger) / (1 - rules.free_disk)
    cores = peak * measured["mongod_us_per_event"] / 1e6 / rules.busy
    shards = max(1, ceil(cores / rules.shard_cores), ceil(disk / rules.shard_gb))
    hot_mb = events * day * rules.hot_days * measured["mongo_index_bytes_per_event"] / 1e6 / shards
    cache_mb = max(rules.least_cache_mb, ceil(hot_mb))
    return Size(
        events_per_second=events,
        peak_events_per_second=peak,
        partitions=_partitions(
            max(rules.least_partitions, processors * rules.partitions_per_processor)
        ),
        processors=processors,
        processor_cores=1.5,  # one computes, half a one reads and sends
        # a limit is no plan: twice what was seen
        processor_mb=ceil(measured["processor_rss_mb"] * 2 / 256) * 256,
        kafka_brokers=brokers,
        kafka_disk_gb=log_disk / GB,
        kafka_mb=rules.broker_heap_mb * 4,  # the rest is page cache: consumers read from memory
        shards=shards,
        mongod_cores=max(1.0, cores / shards),
        mongod_mb=2 * cache_mb + GIB_MB,  # WiredTiger takes half by default
        mongo_raw_gb=raw,
        mongo_ledger_gb=ledger,
        mongo_disk_gb=disk / shards,
        closer_cores=closer_cores,
    )


def _partitions(least: int) -> int:
    """A number that many numbers of processors divide: 12, doubled as often as needed."""
    count = 12
    while count < least:
        count *= 2
    return count
