"""Cells into the topic, each revision with one effect.

    1 lead: one process sends (outbox.py)       2 open: Kafka lets nobody else write from here on
    3 read cells that the topic does not hold   4 write them in one transaction   5 note that the
      topic holds them

Killed before 4 is committed, nothing was seen, and the cells are still unsent. Killed between 4 and
5, the same revisions are sent again: the same keys with the same content. A cell that changes
between 3 and 5 stays unsent, and its newer revision follows. Whoever was the writer before and
wakes up cannot write (kafka/ledger_topic.py): no older revision ever comes last.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import Protocol

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import KafkaError, StoreError
from gpu_token_analytics.kafka.ledger_topic import LedgerTopic
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.warehouse.outbox import Outbox, Sent
from gpu_token_analytics.warehouse.record import records_of

_log = logging.getLogger(__name__)

CELLS_PER_STEP = 500
IDLE_SECONDS = 1.0
RETRY_SECONDS = 5.0


class PublishStage(StrEnum):
    """Between which effects a process can die: the names of a test's checkpoints."""

    READ = "read"  # cells were read, nothing was sent
    SENT = "sent"  # records were sent, their transaction is open
    COMMITTED = "committed"  # the topic holds them, nobody knows yet


class Observer(Protocol):
    """What publishing reports; metrics.py satisfies it."""

    def ledger_records(self, count: int) -> None:
        """So many records were written to the topic."""

    def ledger_topic_lag(self, seconds: float) -> None:
        """For so long the oldest cell that the topic does not hold has been waiting; 0: none, or
        another process sends."""


class Publisher:
    """Sends unsent cells, one step at a time. For one thread."""

    def __init__(
        self,
        outbox: Outbox,
        topic: LedgerTopic,
        observer: Observer,
        checkpoint: Callable[[PublishStage], None] = lambda _step: None,
    ) -> None:
        self._outbox, self._topic, self._observer, self._checkpoint = (
            outbox,
            topic,
            observer,
            checkpoint,
        )
        self._name = secrets.token_hex(8)

    def run(self, stop: threading.Event, clock: Clock) -> None:
        """Step until `stop` is set. Outages of MongoDB and Kafka are waited out: the ledger goes on
        without the topic."""
        try:
            while not stop.is_set():
                try:
                    done = self.step()
                except (StoreError, KafkaError) as error:
                    _log.warning("the ledger's topic waits: %s", error)
                    clock.wait(stop, RETRY_SECONDS)
                    continue
                if not done:
                    clock.wait(stop, IDLE_SECONDS)
        finally:
            self.close()

    def step(self) -> int:
        """Send up to CELLS_PER_STEP cells. Returns how many; 0: all are sent, or another process
        sends. Raises StoreError or KafkaError; the cells are unsent then, and the next step opens
        the topic anew."""
        try:
            # cells are read while they are sent
            with store_errors("send cells to the ledger's topic"):
                return self._step()
        except (StoreError, KafkaError):
            self._topic.close()
            raise

    def close(self) -> None:
        """Send no more; another process may at once."""
        self._topic.close()
        try:
            self._outbox.leave(self._name)
        except StoreError as error:
            _log.debug("the lead runs out by itself: %s", error)

    def _step(self) -> int:
        if not self._outbox.lead(self._name):
            self._topic.close()
            self._observer.ledger_topic_lag(0.0)
            return 0
        # First: a topic that cannot be opened is what makes cells wait.
        self._observer.ledger_topic_lag(self._outbox.oldest_seconds())
        if not self._topic.is_open:
            self._topic.open()  # before any cell is read: see kafka/ledger_topic.py
            _log.info("this process writes the topic %s", self._topic.name)
        sent: list[Sent] = []
        cells = self._outbox.unsent(CELLS_PER_STEP)
        first = list(islice(cells, 1))
        if not first:
            return self._outbox.sweep(self._topic.name)
        self._checkpoint(PublishStage.READ)

        def records() -> Iterator[tuple[str, bytes]]:
            for cell in chain(first, cells):
                yield from records_of(cell)
                sent.append((cell["_id"], cell["revision"]))
            self._checkpoint(PublishStage.SENT)

        self._observer.ledger_records(self._topic.write(records()))
        self._checkpoint(PublishStage.COMMITTED)
        self._outbox.sent(sent)
        return len(sent)
