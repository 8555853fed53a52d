"""The topic of the ledger: compacted, written in transactions by one producer at a time.

A compacted topic keeps the last record of each key. So an older revision must never come behind a
newer one, whatever dies or hangs: all writers share one transactional id. Whoever opens it ends the
transactions of the one before, and Kafka refuses everything that one still sends
(https://cwiki.apache.org/confluence/display/KAFKA/KIP-98). What a writer reads after it opened is
therefore the newest that anybody will write before it. Readers set isolation.level=read_committed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaException, Producer

from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.kafka.config import (
    REQUEST_TIMEOUT_SECONDS,
    LastError,
    base_config,
    build,
    mapped,
    partition_count,
)
from gpu_token_analytics.kafka.producer import PRODUCER_CONFIG
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

_TRANSACTION_SECONDS = 60.0
_POLL_EVERY = 128


class LedgerTopic:
    """Writes records in batches, each whole or not at all. For one thread. Raises KafkaError; then
    call close() and begin again, with what is to be written read anew."""

    def __init__(self, settings: Settings) -> None:
        """Contacts nobody yet."""
        self.name = settings.ledger_topic
        self._settings = settings
        self._producer: Producer | None = None

    @property
    def is_open(self) -> bool:
        """Whether this one writes, as far as it knows."""
        return self._producer is not None

    def open(self) -> None:
        """Become the writer: from here on whoever was it before writes no more. Read what is to be
        written after this."""
        last_error = LastError()
        config: dict[str, Any] = {
            **base_config(self._settings, "ledger"),
            **PRODUCER_CONFIG,
            "transactional.id": self._settings.ledger_transactional_id,
            "transaction.timeout.ms": int(1000 * _TRANSACTION_SECONDS),
            "message.timeout.ms": int(500 * _TRANSACTION_SECONDS),
            "error_cb": last_error,
        }
        producer: Producer = build(Producer, config)
        partition_count(producer, self.name, self._settings, last_error)
        try:
            producer.init_transactions(REQUEST_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise mapped(
                error, f"become the writer of {self.name}", self._settings.kafka_bootstrap
            ) from None
        self._producer = producer

    def write(self, records: Iterable[tuple[str, bytes]]) -> int:
        """Write keys and values in one transaction. Returns how many, all of which the topic then
        holds."""
        producer = self._producer
        assert producer is not None, "open() comes first"
        count = 0
        try:
            producer.begin_transaction()
            for key, value in records:
                self._send(producer, key, value)
                count += 1
                if count % _POLL_EVERY == 0:
                    producer.poll(0)
            producer.commit_transaction(_TRANSACTION_SECONDS)
        except KafkaException as error:
            raise mapped(error, f"write to {self.name}", self._settings.kafka_bootstrap) from None
        return count

    def close(self) -> None:
        """Write no more. What was not committed will never be seen."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer.purge()
        try:
            producer.abort_transaction(1.0)
        except KafkaException as error:  # there is none, or another writer has ended it
            _log.debug("no transaction of %s to end: %s", self.name, error)

    def _send(self, producer: Producer, key: str, value: bytes) -> None:
        waited = 0.0
        while True:
            try:
                producer.produce(self.name, value, key)
                return
            except BufferError:
                producer.poll(0.1)
                waited += 0.1
                if waited > _TRANSACTION_SECONDS:
                    raise KafkaError(
                        f"Kafka takes no records of {self.name}: the queue has been full for a "
                        "minute"
                    ) from None
