"""The loop: every effect of ingest, in order. A crash between any two steps loses nothing and
doubles nothing.

    1 poll batch   2 decode + validate   3 live rate   4 insert raw (unordered, w:majority)
    5 mark touched cells due   6 dead letters acknowledged
    7 commit explicit offsets of partitions still owned

    reader (this thread)    1 2 3 of batch n+2     7 of batch n     1 2 3 of batch n+3     7 of n+1
    writers (settle.py)     4 of batch n       5 6 of batch n
                            4 of batch n+1 . . . . . . . . . . . .  5 6 of batch n+1
                                               4 of batch n+2 . . . . . . . . . . . . 5 6 of n+2

Two batches are stored while the next one is read and the one before them settles, never more. They
settle and are committed in order: a batch after one that failed is not committed. Two with an id in
common are stored one after another.

While MongoDB or Kafka does not acknowledge, a writer repeats its batch and the reader keeps polling
with its partitions paused: an outage is no reason for dead letters, and none to lose the
partitions.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from gpu_token_analytics.books.gpu_names import NameLimits
from gpu_token_analytics.books.instances import KnownPlacements
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.ingest.bad_share import BadRecordShare
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.settle import Abandoned, BatchWriter, LoopStage
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.kafka.consumer import EventSource
from gpu_token_analytics.kafka.dead_letters import DeadLetters
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

STOP_WITHIN_SECONDS = 20.0
REVOKE_WITHIN_SECONDS = 24.0  # a fifth of max.poll.interval.ms
# MongoDB has the next batch when it is through with one; a third would only wait
_STORED_AT_ONCE = 2
_PATIENCE_SECONDS = 1.0  # a write that takes longer makes the reader poll, paused
_LAG_EVERY_SECONDS = 2.0


class Ingest:
    """Reads the topic into the store until told to stop. `checkpoint` is called after every
    step."""

    def __init__(
        self,
        source: EventSource,
        store: Store,
        dead_letters: DeadLetters,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        checkpoint: Callable[[LoopStage], None] = lambda _step: None,
        recent: RecentEvents | None = None,
    ) -> None:
        self._source, self._clock, self._metrics, self._settings = source, clock, metrics, settings
        self._store = store
        self._checkpoint = checkpoint
        debounce, names = settings.close_debounce_seconds, NameLimits.of(settings)
        self._writer = BatchWriter(
            store, dead_letters, debounce, metrics, clock, checkpoint, recent, names
        )
        self._bad_share = BadRecordShare(settings.bad_record_limit_ratio)
        rate = LiveRate(
            settings.live_rate_window_seconds,
            settings.price_per_hour_usd,
            known=self._writer.known_gpus,
        )
        self._shaper = Shaper(
            rate,
            settings.sample_gap_limit_seconds,
            Limits.of(settings),
            KnownPlacements(store, clock).book,
        )
        self._in_flight: deque[_Write] = deque()  # oldest first
        self._bad_records_said = False
        self._catching_up = False
        self._lagging: set[str] = set()  # partitions with a lag shown
        self._lag_due = self._progress = clock.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. Raises what makes going on unsafe: OffsetsLost, StoreRefused, ..."""
        self._writer.recall_gpus()
        self._source.on_revoke = lambda: self._settle(REVOKE_WITHIN_SECONDS)
        self._source.start()
        try:
            while not stop.is_set():
                shaped = self._read()  # 1 2 3
                if len(self._in_flight) == _STORED_AT_ONCE and not self._wait(
                    self._in_flight[0].stored, stop
                ):
                    # the batch just read is read again; what is in flight is finished by _close
                    break
                if shaped is not None:
                    self._start(shaped)  # 4 5 6
                most = 0 if shaped is None else _STORED_AT_ONCE
                while len(self._in_flight) > most and self._wait(self._in_flight[0].done, stop):
                    self._commit_oldest()  # 7
        except BaseException as error:
            self._close(error)
            raise
        self._close(None)

    @property
    def catching_up(self) -> bool:
        """Whether records wait in Kafka: the last batch was (half) full. Any thread may ask."""
        return self._catching_up

    @property
    def idle_seconds(self) -> float:
        """Time since the loop last went round; it does so while waiting for the store, too."""
        return self._clock.monotonic() - self._progress

    @property
    def waiting_seconds(self) -> float:
        """How long the writer has waited for MongoDB or Kafka by now; 0 while writes go through."""
        since = self._writer.waiting_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def _read(self) -> Shaped | None:
        with self._metrics.cpu("read"):
            records = self._poll()  # 1
        self._went_round()
        if not len(records):
            return None
        self._checkpoint(LoopStage.POLLED)
        # by a wrong clock raw events would be dated as expired, or as still to come
        self._store.check_clock()
        self._metrics.consumed.inc(len(records))
        self._metrics.batch_records.observe(len(records))
        with self._metrics.cpu("shape"):
            # MongoDB deletes by `ingested_at` on its own clock, so that is the clock it is written
            # by: with a slow one of ours raw events would be gone while cells still need them.
            shaped = self._shaper.shape(records, self._store.now(), self._bad_share)  # 2 3
        self._observe(shaped)
        self._checkpoint(LoopStage.SHAPED)
        return shaped

    def _poll(self) -> RecordBatch:
        most = self._settings.batch_max_records
        records = self._source.poll(most, 0)
        # known before a wait for more, so that closing need not wait, too
        self._catching_up = len(records) * 2 >= most
        return (
            records
            if len(records)
            else self._source.poll(most, self._settings.batch_max_wait_ms / 1000)
        )

    def _wait(self, over: Callable[[float], bool], stop: threading.Event) -> bool:
        """Until a write is that far. Stays in the group however long it takes; False: `stop` came
        first."""
        while not over(_PATIENCE_SECONDS):
            if stop.is_set():
                return False
            self._source.keep_alive()
            self._went_round()
        self._source.resume()
        return not stop.is_set()

    def _start(self, shaped: Shaped) -> None:
        for write in self._in_flight:
            if write.failed:
                write.check()  # _close commits those before it
        before = self._in_flight[-1] if self._in_flight else None
        self._in_flight.append(_Write(self._writer, shaped, before))

    def _commit_oldest(self) -> None:
        """Commit the oldest batch, which is over. Raises what it failed with: no batch after it is
        committed then."""
        write = self._in_flight[0]
        try:
            write.check()
        except BaseException:
            self._in_flight.clear()
            raise
        self._in_flight.popleft()
        done = self._source.commit(write.batch.records.positions)  # 7
        self._metrics.commits.labels("done" if done else "refused").inc()
        self._checkpoint(LoopStage.COMMITTED)

    def _settle(self, within_seconds: float) -> None:
        """Finish and commit what is in flight, as partitions are given away or the process
        stops."""
        deadline = self._clock.monotonic() + within_seconds
        while self._in_flight and self._in_flight[0].done(
            max(0.0, deadline - self._clock.monotonic())
        ):
            self._commit_oldest()

    def _close(self, cause: BaseException | None) -> None:
        """Leave in order: finish the batch, commit it, leave the group."""
        self._source.on_revoke = lambda: None
        try:
            self._settle(STOP_WITHIN_SECONDS)
            if self._in_flight:
                _log.warning(
                    "stopping without the last batches: they are not acknowledged; their records "
                    "are read again"
                )
        except Exception as error:
            if cause is None:
                raise
            if error is not cause:
                _log.exception("the last batches failed, too")
        finally:
            self._writer.abandon()
            self._source.close()

    def _went_round(self) -> None:
        self._progress = self._clock.monotonic()
        self._metrics.last_progress.set(self._clock.now().timestamp())
        if self._progress >= self._lag_due:
            self._lag_due = self._progress + _LAG_EVERY_SECONDS
            lag = {str(partition): records for partition, records in self._source.lag().items()}
            self._metrics.assigned.set(len(self._source.owned))
            for gone in self._lagging - lag.keys():
                self._metrics.lag.remove(gone)  # somebody else's partition now
            for partition, records in lag.items():
                self._metrics.lag.labels(partition).set(records)
            self._lagging = set(lag)

    @property
    def bad_records(self) -> str | None:
        """What to say while too many records are bad; None: they are few. Any thread may ask."""
        return self._bad_share.warning

    def _observe(self, shaped: Shaped) -> None:
        self._metrics.bad_record_ratio.set(self._bad_share.ratio)
        if (self.bad_records is not None) != self._bad_records_said:
            self._bad_records_said = not self._bad_records_said
            if self.bad_records is not None:
                _log.error("%s", self.bad_records)
            else:
                _log.info("few records are bad again")
        self._metrics.unknown_fields.inc(shaped.unknown_fields)
        for model, tokens in shaped.tokens_by_model.items():
            self._metrics.live_tokens.labels(self._metrics.model_label(model)).inc(tokens)
        for model, usd in shaped.cost_per_token_by_model.items():
            self._metrics.live_cost.labels(self._metrics.model_label(model)).set(usd)


class _Write:
    """One batch on its way, in a thread of its own: pymongo and a Kafka flush block, polling must
    not."""

    def __init__(self, writer: BatchWriter, batch: Shaped, before: _Write | None) -> None:
        self.batch = batch
        self._writer, self._before = writer, before
        self._error: BaseException | None = None
        self._stored = threading.Event()
        # daemon: a process told to stop twice, or abandoned by its store, does not wait for it
        self._thread = threading.Thread(target=self._run, name="ingest-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._before is not None:
                self._keep_order_of_ids(self._before)
            stored = self._writer.store(self.batch)
            self._stored.set()
            if self._before is not None:
                self._before.done(None)
                self._before = None  # else each would hold the one before, and all of its batch
            self._writer.settle(self.batch, stored)
        except BaseException as error:  # noqa: BLE001  # check() raises it in the reader
            self._error = error
        finally:
            self._stored.set()

    def _keep_order_of_ids(self, before: _Write) -> None:
        """Of two events with one id the first in its partition stays, whatever dies when; so they
        are not stored at once."""
        if self.batch.shares_ids(before.batch):
            before.stored(None)
            if before.failed:
                raise Abandoned("the batch before did not get through, and has an id in common")

    def stored(self, within_seconds: float | None) -> bool:
        """Wait; True when its events are stored, or it failed."""
        return self._stored.wait(within_seconds)

    def done(self, within_seconds: float | None) -> bool:
        """Wait; True when it is over, well or not."""
        self._thread.join(within_seconds)
        return not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether it is over with an error."""
        return self._error is not None

    def check(self) -> None:
        """Raise what it failed with."""
        if isinstance(self._error, Abandoned):
            _log.warning("a batch was abandoned: %s", self._error)
        if self._error is not None:
            raise self._error
