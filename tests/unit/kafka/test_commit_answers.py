"""While a commit waits for its answer librdkafka runs the business of the group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import TopicPartition

from gpu_token_analytics.kafka.consumer import EventSource
from gpu_token_analytics.kafka.records import Position
from gpu_token_analytics.settings import load

TOPIC = "tokens"
KEPT, LOST = 0, 1


class Record:
    """One record that is read."""

    def __init__(self, partition: int, offset: int) -> None:
        self._partition, self._offset = partition, offset

    def __len__(self) -> int:
        return 1

    def error(self) -> None: ...

    def value(self) -> bytes:
        return b"x"

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 0, -1


class Client:
    """A consumer of two partitions; `during` happens inside of each call of consume(), in turn."""

    def __init__(self) -> None:
        self.during: list[Callable[[], list[Record]]] = []
        self.commits: list[list[TopicPartition]] = []

    def consume(self, _count: int, _seconds: float) -> list[Record]:
        return self.during.pop(0)() if self.during else []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.commits.append(offsets)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        return [TopicPartition(TOPIC, one.partition, 0) for one in partitions]

    def assign(self, _partitions: list[TopicPartition]) -> None: ...

    def resume(self, _partitions: list[TopicPartition]) -> None: ...


def test_records_held_of_a_partition_that_is_lost_meanwhile_are_dropped() -> None:
    """Else they would come again, behind what is read from the committed offset."""
    source, client = EventSource(load()), Client()
    source._consumer = client  # type: ignore[assignment]  # stands for librdkafka's
    both = [TopicPartition(TOPIC, number) for number in (KEPT, LOST)]
    consumer: Any = client
    source._assigned(consumer, both)

    def lost() -> list[Record]:
        source._lost(consumer, both[LOST:])
        return [Record(KEPT, 6)]

    def answered() -> list[Record]:
        source._commit_answered(None, client.commits[-1])
        return []

    client.during = [lambda: [Record(KEPT, 5), Record(LOST, 5)], lost, answered]
    assert source.commit({KEPT: Position(5, 1), LOST: Position(5, 1)})
    source._assigned(consumer, both[LOST:])
    batch = source.poll(100, 0)
    assert list(zip(batch.partitions, batch.offsets, strict=True)) == [(KEPT, 5), (KEPT, 6)]
