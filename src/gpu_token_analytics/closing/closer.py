"""Closing: due cells are computed from the stored events and written, by any replica, any number of
times.

    1 take due cells, live minutes first (their gen is read here, before any event)   2 read prices,
      placements, inventory
    3 load the events of a few GPUs and what lies beyond (load.py)   4 compute their timelines and
      cells (ledger)
    5 diff the timelines with what the cells said, mark the cells of changed intervals and open
      missing ones (mark.py)
    6 write where nobody was faster (write.py)
    7 now and then: what changed in the books (spread.py), GPUs that fell silent (silence.py),
      finality

A change is marked before the cell is written that shows it: whoever dies in between leaves the cell
due, and all of it is done again. What a cell depends on outside of its minute is one value, its
GPU's timeline, so one diff says what to mark. A cell whose raw events may have expired is left as
it is: computed from what is left, it would lose money (decisions 12, 13, 42).

A cell is never taken before its `due_at`: ingest leaves a mark out while the one before is still
ahead (ingest/shape.py). Behind schedule means fewer recomputations, not wrong ones: while ingest
catches up, closing rests between its rounds, and finds the minutes of a GPU complete.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from gpu_token_analytics.cells.store import CellWrite, is_live
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.closing.load import load_timelines
from gpu_token_analytics.closing.mark import mark_changes
from gpu_token_analytics.closing.runs import cut_at_known, groups_of, runs_of
from gpu_token_analytics.closing.silence import Silences
from gpu_token_analytics.closing.spread import spread_books
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.closing.write import cell_write
from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    CellState,
    GpuId,
)
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.computed import ComputedCell, ComputedRun
from gpu_token_analytics.ledger.diff import Diff, StoredMinute
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.raw.recent import NOTHING_KNOWN, Known
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.times import to_us

log = logging.getLogger(__name__)

CELLS_PER_STEP = 1000
# GPUs x minutes closed together: a bound on memory, and on the size of one write
MAX_GROUP_US = 120 * US_PER_MINUTE
HOUSEKEEPING_SECONDS = 10.0
IDLE_WAIT_SECONDS = 0.1
ROLLUPS_WAIT_SECONDS = 5.0  # at most, while cells are due
# how often closing looks whether ingest has caught up: that asks nobody
CATCH_UP_LOOK_SECONDS = 0.02
CATCH_UP_REST_SECONDS = 10.0  # at most, between rounds of closing while ingest catches up
# and at most so much of what is remembered of the events: what is forgotten must be read back
CATCH_UP_REST_TURNOVER = 0.4
GROUPS_AT_ONCE = 2  # groups of GPUs: one is computed here while MongoDB reads for the other

# due cells, by GPU and start of the minute
_ByGpu: TypeAlias = dict[GpuId, dict[int, CellDocument]]


class Observer(Protocol):
    """What closing reports; metrics.py satisfies it."""

    def cpu(self, step: str) -> AbstractContextManager[None]:
        """What the thread computes within is a part of a step."""

    def cells_closed(self, computed: int, changed: int) -> None:
        """So many cells were computed, so many of them changed."""

    def cells_kept(self, count: int) -> None:
        """So many cells were touched, but left as they are: their raw events may have expired."""

    def cells_due(self, count: int) -> None:
        """So many cells wait, their debounce included."""

    def cells_unmarked(self, count: int) -> None:
        """So many cells are still to be marked: those of requests that reach too far for their
        batch."""

    def uuids_shared(self, count: int) -> None:
        """So many UUIDs are those of several cards."""

    def event_to_ledger_seconds(self, seconds: float) -> None:
        """Time from a cell's first open mark to its being written."""

    def set_aside(self, count: int) -> None:
        """So many cells and sums are set aside, because MongoDB refuses them for good."""


class RollupStep(Protocol):
    """Brings the rollups up to date; returns how much it did."""

    def step(self) -> int: ...


@dataclass(frozen=True)
class ClosingRules:
    """The settings closing depends on."""

    debounce_seconds: float
    finality: timedelta
    # an older cell is never computed again: its raw events may have expired
    raw_complete_for: timedelta
    # Due cells are left that long to the process that stored their events: it need not read them
    # back (decision 19).
    others_wait: timedelta = timedelta(seconds=5)
    piece_cells: int = 30_000  # of pending marks

    @staticmethod
    def of(settings: Settings) -> ClosingRules:
        """The rules these settings make."""
        finality = timedelta(hours=settings.finality_hours)
        return ClosingRules(
            settings.close_debounce_seconds,
            finality,
            settings.raw_complete_for,
            piece_cells=settings.batch_max_cells,
        )


class Closer:
    """Computes due cells, one step at a time."""

    def __init__(
        self, store: LedgerStore, params: LedgerParams, rules: ClosingRules, observer: Observer
    ) -> None:
        self._store, self._params, self._rules, self._observer = store, params, rules, observer
        self._version = params.version
        self._silences = Silences(store, params)

    def run(
        self,
        stop: threading.Event,
        clock: Clock,
        rollups: RollupStep | None = None,
        catching_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Step until `stop` is set. A store outage is waited out; anything else ends the loop with
        its error.

        catching_up: whether ingest has a backlog. What is closed then is read, computed and written
        again for every few of its events, at the cost of ingest; so a round, which leaves nothing
        due, is followed by a rest. It ends before the events stored since then are forgotten: read
        back, a request costs three times as much (docs/decisions/0047).
        """
        next_housekeeping = round_ended = rolled = clock.monotonic()
        turnover = self._turnover
        while not stop.is_set():
            if (
                catching_up()
                and clock.monotonic() < round_ended + CATCH_UP_REST_SECONDS
                and self._turnover < turnover + CATCH_UP_REST_TURNOVER
            ):
                clock.wait(stop, CATCH_UP_LOOK_SECONDS)
                continue
            try:
                if clock.monotonic() >= next_housekeeping:
                    self.housekeep()
                    next_housekeeping = clock.monotonic() + HOUSEKEEPING_SECONDS
                with self._observer.cpu("close"):
                    done = self.step()
                if rollups is not None and (
                    not done or clock.monotonic() >= rolled + ROLLUPS_WAIT_SECONDS
                ):
                    with self._observer.cpu("roll_up"):
                        done += rollups.step()  # of complete cells rather than of a half of them
                    rolled = clock.monotonic()
            except StoreError as error:
                log.warning("the ledger waits for the store: %s", error)
                clock.wait(stop, 2.0)
                continue
            if not done:
                round_ended, turnover = clock.monotonic(), self._turnover
                clock.wait(stop, IDLE_WAIT_SECONDS)

    @property
    def _turnover(self) -> float:
        return 0.0 if self._store.recent is None else self._store.recent.turnover

    def step(self) -> int:
        """Take, compute and write one batch of due cells. Returns how many were taken. Raises
        StoreRefused while the clocks of this machine and of MongoDB are too far apart, and leaves
        them due."""
        # by a wrong clock minutes would be taken for over, and silence be opened
        self._store.check_clock()
        moment = 0 if self._store.recent is None else self._store.recent.moment
        due = self._store.cells.take_due(
            CELLS_PER_STEP, self._store.own_gpus, self._rules.others_wait
        )
        if not due:
            return 0
        now = self._store.now()
        expired: list[CellDocument] = []
        live: _ByGpu = {}
        history: _ByGpu = {}
        for cell in due:
            if self._expired(cell, now):
                expired.append(cell)
            else:
                (live if is_live(cell, now) else history).setdefault(cell["gpu"], {})[
                    to_us(cell["minute"])
                ] = cell
        self._keep(expired)
        books = self._store.books.read()
        with ThreadPoolExecutor(GROUPS_AT_ONCE, "closer") as threads:
            try:
                for by_gpu in (live, history):
                    self._close_all(by_gpu, threads, books, now, moment)
            finally:
                # of one error only: in an outage each would wait for its own
                threads.shutdown(cancel_futures=True)
        return len(due)

    def _close_all(
        self, by_gpu: _ByGpu, threads: ThreadPoolExecutor, books: Books, now: datetime, moment: int
    ) -> None:
        runs = {gpu: self._runs(gpu, cells, moment) for gpu, cells in by_gpu.items()}
        # Runs of one GPU after another: what one implies for the next is marked before that is
        # read.
        for number in range(max(map(len, runs.values()), default=0)):
            groups = groups_of(
                {gpu: of_gpu[number] for gpu, of_gpu in runs.items() if number < len(of_gpu)},
                MAX_GROUP_US,
            )
            for closing in [
                threads.submit(self._close, group, by_gpu, books, now, moment) for group in groups
            ]:
                closing.result()

    def _runs(self, gpu: GpuId, cells: Mapping[int, CellDocument], moment: int) -> list[list[int]]:
        if self._store.recent is None:
            return runs_of(cells)
        known = self._store.recent.whole(
            gpu, {minute: cell["gen"] for minute, cell in cells.items()}, moment
        )
        return [piece for run in runs_of(cells) for piece in cut_at_known(run, known)]

    def _close(
        self,
        group: Mapping[GpuId, Sequence[int]],
        due: Mapping[GpuId, Mapping[int, CellDocument]],
        books: Books,
        now: datetime,
        moment: int,
    ) -> None:
        """Compute and write due cells, by GPU and minute: one run each of several GPUs, so that a
        few commands do for all."""
        with self._observer.cpu("close"):
            diffs: list[Diff] = []
            writes: list[CellWrite] = []
            known = self._known(
                {
                    gpu: {minute: due[gpu][minute]["gen"] for minute in run}
                    for gpu, run in group.items()
                },
                moment,
            )
            for timelines in load_timelines(
                self._store.raw, books, self._params, group, to_us(now), known
            ):
                for computed in compute_runs(timelines, self._params):
                    marks = [due[computed.gpu][minute] for minute in group[computed.gpu]]
                    written = self._writes(computed.cells, marks, now)
                    diffs.append(_diff(computed, marks, written))
                    writes += written
            # First what changed beside them: after a crash in between, the cells are still due and
            # it is all done again.
            gpu, run = next(iter(group.items()))
            mark_changes(
                self._store, books, self._params, diffs, own_lease=due[gpu][run[0]]["lease"]
            )
            self._silences.heard(diff.gpu for diff in diffs if diff.tells)
            self._store.cells.write(writes)
            self._observer.cells_closed(len(writes), sum(write.changed for write in writes))

    def _known(self, gens: Mapping[GpuId, Mapping[int, int]], moment: int) -> Known:
        return (
            NOTHING_KNOWN if self._store.recent is None else self._store.recent.known(gens, moment)
        )

    def housekeep(self) -> None:
        """The slow, rare work: changed GPUs, placements and prices, silent GPUs, finality."""
        self._store.check_clock()
        self._store.pending_marks.mark(self._rules.piece_cells)
        self._observer.cells_unmarked(self._store.pending_marks.count())
        spread_books(self._store, self._params, self._rules.raw_complete_for)
        self._observer.uuids_shared(self._store.books.count_shared())
        self._silences.extend()
        self._store.cells.finalise()
        self._observer.set_aside(self._store.cells.look_after_set_aside())
        self._observer.cells_due(self._store.cells.count_due())

    # -- cells that cannot be computed again -------------------------------------------------------

    def _expired(self, cell: CellDocument, now: datetime) -> bool:
        return bool(cell["revision"]) and cell["opened_at"] < now - self._rules.raw_complete_for

    def _keep(self, expired: Sequence[CellDocument]) -> None:
        """Leave cells as they are whose raw events may be gone: computed from what is left they
        would lose money."""
        if not expired:
            return
        log.warning(
            "%d cells, such as %s, were touched by a late event or price, but are older than their "
            "raw events are kept "
            "(RAW_RETENTION_DAYS): they stay as they are",
            len(expired),
            expired[0]["_id"],
        )
        self._store.cells.write(
            [CellWrite(cell["_id"], cell["gen"], cell["revision"], {}) for cell in expired]
        )
        self._observer.cells_kept(len(expired))

    # -- writing -----------------------------------------------------------------------------------

    def _writes(
        self, computed: Sequence[ComputedCell], due: Sequence[CellDocument], now: datetime
    ) -> list[CellWrite]:
        final = [cell["_id"] for cell in due if cell["state"] == CellState.FINAL]
        before = self._store.cells.contents(final) if final else {}
        for mark in due:
            waited = (now - mark["due_at"]).total_seconds() + self._rules.debounce_seconds
            self._observer.event_to_ledger_seconds(max(0.0, waited))
        return [
            cell_write(
                cell, mark, before.get(mark["_id"]), self._version, self._rules.finality, now
            )
            for cell, mark in zip(computed, due, strict=True)
        ]


def _diff(run: ComputedRun, marks: Sequence[CellDocument], writes: Sequence[CellWrite]) -> Diff:
    """What was computed against what its cells said when they were taken."""
    changed = {
        to_us(mark["minute"]) for mark, write in zip(marks, writes, strict=True) if write.changed
    }
    return Diff(run, [StoredMinute.of(mark) for mark in marks], changed)
