"""Topics and the consumer group's first offsets.

`auto.offset.reset=error` means that nobody starts reading "somewhere" by accident; so a new group,
and a partition that was added, need a first offset: the oldest record there is. create_topics()
sets it, and only where none is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as RdError
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from gpu_token_analytics.errors import KafkaError, TopicMissing
from gpu_token_analytics.kafka.config import (
    REQUEST_TIMEOUT_SECONDS,
    base_config,
    build,
    mapped,
    offsets_client,
    partition_count,
    rd_error,
)
from gpu_token_analytics.settings import Settings

_HOUR_MS = 3_600_000
# far over MAX_RECORD_BYTES: a record too large becomes a visible dead letter
TOPIC_MAX_MESSAGE_BYTES = 2 * 1024 * 1024
DLQ_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
DLQ_RETENTION_HOURS = 30 * 24

_NOT_YET = (
    RdError.NOT_LEADER_FOR_PARTITION,
    RdError.LEADER_NOT_AVAILABLE,
    RdError.UNKNOWN_TOPIC_OR_PART,
    RdError.NOT_COORDINATOR,
    RdError.COORDINATOR_NOT_AVAILABLE,
    RdError.COORDINATOR_LOAD_IN_PROGRESS,
)
_PAUSE_SECONDS = 0.2
_CONFIG_TIMEOUT_SECONDS = 3.0  # the embedded broker never answers this one


@dataclass(frozen=True)
class TopicReport:
    """What create_topics found or did. `notes` are things to know that are not errors."""

    topic: str
    created: bool
    partitions: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartitionState:
    """One partition of the topic as the group sees it. `committed` is None where the group has no
    offset yet."""

    partition: int
    low: int
    high: int
    committed: int | None

    @property
    def lag(self) -> int:
        """Records not yet committed; the whole partition where nothing is committed."""
        return self.high - (self.low if self.committed is None else self.committed)


def create_topics(settings: Settings) -> tuple[list[TopicReport], int]:
    """Create topic and dead-letter topic where missing, and the ledger's where LEDGER_TOPIC is set;
    seed the group's offsets. Does nothing the second time.

    Returns the report of each topic and the number of partitions seeded. A topic that exists is
    checked, not changed. Raises TopicMissing when an existing topic has another number of
    partitions, KafkaUnreachable, KafkaError.
    """
    admin: AdminClient = build(AdminClient, base_config(settings, "topics"))
    existing = _existing(admin, settings)
    wanted = {
        settings.kafka_topic: _topic_config(settings),
        settings.dlq_topic: _dlq_config(settings),
    }
    if settings.ledger_topic:
        wanted[settings.ledger_topic] = _ledger_config()
    notes = _config_notes(
        admin, {topic: config for topic, config in wanted.items() if topic in existing}
    )
    reports = [
        _ensure(admin, settings, topic, existing, config, notes) for topic, config in wanted.items()
    ]
    return reports, seed_offsets(settings)


def seed_offsets(settings: Settings) -> int:
    """Give the group the oldest offset of each partition where it has none; returns how many.

    Raises KafkaError while processors run (Kafka sets offsets from outside only for a group without
    members).
    """
    consumer = offsets_client(settings, settings.kafka_group, "topics")
    try:
        missing = [state for state in states_of(consumer, settings) if state.committed is None]
        if missing:
            offsets = [
                TopicPartition(settings.kafka_topic, state.partition, state.low)
                for state in missing
            ]
            _patiently(lambda: consumer.commit(offsets=offsets, asynchronous=False))
        return len(missing)
    except KafkaException as error:
        if rd_error(error).code() in (
            RdError.UNKNOWN_MEMBER_ID,
            RdError.NON_EMPTY_GROUP,
            RdError.ILLEGAL_GENERATION,
        ):
            raise KafkaError(
                f"group {settings.kafka_group} has running processors, so Kafka lets nobody else "
                "set its offsets; "
                "stop them, run `gpu-tokens topics create` again, start them"
            ) from None
        raise mapped(
            error, f"set offsets of group {settings.kafka_group}", settings.kafka_bootstrap
        ) from None
    finally:
        consumer.close()


def describe_group(settings: Settings) -> list[PartitionState]:
    """Every partition of the topic with its oldest and next offset and the group's position."""
    consumer = offsets_client(settings, settings.kafka_group, "topics")
    try:
        return states_of(consumer, settings)
    except KafkaException as error:
        raise mapped(
            error, f"read offsets of group {settings.kafka_group}", settings.kafka_bootstrap
        ) from None
    finally:
        consumer.close()


def states_of(consumer: Consumer, settings: Settings) -> list[PartitionState]:
    """Every partition of the topic as the group of this consumer sees it. Raises KafkaException,
    KafkaError."""
    topic = settings.kafka_topic
    partitions = [
        TopicPartition(topic, number)
        for number in range(partition_count(consumer, topic, settings))
    ]
    states = []
    for committed in _patiently(
        lambda: consumer.committed(partitions, timeout=REQUEST_TIMEOUT_SECONDS)
    ):
        if committed.error is not None:
            raise mapped(
                committed.error,
                f"read the offset of {topic}/{committed.partition}",
                settings.kafka_bootstrap,
            )
        low, high = _watermarks(consumer, TopicPartition(topic, committed.partition))
        offset = committed.offset if committed.offset >= 0 else None
        states.append(PartitionState(committed.partition, low, high, offset))
    return states


def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Oldest and next offset."""
    ends: tuple[int, int] = _patiently(
        lambda: consumer.get_watermark_offsets(
            partition, timeout=REQUEST_TIMEOUT_SECONDS, cached=False
        )
    )
    return ends


def _patiently(ask: Callable[[], Any]) -> Any:
    """Ask again while a topic made a moment ago has no leader, or a broker just started no group
    coordinator."""
    until = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while True:
        try:
            return ask()
        except KafkaException as error:
            if rd_error(error).code() not in _NOT_YET or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SECONDS)


def _existing(admin: AdminClient, settings: Settings) -> dict[str, int]:
    try:
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    except KafkaException as error:
        raise mapped(error, "list topics", settings.kafka_bootstrap) from None
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _topic_config(settings: Settings) -> dict[str, str]:
    return {
        "retention.ms": str(settings.kafka_retention_hours * _HOUR_MS),
        "cleanup.policy": "delete",  # compaction would drop events of a host
        "max.message.bytes": str(TOPIC_MAX_MESSAGE_BYTES),
        # The broker's clock is what "ahead of time" is measured against; a producer's would excuse
        # itself.
        "message.timestamp.type": "LogAppendTime",
    }


def _dlq_config(settings: Settings) -> dict[str, str]:
    return {
        "retention.ms": str(max(DLQ_RETENTION_HOURS, settings.kafka_retention_hours) * _HOUR_MS),
        "cleanup.policy": "delete",
        "max.message.bytes": str(DLQ_MAX_MESSAGE_BYTES),
    }


def _ledger_config() -> dict[str, str]:
    return {
        "cleanup.policy": "compact",  # of each cell the last revision, for ever
        "max.message.bytes": str(TOPIC_MAX_MESSAGE_BYTES),
    }


def _ensure(
    admin: AdminClient,
    settings: Settings,
    topic: str,
    existing: dict[str, int],
    config: dict[str, str],
    notes: dict[str, tuple[str, ...]],
) -> TopicReport:
    wanted = settings.kafka_partitions
    if topic in existing:
        # Dead letters and cells are read all together: any number of partitions will do.
        if existing[topic] != wanted and topic == settings.kafka_topic:
            raise TopicMissing(
                f"topic {topic} exists with {existing[topic]} partitions, "
                f"KAFKA_PARTITIONS={wanted}; "
                "set KAFKA_PARTITIONS to what it has (adding partitions moves hosts between them), "
                "or use another KAFKA_TOPIC"
            )
        return TopicReport(topic, False, existing[topic], notes.get(topic, ()))
    new = NewTopic(
        topic,
        num_partitions=wanted,
        replication_factor=settings.kafka_replication_factor,
        config=config,
    )
    try:
        admin.create_topics([new], request_timeout=REQUEST_TIMEOUT_SECONDS)[topic].result()
    except KafkaException as error:
        if rd_error(error).code() != RdError.TOPIC_ALREADY_EXISTS:  # somebody else was faster: fine
            raise mapped(error, f"create topic {topic}", settings.kafka_bootstrap) from None
        return TopicReport(topic, False, wanted)
    return TopicReport(topic, True, wanted)


def _config_notes(
    admin: AdminClient, wanted: dict[str, dict[str, str]]
) -> dict[str, tuple[str, ...]]:
    """How the settings of existing topics differ from ours; the operator's choice stands, but it is
    said."""
    notes: dict[str, tuple[str, ...]] = {}
    if not wanted:
        return notes
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in wanted]
    answers = admin.describe_configs(resources, request_timeout=_CONFIG_TIMEOUT_SECONDS)
    for resource, answer in answers.items():
        topic = str(resource.name)
        try:
            config = answer.result()
        except KafkaException as error:
            notes[topic] = (
                f"its settings cannot be read from this broker: {rd_error(error).str()}",
            )
            continue
        notes[topic] = tuple(
            f"{name} is {config[name].value}, `topics create` would have set {value}"
            for name, value in wanted[topic].items()
            if name in config and config[name].value != value
        )
    return notes
