"""Events into Kafka: idempotent, acknowledged by all in-sync replicas, every single record
accounted for."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self, TypeAlias

from confluent_kafka import KafkaError as RdError
from confluent_kafka import KafkaException, Producer

from gpu_token_analytics.errors import DeliveryFailed, RecordTooLarge
from gpu_token_analytics.kafka.config import (
    MAX_MESSAGE_BYTES,
    LastError,
    base_config,
    build,
    mapped,
    partition_count,
)
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.kind import Event, encode

Headers: TypeAlias = list[tuple[str, str | bytes | None]]

_POLL_EVERY = 128  # sends between two looks at the delivery reports

PRODUCER_CONFIG: dict[str, Any] = {
    # librdkafka's default is off: a retry after a lost answer would double or reorder
    "enable.idempotence": True,
    "acks": "all",
    # What Java clients use; librdkafka's own default (CRC32) would send one host's events to two
    # partitions.
    "partitioner": "murmur2_random",
    "linger.ms": 10,
    "compression.type": "lz4",
    "message.max.bytes": MAX_MESSAGE_BYTES,
    "message.timeout.ms": 120_000,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
}


class EventProducer:
    """Sends events to the topic; satisfies `sinks.EventSink`. Not for use by several threads at
    once.

    A record is done when Kafka acknowledged it: `sent`, `delivered` and `failed` count records, and
    `flush` raises when one was not delivered. Because events carry their id, sending one again
    after a failure is always safe.
    """

    def __init__(
        self, settings: Settings, topic: str | None = None, client: str = "producer"
    ) -> None:
        """Raises SettingsError; Kafka itself is first contacted by check() or send()."""
        self.topic = topic or settings.kafka_topic
        self.sent = 0
        self.delivered = 0
        self.failed = 0
        self._settings = settings
        self._last_error = LastError()
        self._first_failure: str | None = None
        self._too_large = False  # one of those that failed since the last flush was
        self._producer: Producer = build(
            Producer,
            base_config(settings, client) | PRODUCER_CONFIG | {"error_cb": self._last_error},
        )

    def check(self) -> int:
        """Partitions of the topic. Raises KafkaUnreachable or TopicMissing: better before a run
        than within it."""
        return partition_count(self._producer, self.topic, self._settings, self._last_error)

    def send(self, event: Event) -> None:
        """Queue one event under the key `event.host`; waits while the local queue is full."""
        self.send_raw(encode(event), event.host)

    def send_raw(
        self, value: bytes | None, key: str | bytes | None, headers: Headers | None = None
    ) -> None:
        """Queue any bytes; waits while the local queue is full. Raises DeliveryFailed for what can
        never be sent."""
        while True:
            try:
                self._producer.produce(
                    self.topic, value, key, on_delivery=self._report, headers=headers
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise mapped(
                    error, f"send to {self.topic}", self._settings.kafka_bootstrap
                ) from None
        self.sent += 1
        if self.sent % _POLL_EVERY == 0:
            self._producer.poll(0)

    def flush(self, timeout_seconds: float) -> None:
        """Wait until all queued records are acknowledged.

        Raises DeliveryFailed when some are not within `timeout_seconds` (they stay queued), or when
        some failed since the last flush (they are gone from the queue: send them again;
        RecordTooLarge: as they are, they will fail again).
        """
        deadline = time.monotonic() + timeout_seconds
        left = self._producer.flush(timeout_seconds)
        while left and time.monotonic() < deadline:
            left = self._producer.flush(max(0.0, deadline - time.monotonic()))
        failure, self._first_failure = self._first_failure, None
        too_large, self._too_large = self._too_large, False
        if failure is not None:
            kind = RecordTooLarge if too_large else DeliveryFailed
            raise kind(
                f"Kafka did not take every record for {self.topic}: {failure} ({self.failed} so "
                "far)"
            )
        if left:
            said = f" (last said: {self._last_error.text})" if self._last_error.text else ""
            raise DeliveryFailed(
                f"{left} records for {self.topic} were not acknowledged within {timeout_seconds:g} "
                "s by "
                f"{self._settings.kafka_bootstrap}{said}"
            )

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Flush and release the connection. Raises DeliveryFailed like flush."""
        try:
            self.flush(timeout_seconds)
        finally:
            self._producer.purge()
            self._producer.flush(1.0)

    def _report(self, error: RdError | None, _message: object) -> None:
        if error is None:
            self.delivered += 1
            return
        self.failed += 1
        self._too_large = self._too_large or error.code() == RdError.MSG_SIZE_TOO_LARGE
        if self._first_failure is None:
            self._first_failure = f"{error.str()} ({error.name()})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
