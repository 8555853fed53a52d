"""What only a real broker does: creating topics, its own clock, transactions, retention, restarts.
Kafka 3.7 and current."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The product never writes transactions and has no door for deleting records; other people's
# producers and operators do.
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.integration.delivery_support import (
    Processor,
    command,
    delivery_settings,
    eventually,
    lag,
    send,
    stored,
    usages,
)

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, REFERENCE_VERSION, KafkaBroker
from gpu_token_analytics.errors import KafkaError, TopicMissing
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics, describe_group, seed_offsets
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.kind import encode

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.parametrize(
        "kafka", [REFERENCE_VERSION, CURRENT_VERSION], indirect=True, scope="session"
    ),
]


@pytest.fixture
def settings(kafka: KafkaBroker, mongo_uri: str, mongo_database: str) -> Settings:
    topic = f"tokens-{uuid.uuid4().hex[:8]}"
    return delivery_settings(
        kafka.bootstrap,
        mongo_uri,
        mongo_database,
        kafka_topic=topic,
        kafka_group=topic,
        kafka_extra_config={"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"},
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings)
    yield found
    found.close()


def test_topics_are_created_once_and_checked(settings: Settings) -> None:
    first = command(settings, "topics", "create")
    assert first.returncode == 0, first.stderr
    assert f"{settings.kafka_topic}: created, 12 partitions" in first.stdout
    assert f"{settings.dlq_topic}: created" in first.stdout
    assert "first offset set for 12 partitions" in first.stdout
    second = command(settings, "topics", "create")
    assert f"{settings.kafka_topic}: exists, 12 partitions" in second.stdout
    assert "first offset set for 0 partitions" in second.stdout
    assert "note:" not in second.stdout, "it finds the settings it made"
    shown = command(settings, "topics", "show", "--json")
    assert [json.loads(line)["committed"] for line in shown.stdout.splitlines()] == [0] * 12
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    with pytest.raises(TopicMissing, match="12 partitions, KAFKA_PARTITIONS=6"):
        create_topics(Settings(**{**given, "kafka_partitions": 6}))
    (report, _), _ = create_topics(
        Settings(**{**given, "kafka_retention_hours": 24, "raw_retention_days": 30})
    )
    assert report.notes == ("retention.ms is 604800000, `topics create` would have set 86400000",)


def test_events_dead_letters_and_their_repair(
    settings: Settings, store: Store, start: Callable[[Settings], Processor], tmp_path: Path
) -> None:
    create_topics(settings)
    processor = start(settings).wait_ready()
    sent = send(settings, usages(500, hosts=60))
    broken, future = usages(2)
    bad = encode(broken).replace(b'"prompt_tokens":100', b'"prompt_tokens":"100"')
    ahead = json.loads(encode(future)) | {"ts": "2099-01-01T00:00:00Z"}
    with EventProducer(settings) as producer:
        producer.send_raw(bad, broken.host)
        producer.send_raw(json.dumps(ahead).encode(), future.host)
        producer.send_raw(b"x" * 1_500_000, "vm1")
    eventually(lambda: lag(settings) == 0)
    assert stored(store).keys() == sent.keys()
    letters = {letter.reason: letter for letter in read_dead_letters(settings)}
    assert set(letters) == {"wrong_type", "future_ts", "too_large"}
    assert letters["too_large"].cut_from_bytes == 1_500_000

    listed = command(settings, "dead-letters", "list")
    assert "3 dead letters" in listed.stdout
    at = letters["wrong_type"].at
    shown = command(settings, "dead-letters", "show", at)
    assert shown.stdout.encode() == bad
    assert "prompt_tokens" in shown.stderr
    refused = command(settings, "dead-letters", "resend", at)
    assert refused.returncode == 1, "it would be refused again"
    everything = command(settings, "dead-letters", "resend")
    assert "sent 0; not sent, still refused" in everything.stdout
    repaired = tmp_path / "repaired.json"
    repaired.write_bytes(encode(broken) + b"\n")
    for _ in range(2):  # the second time is a duplicate
        resent = command(settings, "dead-letters", "resend", at, "--value-file", str(repaired))
        assert "sent 1" in resent.stdout, resent.stderr
    eventually(lambda: lag(settings) == 0)
    assert stored(store).keys() == sent.keys() | {broken.event_id}
    while_running = command(settings, "topics", "create")
    assert while_running.returncode == 0, (
        "nothing is to be seeded, so a running group is no obstacle"
    )
    assert processor.stop() == 0


def test_the_clock_that_counts_is_the_brokers(
    settings: Settings, start: Callable[[Settings], Processor]
) -> None:
    """A producer whose clock is years ahead stamps record and event alike; it must not excuse
    itself."""
    create_topics(settings)
    start(settings).wait_ready()
    ahead = json.loads(encode(usages(1)[0])) | {"ts": "2031-01-01T00:00:00Z"}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    producer.produce(
        settings.kafka_topic, json.dumps(ahead).encode(), b"vm1", timestamp=1_925_000_000_000
    )
    assert producer.flush(20) == 0
    eventually(lambda: lag(settings) == 0)
    assert [letter.reason for letter in read_dead_letters(settings)] == ["future_ts"]


def test_an_aborted_transaction_is_never_seen(
    settings: Settings, store: Store, start: Callable[[Settings], Processor]
) -> None:
    create_topics(settings)
    processor = start(settings).wait_ready()
    aborted, committed = usages(20)[:10], usages(20)[10:]
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": settings.kafka_topic}
    )
    producer.init_transactions(30)
    for events, end in (
        (aborted, producer.abort_transaction),
        (committed, producer.commit_transaction),
    ):
        producer.begin_transaction()
        for event in events:
            producer.produce(settings.kafka_topic, encode(event), event.host.encode())
        producer.flush(20)
        end(30)
    wanted = {event.event_id for event in committed}
    eventually(lambda: stored(store).keys() >= wanted)
    assert stored(store).keys() == wanted
    assert processor.get("/health")[0] == 200
    # The transaction's own marks stay behind the last record for ever: that is no stuck partition
    # and no lag.
    eventually(lambda: processor.metric("gpu_tokens_lag_records") == 0, what="counting no lag")


def test_records_deleted_before_they_were_read_stop_the_process(
    settings: Settings, start: Callable[[Settings], Processor]
) -> None:
    create_topics(settings)
    send(settings, usages(300, hosts=60))
    full = max(describe_group(settings), key=lambda state: state.high)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    for future in admin.delete_records(
        [TopicPartition(settings.kafka_topic, full.partition, full.high - 1)]
    ).values():
        future.result()
    processor = start(settings)
    assert processor.wait(60) == 1
    assert (
        f"{settings.kafka_topic}/{full.partition}: the next record to read is no longer in Kafka"
        in processor.text()
    )


def test_offsets_of_a_running_group_cannot_be_seeded_and_it_says_so(
    settings: Settings, start: Callable[[Settings], Processor]
) -> None:
    create_topics(settings)
    start(settings).wait_ready()
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    # the same group, nothing seeded
    other_topic = Settings(**{**given, "kafka_topic": f"{settings.kafka_topic}-2"})
    with pytest.raises(KafkaError, match="has running processors"):
        create_topics(other_topic)


def test_a_broker_restart_is_survived(
    kafka: KafkaBroker, settings: Settings, store: Store, start: Callable[[Settings], Processor]
) -> None:
    create_topics(settings)
    processor = start(settings).wait_ready()
    sent = send(settings, usages(1000, hosts=60))
    eventually(lambda: processor.metric("gpu_tokens_consumed_total") > 0)
    kafka.kill()
    kafka.start()
    sent |= send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0, 90, "reading on")
    assert stored(store).keys() == sent.keys()
    assert processor.stop() == 0
    assert seed_offsets(settings) == 0, "the group kept its offsets"
