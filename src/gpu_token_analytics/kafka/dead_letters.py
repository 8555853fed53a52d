"""Bad records: into `<topic>.dlq` with their reason, and out again to be looked at or sent once
more.

A dead letter keeps the record's bytes and key; headers say why and where it was: reason, message,
field, topic, partition, offset. Delivery is confirmed before the record's offset is committed, so a
crash in between writes a second copy: readers tell copies apart by (topic, partition, offset).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from gpu_token_analytics.errors import KafkaError, RecordTooLarge
from gpu_token_analytics.kafka.config import (
    REQUEST_TIMEOUT_SECONDS,
    mapped,
    offsets_client,
    partition_count,
)
from gpu_token_analytics.kafka.producer import EventProducer, Headers
from gpu_token_analytics.kafka.records import DeadLetter
from gpu_token_analytics.settings import Settings

# A topic made by others takes 1 MiB, headers included. What is longer can never be a valid record;
# its start and hash stay.
WHOLE_UP_TO_BYTES = 900 * 1024
CUT_TO_BYTES = 64 * 1024
# Of a topic made with a smaller limit it is not known how much it takes, so it is asked.
_SMALLER_TOPICS_BYTES = (CUT_TO_BYTES, 8 * 1024, 1024, 0)
_MAX_HEADER_CHARACTERS = 512
_SHORT_HEADER_CHARACTERS = 40
_MAX_DIGITS = 19  # of an offset

_log = logging.getLogger(__name__)


class DeadLetters:
    """Writes dead letters. Not for use by several threads at once."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError."""
        self._producer = EventProducer(settings, settings.dlq_topic, client="dead-letters")
        self._said_too_large = False

    def check(self) -> None:
        """Raises KafkaUnreachable, or TopicMissing when there is no place for dead letters."""
        self._producer.check()

    def deliver(self, letters: Sequence[DeadLetter], timeout_seconds: float) -> None:
        """Write `letters` and wait until Kafka has them. Raises DeliveryFailed: deliver the same
        letters again.

        A topic that takes less than it should gets them one by one, and of those that are over its
        limit the start only: else one record that is bad and long would hold up all records behind
        it for ever.
        """
        try:
            for letter in letters:
                self._send(letter, WHOLE_UP_TO_BYTES, CUT_TO_BYTES)
            self._producer.flush(timeout_seconds)
        except RecordTooLarge as error:
            if not self._said_too_large:
                self._said_too_large = True
                _log.warning(
                    (
                        "dead letters are written one by one and cut: raise the topic's "
                        "max.message.bytes (%s)"
                    ),
                    error,
                )
            for letter in letters:
                self._deliver_alone(letter, timeout_seconds)

    def _deliver_alone(self, letter: DeadLetter, timeout_seconds: float) -> None:
        for most_bytes in (WHOLE_UP_TO_BYTES, *_SMALLER_TOPICS_BYTES):
            try:
                self._send(letter, most_bytes, min(most_bytes, CUT_TO_BYTES))
                self._producer.flush(timeout_seconds)
                return
            except RecordTooLarge:
                if not most_bytes:
                    raise

    def _send(self, letter: DeadLetter, whole_up_to_bytes: int, cut_to_bytes: int) -> None:
        value, extra = _fitting(letter.value, whole_up_to_bytes, cut_to_bytes)
        characters = _MAX_HEADER_CHARACTERS if cut_to_bytes else _SHORT_HEADER_CHARACTERS
        key = letter.key if cut_to_bytes else None  # it may be as long as the value
        self._producer.send_raw(value, key, headers=_headers(letter, characters) + extra)

    def close(self) -> None:
        """Release the connection. Raises DeliveryFailed when letters are still on their way."""
        self._producer.close()


def read_dead_letters(settings: Settings) -> Iterator[DeadLetter]:
    """Every dead letter up to now, once, by partition and offset of the dead-letter topic.

    Raises KafkaUnreachable, TopicMissing.
    """
    topic = settings.dlq_topic
    consumer = offsets_client(
        settings, f"{settings.kafka_group}.dead-letters-reader", "dead-letters"
    )
    seen: set[tuple[str, int, int]] = set()
    try:
        for number in range(partition_count(consumer, topic, settings)):
            for message in _read_partition(consumer, topic, number, settings):
                letter = _letter(message)
                where = (letter.topic, letter.partition, letter.offset)
                if where not in seen:
                    seen.add(where)
                    yield letter
    finally:
        consumer.close()


def _read_partition(
    consumer: Consumer, topic: str, number: int, settings: Settings
) -> Iterator[Message]:
    where = TopicPartition(topic, number)
    try:
        low, high = consumer.get_watermark_offsets(
            where, timeout=REQUEST_TIMEOUT_SECONDS, cached=False
        )
        if low >= high:
            return
        consumer.assign([TopicPartition(topic, number, low)])
        at = low
        while at < high:
            messages = consumer.consume(
                min(500, high - at), REQUEST_TIMEOUT_SECONDS if at == low else 2.0
            )
            for message in messages:
                error = message.error()
                if error is not None:
                    raise mapped(error, f"read {topic}/{number}", settings.kafka_bootstrap)
                yield message
            # position() also moves over what is not shown (transaction marks), so that the end is
            # reached
            position = consumer.position([where])[0].offset
            if not messages and position < high:
                raise KafkaError(
                    f"{topic}/{number} gave no record between offsets {max(at, position)} and "
                    f"{high}"
                )
            at = max(at, position)
    except KafkaException as error:
        raise mapped(error, f"read {topic}/{number}", settings.kafka_bootstrap) from None


def _fitting(
    value: bytes | None, whole_up_to_bytes: int, cut_to_bytes: int
) -> tuple[bytes | None, Headers]:
    if value is None or len(value) <= whole_up_to_bytes:
        return value, []
    digest = hashlib.sha256(value).hexdigest()
    return value[:cut_to_bytes], [
        ("cut_from_bytes", str(len(value)).encode()),
        ("sha256", digest.encode()),
    ]


def _headers(letter: DeadLetter, most_characters: int) -> Headers:
    texts = {
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "message": letter.message[:most_characters],
    }
    if letter.field is not None:
        texts["field"] = letter.field[:most_characters]
    return [(name, text.encode("utf-8", "backslashreplace")) for name, text in texts.items()]


def _letter(message: Message) -> DeadLetter:
    sent_headers = message.headers() or []
    pairs = sent_headers.items() if isinstance(sent_headers, dict) else sent_headers
    headers = {
        name: raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw or "")
        for name, raw in pairs
    }
    # A record somebody else put there has no headers of ours, or such as say nothing: it is shown
    # under its own place. An error here would hide every letter for as long as it is kept.
    partition, offset = _whole(headers.get("partition")), _whole(headers.get("offset"))
    return DeadLetter(
        topic=headers.get("topic", message.topic() or ""),
        partition=(message.partition() or 0) if partition is None else partition,
        offset=(message.offset() or 0) if offset is None else offset,
        reason=headers.get("reason", "unknown"),
        message=headers.get("message", ""),
        field=headers.get("field"),
        key=message.key(),
        value=message.value(),
        cut_from_bytes=_whole(headers.get("cut_from_bytes")),
    )


def _whole(text: str | None) -> int | None:
    """The whole number that a header says."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        return None
    return int(text)
