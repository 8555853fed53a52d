"""Who runs, and with which settings: each peer as its documentation recommends, made as fast as its
settings allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What is started."""

    LIMIT = "limit"
    PRODUCT = "product"
    CONNECT = "connect"
    QUIX = "quix"
    TUTORIAL = "tutorial"


@dataclass(frozen=True)
class Contestant:
    """`most_seconds` bounds one measurement of speed: its rate is that of what is stored by then.

    `share` is how much of the records it is given: a slow one would need all of the time.
    """

    key: str
    name: str
    says: str
    kind: Kind
    options: Mapping[str, str] = field(default_factory=dict)
    ledger: bool = False
    share: float = 1.0
    most_seconds: float = 60


_SINK = "com.mongodb.kafka.connect.sink"
# StringConverter leaves parsing to the sink, which is faster than JsonConverter and a second
# conversion; 5,000 records a poll make batches ten times as large as the default; unordered bulk
# writes as MongoDB recommends for throughput.
_TUNED = {
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "consumer.override.max.poll.records": "5000",
    "consumer.override.fetch.min.bytes": "1",
    "bulk.write.ordered": "false",
}
CONNECT_INSERT = _TUNED | {
    "writemodel.strategy": f"{_SINK}.writemodel.strategy.InsertOneDefaultStrategy",
    "document.id.strategy": f"{_SINK}.processor.id.strategy.BsonOidStrategy",
}
CONNECT_UPSERT = _TUNED | {
    "writemodel.strategy": f"{_SINK}.writemodel.strategy.ReplaceOneDefaultStrategy",
    "document.id.strategy": f"{_SINK}.processor.id.strategy.PartialValueStrategy",
    "document.id.strategy.partial.value.projection.list": "event_id",
    "document.id.strategy.partial.value.projection.type": "AllowList",
    "document.id.strategy.overwrite.existing": "true",
}

CONTESTANTS = (
    Contestant(
        "limit",
        "limit: inserts encoded beforehand",
        "the product's documents and indexes, one client, no Kafka",
        Kind.LIMIT,
    ),
    Contestant(
        "ingest",
        "this processor, ingest",
        "until all events are stored; CLOSE_DEBOUNCE_SECONDS=3600 holds the ledger back",
        Kind.PRODUCT,
    ),
    Contestant(
        "ledger",
        "this processor, with ledger",
        "until all are stored and no cell is due; CLOSE_DEBOUNCE_SECONDS=0.2",
        Kind.PRODUCT,
        ledger=True,
    ),
    Contestant(
        "connect-insert",
        "Kafka Connect, MongoDB sink, insert",
        "tuned: StringConverter, InsertOneDefault, unordered, max.poll.records=5000, tasks.max=1",
        Kind.CONNECT,
        CONNECT_INSERT,
    ),
    Contestant(
        "connect-upsert",
        "Kafka Connect, MongoDB sink, upsert by id",
        "the same with ReplaceOneDefault and _id = event_id (PartialValueStrategy)",
        Kind.CONNECT,
        CONNECT_UPSERT,
    ),
    Contestant(
        "quix",
        "Quix Streams, MongoDB sink",
        "ReplaceOne upsert by _id = event_id, commit_every=8000, commit_interval=1.0",
        Kind.QUIX,
    ),
    Contestant(
        "tutorial-500",
        "tutorial, batches of 500",
        "consume(500), json.loads, insert_many(ordered=False), commit",
        Kind.TUTORIAL,
        {"mode": "many"},
    ),
    Contestant(
        "tutorial-1",
        "tutorial, one by one",
        "poll, json.loads, insert_one, commit",
        Kind.TUTORIAL,
        {"mode": "one"},
        share=0.05,
        most_seconds=12,
    ),
)
