"""The Kafka clients against a broker that answers with errors, and a partition that stalls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.integration.delivery_support import committed, delivery_settings, eventually, usages

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.errors import (
    ConsumerStuck,
    DeliveryFailed,
    KafkaError,
    KafkaUnreachable,
    SettingsError,
)
from gpu_token_analytics.kafka.consumer import MAX_BATCH_BYTES, EventSource
from gpu_token_analytics.kafka.dead_letters import DeadLetters, read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer, Headers
from gpu_token_analytics.kafka.records import DeadLetter, Position, RecordBatch
from gpu_token_analytics.kafka.topics import describe_group, seed_offsets
from gpu_token_analytics.settings import Settings, load

PRODUCE, OFFSET_COMMIT = 0, 8  # Kafka's protocol numbers
NOBODY = {"mongodb_uri": "mongodb://127.0.0.1:9/"}


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.at

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.is_set()


@pytest.fixture
def settings(mock_broker: EmbeddedBroker) -> Settings:
    found = delivery_settings(mock_broker.bootstrap, NOBODY["mongodb_uri"], "unused")
    seed_offsets(found)
    return found


@pytest.fixture
def source(settings: Settings) -> Iterator[EventSource]:
    found = EventSource(settings)
    found.start()
    eventually(lambda: found.poll(1, 0.1) is not None and found.owned, what="an assignment")
    yield found
    found.close()


def send(settings: Settings, count: int) -> None:
    with EventProducer(settings) as producer:
        for event in usages(count):
            producer.send(event)


def read(source: EventSource, count: int) -> RecordBatch:
    """One batch with all of `count` records."""
    batches: list[RecordBatch] = []

    def all_there() -> bool:
        batches.append(source.poll(count, 0.2))
        return sum(map(len, batches)) >= count

    eventually(all_there)
    whole = RecordBatch(batches[0].topic)
    for batch in batches:
        whole.values += batch.values
        whole.positions |= batch.positions
    return whole


@pytest.mark.parametrize(
    "code",
    [7, 14, 15, 16],
    ids=["timed out", "load in progress", "coordinator away", "not coordinator"],
)
def test_a_commit_is_tried_again(
    mock_broker: EmbeddedBroker, settings: Settings, source: EventSource, code: int
) -> None:
    send(settings, 50)
    batch = read(source, 50)
    mock_broker.inject_errors(OFFSET_COMMIT, [code])
    assert source.commit(batch.positions)
    assert committed(settings) == 50


@pytest.mark.parametrize(
    "code",
    [22, 25, 27, 113],
    ids=["illegal generation", "unknown member", "rebalance", "stale epoch"],
)
def test_a_commit_that_came_too_late_is_no_error(
    mock_broker: EmbeddedBroker, settings: Settings, source: EventSource, code: int
) -> None:
    send(settings, 50)
    batch = read(source, 50)
    mock_broker.inject_errors(OFFSET_COMMIT, [code] * 3)
    assert not source.commit(batch.positions)
    assert committed(settings) == 0, "nothing was committed, so the records are read again"


def test_a_commit_that_is_not_allowed_is_an_error(
    mock_broker: EmbeddedBroker, settings: Settings, source: EventSource
) -> None:
    send(settings, 50)
    batch = read(source, 50)
    mock_broker.inject_errors(OFFSET_COMMIT, [30] * 4)  # GROUP_AUTHORIZATION_FAILED
    with pytest.raises(KafkaError, match="commit offsets"):
        source.commit(batch.positions)


def test_only_what_is_owned_in_this_assignment_is_committed(
    settings: Settings, source: EventSource
) -> None:
    send(settings, 50)
    batch = read(source, 50)
    stale = {
        number: Position(position.offset, position.epoch - 1)
        for number, position in batch.positions.items()
    }
    assert source.commit(stale)
    assert source.commit({99: Position(5, 1)})
    assert committed(settings) == 0, (
        "offsets of another assignment, or of partitions of others, are left out"
    )
    assert source.commit(batch.positions)
    assert source.commit(
        {number: Position(0, position.epoch) for number, position in batch.positions.items()}
    )
    assert committed(settings) == 50, "an offset never goes back"


def test_a_partition_that_stalls_is_an_error_and_one_that_is_idle_is_not(
    settings: Settings,
) -> None:
    clock = ManualClock()
    source = EventSource(settings, clock)
    source.start()
    eventually(lambda: len(source.poll(100, 0.1)) == 0 and len(source.owned) == 12)
    clock.at += 3 * settings.stuck_after_seconds
    source.poll(100, 0.0)  # silent for long, but there is nothing to read
    # as librdkafka has stalled: assigned, and nothing comes
    source._consumer.pause(source._consumer.assignment())
    send(settings, 20)
    clock.at += settings.stuck_after_seconds / 2
    source.poll(100, 0.0)
    clock.at += settings.stuck_after_seconds
    # silent for long, and there is something to read: it may have come this moment
    source.poll(100, 0.0)
    clock.at += settings.stuck_after_seconds * 1.1
    with pytest.raises(
        ConsumerStuck, match=r"tokens/\d+ has \d+ records to read and gave none for 60 s"
    ):
        source.poll(100, 0.0)
    source.close()


def test_waiting_for_the_store_loses_no_record(settings: Settings, source: EventSource) -> None:
    send(settings, 100)
    for _ in range(20):
        source.keep_alive()  # paused: what slips through is held
    source.resume()
    assert len(read(source, 100)) == 100


def test_a_batch_is_bounded_by_its_bytes(settings: Settings, source: EventSource) -> None:
    with EventProducer(settings) as producer:
        for number in range(40):
            producer.send_raw(b"%d" % number + b"x" * 1_000_000, f"vm{number}")
    sizes: list[int] = []

    def all_there() -> bool:
        batch = source.poll(10_000, 1.0)
        sizes.append(sum(len(value or b"") for value in batch.values))
        return sum(sizes) >= 40_000_000

    eventually(all_there)
    assert max(sizes) < 3 * MAX_BATCH_BYTES, (
        "it ends with the slice that fills it, at most what was fetched ahead"
    )


def test_a_record_kafka_refuses_fails_the_flush_once(
    mock_broker: EmbeddedBroker, settings: Settings
) -> None:
    producer = EventProducer(settings)
    mock_broker.inject_errors(PRODUCE, [87])  # INVALID_RECORD: repeating it is no use
    producer.send_raw(b"refused", "vm1")
    with pytest.raises(DeliveryFailed, match="did not take every record"):
        producer.flush(10)
    producer.send_raw(b"taken", "vm1")
    producer.flush(10)
    assert (producer.sent, producer.delivered, producer.failed) == (2, 1, 1)
    producer.close()


def test_a_full_queue_makes_the_sender_wait_and_loses_nothing(settings: Settings) -> None:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    small = Settings(**{**given, "kafka_extra_config": {"queue.buffering.max.messages": "100"}})
    with EventProducer(small) as producer:
        # The producer's own limits win over nothing here: 5,000 records through a queue of 100,000
        # or 100 alike.
        for number in range(5000):
            producer.send_raw(b"%d" % number, f"vm{number}")
        producer.flush(30)
        assert producer.delivered == 5000
    assert sum(state.high for state in describe_group(settings)) == 5000


def test_records_that_are_not_acknowledged_in_time_say_so() -> None:
    producer = EventProducer(load(kafka_bootstrap="127.0.0.1:9"))
    producer.send_raw(b"x", "vm1")
    with pytest.raises(
        DeliveryFailed, match=r"1 records for tokens were not acknowledged within 0\.5 s"
    ):
        producer.flush(0.5)
    with pytest.raises(DeliveryFailed):
        producer.close(0.1)


def test_no_broker_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gpu_token_analytics.kafka.config.REQUEST_TIMEOUT_SECONDS", 1.0)
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(
        KafkaUnreachable, match=r"127\.0\.0\.1:9 does not answer.*check KAFKA_BOOTSTRAP"
    ):
        EventProducer(load(kafka_bootstrap="127.0.0.1:9")).check()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"enable.auto.commit": "true"}, "exactly-once storage depends on"),
        ({"no.such.property": "1"}, "No such configuration property"),
    ],
)
def test_properties_that_cannot_be_used_are_refused(extra: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EventSource(load(kafka_extra_config=extra))


def test_dead_letters_keep_everything_and_are_read_once(settings: Settings) -> None:
    letters = [
        DeadLetter("tokens", 1, 5, "not_json", "bad \ud800 text", "ts", b"vm1", b"\x00\xff"),
        DeadLetter("tokens", 1, 6, "empty", "no value", None, None, None),
        DeadLetter("tokens", 2, 5, "too_large", "x" * 5000, None, b"vm2", b"y" * 2_000_000),
    ]
    writer = DeadLetters(settings)
    writer.deliver(letters, 10)
    writer.deliver(letters, 10)  # as after a crash between delivery and commit
    writer.close()
    found = {letter.at: letter for letter in read_dead_letters(settings)}
    assert len(list(read_dead_letters(settings))) == 3
    assert found["1/5"].value == b"\x00\xff"
    assert (found["1/5"].field, found["1/5"].key) == ("ts", b"vm1")
    assert found["1/6"].value is None
    assert found["1/6"].key is None
    assert found["2/5"].cut_from_bytes == 2_000_000
    assert len(found["2/5"].message) == 512


@pytest.mark.parametrize("said", [b"x", b"\xd9\xa3", b"9" * 5000])
def test_what_somebody_else_puts_among_dead_letters_hides_none(
    settings: Settings, said: bytes
) -> None:
    with EventProducer(settings, settings.dlq_topic) as other:
        headers: Headers = [(name, said) for name in ("partition", "offset", "cut_from_bytes")]
        other.send_raw(b"foreign", None, headers)
    writer = DeadLetters(settings)
    writer.deliver([DeadLetter("tokens", 1, 5, "wrong_type", "ts=7", "ts", b"vm1", b"ours")], 10)
    writer.close()
    found = {letter.value: letter for letter in read_dead_letters(settings)}
    assert found.keys() == {b"foreign", b"ours"}
    assert (found[b"foreign"].offset, found[b"foreign"].cut_from_bytes) == (0, None)
