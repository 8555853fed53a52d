"""The in-process broker against the real client: what the demo and the ingest tests rely on, and
the limits it states."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from gpu_token_analytics.embedded.broker import (
    MAX_PARTITION_BATCHES,
    MAX_PARTITION_BYTES,
    SAFE_UNREAD_BYTES,
    EmbeddedBroker,
)

PRODUCE, FETCH = 0, 1  # Kafka's protocol numbers


def producer_of(broker: EmbeddedBroker, **config: Any) -> Producer:
    return Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            **config,
        }
    )


def consumer_of(broker: EmbeddedBroker, **config: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "g",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            # how long this broker makes a group wait when a member leaves
            "session.timeout.ms": 2000,
            **config,
        }
    )


def read(consumer: Consumer, count: int, seconds: float = 20) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count - len(found), 0.2):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            found.append(message)
    return found


def test_twelve_partitions_each_record_once_and_committed_offsets_resume(
    mock_broker: EmbeddedBroker,
) -> None:
    producer = producer_of(mock_broker, partitioner="murmur2_random")
    for number in range(1200):
        producer.produce("tokens", key=f"host-{number % 50}", value=str(number))
    assert producer.flush(20) == 0
    assert len(producer.list_topics(timeout=10).topics["tokens"].partitions) == 12

    first = consumer_of(mock_broker)
    first.subscribe(["tokens"])
    half = read(first, 600)
    ends: dict[int, int] = {}
    for message in half:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        ends[partition] = offset + 1
    first.commit(
        offsets=[TopicPartition("tokens", partition, offset) for partition, offset in ends.items()],
        asynchronous=False,
    )
    first.close()

    second = consumer_of(mock_broker)
    second.subscribe(["tokens"])
    rest = read(second, 600)
    second.close()
    assert sorted(int(message.value() or b"") for message in half + rest) == list(range(1200))
    assert len({message.partition() for message in half + rest}) > 6


def test_another_process_can_produce(mock_broker: EmbeddedBroker) -> None:
    program = (
        "import sys; from confluent_kafka import Producer\n"
        "producer = Producer({'bootstrap.servers': sys.argv[1]})\n"
        "producer.produce('tokens', value=b'from another process')\n"
        "sys.exit(producer.flush(20))\n"
    )
    subprocess.run([sys.executable, "-c", program, mock_broker.bootstrap], check=True, timeout=30)
    consumer = consumer_of(mock_broker)
    consumer.subscribe(["tokens"])
    assert [message.value() for message in read(consumer, 1)] == [b"from another process"]
    consumer.close()


def test_a_fresh_group_does_not_wait_for_more_members(mock_broker: EmbeddedBroker) -> None:
    producer = producer_of(mock_broker)
    producer.produce("tokens", value=b"x")
    producer.flush(20)
    consumer = consumer_of(mock_broker)
    consumer.subscribe(["tokens"])
    started = time.monotonic()
    assert read(consumer, 1)
    # Real Kafka's default makes a fresh group wait 3 s; the demo shows its first figures sooner
    # than that.
    assert time.monotonic() - started < 3
    consumer.close()


@pytest.mark.parametrize(
    ("bytes_", "lost"), [(SAFE_UNREAD_BYTES, False), (2 * MAX_PARTITION_BYTES, True)]
)
def test_the_oldest_batches_go_past_the_stated_size(
    mock_broker: EmbeddedBroker, bytes_: int, lost: bool
) -> None:
    producer = producer_of(mock_broker)
    for _ in range(bytes_ // 1024):
        producer.produce("tokens", value=b"x" * 1024, partition=0)
        producer.poll(0)
    producer.flush(20)
    consumer = consumer_of(mock_broker)
    low, high = consumer.get_watermark_offsets(TopicPartition("tokens", 0), timeout=10)
    consumer.close()
    assert high == bytes_ // 1024
    assert (low > 0) is lost
    assert (high - low) * 1024 <= MAX_PARTITION_BYTES


def test_batches_past_the_stated_number_go_too() -> None:
    with EmbeddedBroker({"tokens": 1}) as broker:
        # One record per batch: the worst case of a slow producer with small events.
        producer = producer_of(
            broker,
            **{"batch.num.messages": 1, "linger.ms": 0, "queue.buffering.max.messages": 200_000},
        )
        for _ in range(MAX_PARTITION_BATCHES + 1000):
            producer.produce("tokens", value=b"")
        assert producer.flush(100) == 0
        consumer = consumer_of(broker)
        low, high = consumer.get_watermark_offsets(TopicPartition("tokens", 0), timeout=10)
        consumer.close()
    assert high == MAX_PARTITION_BATCHES + 1000
    # 5 MB is reached first: a batch has about 70 bytes of its own. Either way nothing near the
    #   stated number is lost early.
    assert 0 < low <= high - min(MAX_PARTITION_BATCHES, MAX_PARTITION_BYTES // 80)


def test_injected_errors_reach_the_client_once_each(mock_broker: EmbeddedBroker) -> None:
    results: list[KafkaError | None] = []
    producer = producer_of(mock_broker, **{"enable.idempotence": False, "retries": 0})
    mock_broker.inject_errors(PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE])
    for _ in range(2):
        producer.produce(
            "tokens",
            value=b"x",
            partition=0,
            on_delivery=lambda error, _message: results.append(error),
        )
        producer.flush(20)
    assert results[0] is not None
    assert results[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert results[1] is None


def test_deleted_records_are_out_of_range_for_a_reader_behind_them(
    mock_broker: EmbeddedBroker,
) -> None:
    producer = producer_of(mock_broker)
    for number in range(10):
        producer.produce("tokens", value=str(number), partition=3)
    producer.flush(20)
    mock_broker.delete_records("tokens", 3, 4)
    consumer = consumer_of(mock_broker, **{"auto.offset.reset": "error"})
    consumer.assign([TopicPartition("tokens", 3, 0)])
    with pytest.raises(KafkaException) as caught:
        read(consumer, 1)
    assert caught.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()
