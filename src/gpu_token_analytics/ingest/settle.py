"""Steps 4 to 6 of the loop: one batch made durable, however long that takes."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from gpu_token_analytics.books.gpu_names import GpuNames, NameLimits
from gpu_token_analytics.books.inventory import upsert_inventory
from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.documents import GpuMinute, touched_minutes
from gpu_token_analytics.errors import (
    DeliveryFailed,
    KafkaUnreachable,
    OutOfMemory,
    Reason,
    StoreOutcomeUnknown,
    StoreUnreachable,
)
from gpu_token_analytics.ingest.refusals import RefusalLog
from gpu_token_analytics.ingest.shaped import Raws, Shaped, refused_letters
from gpu_token_analytics.kafka.dead_letters import DeadLetters
from gpu_token_analytics.kafka.records import DeadLetter
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.raw.insert import InsertOutcome, insert_raw
from gpu_token_analytics.raw.pending_marks import PendingMarks
from gpu_token_analytics.raw.recent import RecentEvents, held_bytes
from gpu_token_analytics.wire.counters import COUNTERS
from gpu_token_analytics.wire.events import KINDS
from gpu_token_analytics.wire.kind import Kind
from gpu_token_analytics.wire.times import to_us

_log = logging.getLogger(__name__)

T = TypeVar("T")

_DELIVERY_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SAY_AGAIN_SECONDS = 30.0
_ASK_FIRST_SHARE = 0.02  # of duplicates: from here on asking is cheaper than being refused
_ASK_FIRST_BATCHES = 20
_DELAYS_PER_BATCH = 32
_LEAST_FREE_BYTES = 16 * 1024 * 1024  # what a batch needs at least
_OUTAGES = (StoreUnreachable, StoreOutcomeUnknown, DeliveryFailed, KafkaUnreachable)


class LoopStage(StrEnum):
    """Where the loop is; a test can die after each."""

    POLLED = "polled"
    SHAPED = "shaped"
    INSERTED = "inserted"
    MARKED = "marked"
    DEAD_LETTERED = "dead_lettered"
    COMMITTED = "committed"


class Abandoned(Exception):
    """The process stops and the batch did not get through: nothing is committed, its records are
    read again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch whose events are durable."""

    letters: Sequence[DeadLetter]
    first_time: bool  # none of them was stored before


class BatchWriter:
    """Makes batches durable, in two stages. Several threads may store a batch each, one settles. An
    outage is waited out; what raises is for an operator (StoreRefused)."""

    def __init__(
        self,
        store: Store,
        dead_letters: DeadLetters,
        debounce_seconds: float,
        metrics: Metrics,
        clock: Clock,
        checkpoint: Callable[[LoopStage], None],
        recent: RecentEvents | None = None,
        names: NameLimits | None = None,
    ) -> None:
        """recent: told of what is stored, so that closing need not read it back. names: of GPUs,
        how many are kept."""
        self._store, self._dead_letters, self._metrics, self._clock = (
            store,
            dead_letters,
            metrics,
            clock,
        )
        self._recent = recent
        self._checkpoint = checkpoint
        self._names = GpuNames(store, names, metrics.gpu_names_dropped.inc)
        self._marker = CellMarker(store, debounce_seconds)
        self._pending = PendingMarks(store, debounce_seconds)
        # batches in which to ask, of each kind
        self._ask_first: dict[Kind[Any], int] = dict.fromkeys(KINDS, 0)
        self._abandon = threading.Event()
        self._refusals = RefusalLog(clock)
        metrics.store_up.set(1)  # it answered when it was opened
        self.waiting_since: float | None = None  # monotonic; set while an outage is waited out

    @property
    def known_gpus(self) -> set[str]:
        """What requests may call their GPUs for their live cost to be known; samples may add to
        it."""
        return self._names.known

    def recall_gpus(self) -> None:
        """Know the GPUs that the store knows: before the first batch. In an outage they are learned
        again from what comes."""
        try:
            self._names.recall()
        except (StoreUnreachable, StoreOutcomeUnknown) as error:
            _log.warning("live costs are unknown until samples come: %s", error)

    def store(self, batch: Shaped) -> Stored:
        """Step 4: returns when all events are durable, with the letters of this batch. Raises
        Abandoned after abandon()."""
        with self._metrics.cpu("store"):
            return self._store_events(batch)

    def settle(self, batch: Shaped, stored: Stored) -> None:
        """Steps 5 and 6 of a stored batch: returns when what follows from it is durable, too.
        Batches settle in order, and while the next one is stored. Raises Abandoned after
        abandon()."""
        with self._metrics.cpu("settle"):
            self._settle(batch, stored)

    def abandon(self) -> None:
        """Give up waiting; store() and settle() raise Abandoned."""
        self._abandon.set()

    def _store_events(self, batch: Shaped) -> Stored:
        letters = list(batch.letters)
        first_time = True
        for kind, raws in batch.raws.items():
            if raws.documents:
                outcome = self._insert(kind, raws)
                first_time = first_time and outcome.inserted == len(raws.documents)
                letters += refused_letters(batch, raws, Reason.ID_CONFLICT, outcome.conflicts)
                letters += refused_letters(batch, raws, Reason.REFUSED_BY_STORE, outcome.refused)
        self._checkpoint(LoopStage.INSERTED)
        self._observe_delays(batch.event_us)
        return Stored(letters, first_time)

    def _settle(self, batch: Shaped, stored: Stored) -> None:
        if sightings := batch.sightings():
            self._timed("inventory", lambda: upsert_inventory(self._store, sightings))
        if batch.named:
            # kept, before anybody marks what they mean
            self._timed("names", lambda: self._names.resolve(batch.named))
        if batch.pending:
            self._timed("mark", lambda: self._pending.put(batch.pending))
        touched, marked = self._timed("mark", lambda: self._mark(batch))  # 5
        if self._recent is not None:
            if stored.first_time:
                self._recent.add(
                    batch.rows,
                    batch.sampled,
                    held_bytes(batch.rows, batch.sampled),
                    touched,
                    marked,
                    counted=bool(batch.raws[COUNTERS].documents),
                )
            else:
                self._recent.forget(touched)
        self._checkpoint(LoopStage.MARKED)
        if stored.letters:
            # 6
            self._timed(
                "dead_letters",
                lambda: self._dead_letters.deliver(stored.letters, _DELIVERY_SECONDS),
            )
            for letter in stored.letters:
                self._metrics.dead_letters.labels(letter.reason).inc()
            self._refusals.add(stored.letters)
        self._checkpoint(LoopStage.DEAD_LETTERED)

    def _mark(self, batch: Shaped) -> tuple[set[GpuMinute], Sequence[GpuMinute]]:
        """The cells it touches, and those of them that were marked now."""
        touched = self._cells(batch)
        if self._recent is not None:
            self._recent.expect(touched)  # before a mark is left out: closing runs meanwhile
        marked = self._marker.mark(touched)
        self._metrics.marks.inc(len(marked))
        return touched, marked

    def _insert(self, kind: Kind[Any], raws: Raws) -> InsertOutcome:
        ask_first = self._ask_first[kind] > 0

        def insert() -> InsertOutcome:
            nonlocal ask_first
            # what an outage leaves half done is mostly stored already
            asked, ask_first = ask_first, True
            return insert_raw(self._store, kind, raws.documents, ask_first=asked)

        outcome = self._timed("insert", insert)
        if outcome.duplicates > _ASK_FIRST_SHARE * len(raws.documents):
            self._ask_first[kind] = _ASK_FIRST_BATCHES
        elif self._ask_first[kind] > 0:
            self._ask_first[kind] -= 1
        self._metrics.inserted.labels(kind.collection).inc(outcome.inserted)
        self._metrics.duplicates.labels(kind.collection).inc(outcome.duplicates)
        return outcome

    def _cells(self, batch: Shaped) -> set[GpuMinute]:
        """All cells touched. Names are looked up here, after the insert: what is learned later of
        the GPUs that they mean is `pending` and makes the closer find these events; what was
        learned before is found here. In between there is no gap."""
        placements = self._names.resolve(batch.named)
        cells = set(batch.touched)
        renamed = {
            gpu: meant
            for gpu in batch.named
            if (meant := placements.resolve(gpu, 0)) != gpu and "/" not in gpu
        }
        if renamed:  # another spelling of a UUID: whenever it was used
            cells.update(
                (renamed[gpu], minute_us) for gpu, minute_us in batch.touched if gpu in renamed
            )
        for label, start_us, end_us, ended_us in batch.labelled:
            gpu = placements.resolve(label, ended_us)
            cells.update((gpu, minute_us) for minute_us in touched_minutes(start_us, end_us))
        return cells

    def _timed(self, step: str, effect: Callable[[], T]) -> T:
        begun = time.perf_counter()
        result = self._through_outages(step, effect)
        self._metrics.write_seconds.labels(step).observe(time.perf_counter() - begun)
        return result

    def _through_outages(self, step: str, effect: Callable[[], T]) -> T:
        """Repeat until it is done. Every effect here can be repeated: that is what the event's own
        id is for. Raises OutOfMemory where the outage is this process's own."""
        pause, said = _FIRST_PAUSE_SECONDS, float("-inf")
        while True:
            try:
                result = effect()
            except _OUTAGES as error:
                _check_memory(error)
                now = self._clock.monotonic()
                self.waiting_since = self.waiting_since or now
                self._metrics.store_up.set(0)
                self._metrics.retries.inc()
                if now - said >= _SAY_AGAIN_SECONDS:
                    _log.warning("waiting, the batch is repeated (%s): %s", step, error)
                    said = now
                if self._clock.wait(self._abandon, pause * random.uniform(0.5, 1)):
                    raise Abandoned(str(error)) from error
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                # another thread may do the same
                since, self.waiting_since = self.waiting_since, None
                if since is not None:
                    _log.info(
                        "writes go through again after %.1f s", self._clock.monotonic() - since
                    )
                self._metrics.store_up.set(1)
                return result

    def _observe_delays(self, event_us: list[int]) -> None:
        now_us = to_us(self._clock.now())
        for ts_us in event_us[:: max(1, len(event_us) // _DELAYS_PER_BATCH)]:
            self._metrics.stored_delay.observe(max(0, now_us - ts_us) / 1e6)


def _check_memory(outage: Exception) -> None:
    """Raises OutOfMemory. Drivers without memory say that their server does not answer; waiting for
    it would take for ever, and whoever looks at this process would find it well."""
    try:
        bytearray(_LEAST_FREE_BYTES)
    except MemoryError:
        raise OutOfMemory(
            f"this process gets no more memory (limits: `ulimit -v`, its cgroup); it then said: "
            f"{outage}"
        ) from None
