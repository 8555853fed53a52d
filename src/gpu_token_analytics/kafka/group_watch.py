"""The topic and its group seen from outside, as they are when no processor runs: how much waits,
since when, what was lost.

It never joins the group and commits nothing, so it can look while processors work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, TopicPartition

from gpu_token_analytics.kafka.config import (
    REQUEST_TIMEOUT_SECONDS,
    base_config,
    build,
    mapped,
    offsets_client,
    partition_count,
)
from gpu_token_analytics.kafka.topics import PartitionState, states_of
from gpu_token_analytics.settings import Settings

_HEADS_SECONDS = 5.0
_HEAD_BYTES = 65_536


@dataclass(frozen=True)
class GroupState:
    """What a look at Kafka showed."""

    partitions: Sequence[PartitionState]
    # broker time of the oldest record that is not committed; None: nothing waits
    oldest_unread_at: datetime | None
    events_end: int  # records ever appended to the topic: the sum of its next offsets
    dead_letters_end: int  # the same of the dead-letter topic


class GroupWatch:
    """Looks at the topic of `settings` and its group. For one thread; `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offsets: Consumer = offsets_client(settings, settings.kafka_group, "exporter")
        self._heads: Consumer = build(Consumer, _heads_config(settings))

    def look(self) -> GroupState:
        """Ask Kafka. Raises KafkaUnreachable, TopicMissing, KafkaError."""
        settings = self._settings
        try:
            states = states_of(self._offsets, settings)
            return GroupState(
                partitions=states,
                oldest_unread_at=self._oldest(states),
                events_end=sum(state.high for state in states),
                dead_letters_end=self._end_of(settings.dlq_topic),
            )
        except KafkaException as error:
            raise mapped(
                error, f"look at group {settings.kafka_group}", settings.kafka_bootstrap
            ) from None

    def close(self) -> None:
        """Release the connections."""
        self._offsets.close()
        self._heads.close()

    def _end_of(self, topic: str) -> int:
        total = 0
        for number in range(partition_count(self._offsets, topic, self._settings)):
            marks: Any = self._offsets.get_watermark_offsets(
                TopicPartition(topic, number), timeout=REQUEST_TIMEOUT_SECONDS, cached=False
            )
            total += marks[1]
        return total

    def _oldest(self, states: Sequence[PartitionState]) -> datetime | None:
        """Reads the first unread record of each partition that lags. A partition that yields none
        in time is left out."""
        topic = self._settings.kafka_topic
        waiting = {
            state.partition: max(state.low, state.committed or 0)
            for state in states
            if state.lag > 0
        }
        if not waiting:
            return None
        looked_at = list(waiting)
        self._heads.assign(
            [TopicPartition(topic, partition, offset) for partition, offset in waiting.items()]
        )
        oldest_ms: int | None = None
        try:
            until = time.monotonic() + _HEADS_SECONDS
            while waiting and time.monotonic() < until:
                message = self._heads.poll(0.2)
                if message is None or message.error() is not None:
                    continue
                partition = message.partition()
                if partition is None or waiting.pop(partition, None) is None:
                    continue  # a second record of it: fetched ahead
                self._heads.pause([TopicPartition(topic, partition)])
                kind, at_ms = message.timestamp()
                if kind != TIMESTAMP_NOT_AVAILABLE:
                    oldest_ms = at_ms if oldest_ms is None else min(oldest_ms, at_ms)
        finally:
            # A pause outlives the assignment: without this the next look would wait for these in
            # vain.
            self._heads.resume([TopicPartition(topic, partition) for partition in looked_at])
            self._heads.unassign()
        return None if oldest_ms is None else datetime.fromtimestamp(oldest_ms / 1000, UTC)


def _heads_config(settings: Settings) -> dict[str, Any]:
    """A consumer that reads one record a partition and no more than it must."""
    return base_config(settings, "exporter") | {
        # never joined: partitions are assigned by hand, nothing is committed
        "group.id": settings.kafka_group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # a record that retention took between two questions is no error here
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.message.max.bytes": _HEAD_BYTES,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 1_024,
    }
