"""The services of one run, and what every contestant is given: records, a fresh topic, how far its
group has come."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Peers' topics and groups are not the product's, so they have no door of its own.
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pymongo import MongoClient

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.producer import PRODUCER_CONFIG
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.simulate.load import events_for_bench
from gpu_token_analytics.wire.kind import encode

PARTITIONS = 12
CACHE_MB = 1024
HEAP_MB = 512
_REQUEST_SECONDS = 10


@dataclass(frozen=True)
class Record:
    """One event as it is in Kafka."""

    key: bytes
    value: bytes
    event_id: str


def records(count: int) -> list[Record]:
    """Events of the simulated fleet of 64 GPUs, with several models and tenants."""
    return [
        Record(event.host.encode(), encode(event), event.event_id)
        for event in events_for_bench(count)
    ]


@dataclass
class World:
    """A real broker, a real mongod, and a folder for logs."""

    broker: KafkaBroker
    mongod: EmbeddedMongod
    admin: AdminClient
    client: MongoClient[Document]
    folder: Path
    number: int = 0

    @property
    def uri(self) -> str:
        """MongoDB's address, with the write concern that all contestants have."""
        return self.mongod.uri + "&w=majority&journal=true"

    def fresh_name(self) -> str:
        """For a topic and its database."""
        self.number += 1
        return f"peer-{self.number}"

    def make_topic(self, name: str) -> None:
        """As `gpu-tokens topics create` makes it."""
        topic = NewTopic(name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        self.admin.create_topics([topic])[name].result(30)

    def drop_topics(self, names: Sequence[str]) -> None:
        """Those that exist."""
        for future in self.admin.delete_topics(
            list(names), operation_timeout=_REQUEST_SECONDS
        ).values():
            with contextlib.suppress(Exception):
                future.result(15)

    def produce(self, topic: str, sent: Sequence[Record]) -> None:
        """Send and wait until Kafka has all of it."""
        producer = Producer(
            {"bootstrap.servers": self.broker.bootstrap, "log_level": 2, **PRODUCER_CONFIG}
        )
        for record in sent:
            while True:
                try:
                    producer.produce(topic, record.value, record.key)
                    break
                except BufferError:
                    producer.poll(0.05)
            producer.poll(0)
        if producer.flush(60):
            raise TimeoutError(f"Kafka did not take all records for {topic} within 60 s")

    def owns_all(self, group: str, topic: str) -> bool:
        """Whether the group is stable and has every partition."""
        try:
            answer = self.admin.describe_consumer_groups([group], request_timeout=_REQUEST_SECONDS)
            state = answer[group].result(_REQUEST_SECONDS)
        except Exception:  # noqa: BLE001  # not there yet
            return False
        partitions = [
            part for member in state.members for part in member.assignment.topic_partitions
        ]
        owned = sum(part.topic == topic for part in partitions)
        return bool(state.state == ConsumerGroupState.STABLE and owned == PARTITIONS)

    def lag(self, group: str, topic: str) -> int:
        """Records that the group has not committed."""
        answer = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        parts = answer[group].result(_REQUEST_SECONDS).topic_partitions
        committed = {part.partition: part.offset for part in parts if part.topic == topic}
        total = 0
        for number, (low, high) in self._ends(topic).items():
            total += high - max(committed.get(number, -1), low)
        return total

    def count(self, topic: str) -> int:
        """Records in a topic; 0 where there is no such topic."""
        if topic not in self.admin.list_topics(timeout=_REQUEST_SECONDS).topics:
            return 0
        return sum(high - low for low, high in self._ends(topic).values())

    def _ends(self, topic: str) -> dict[int, tuple[int, int]]:
        numbers = self.admin.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic].partitions
        reader = Consumer(
            {"bootstrap.servers": self.broker.bootstrap, "group.id": "peers-ends", "log_level": 2}
        )
        try:
            return {
                number: reader.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=_REQUEST_SECONDS
                )
                for number in numbers
            }
        finally:
            reader.close()


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Everything of it is gone afterwards; children end with this process, however it ends."""
    with (
        tempfile.TemporaryDirectory(prefix="peers-") as name,
        KafkaBroker(CURRENT_VERSION, Path(name) / "kafka", heap_mb=HEAP_MB) as broker,
        EmbeddedMongod(Path(name) / "mongod", cache_mb=CACHE_MB) as mongod,
        MongoClient[Document](mongod.uri + "&w=majority&journal=true") as client,
    ):
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
        yield World(broker, mongod, admin, client, Path(name))


def until(
    check: Callable[[], bool], most_seconds: float, what: str, pause_seconds: float = 0.1
) -> None:
    """Wait until `check()`. Raises TimeoutError."""
    last = time.perf_counter() + most_seconds
    while not check():
        if time.perf_counter() > last:
            raise TimeoutError(f"{what} did not happen within {most_seconds:g} s")
        time.sleep(pause_seconds)
