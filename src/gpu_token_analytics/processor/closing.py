"""Closing: due cells are computed from the stored events and written, by any replica, any number of times.

    1 take due cells (their gen is read here, before any event)   2 read prices, placements, inventory
    3 for each GPU: read its events and compute   4 open or mark what a first result implies for others: silent minutes
      between this one and its neighbours, the card of a MIG slice, what samples say of the minutes up to the next one
    5 write where nobody was faster   6 now and then: GPUs, placements and prices that changed, GPUs that fell silent,
      finality

Everything a cell depends on outside of its own minute must mark it here when it changes (4 and 6): else the ledger would
depend on the order of events. A cell that somebody else is computing is marked, too: he may have read before the change.

A cell is never taken before its `due_at`: ingest leaves a mark out while the one before is still ahead (ingest.py).
Behind schedule means fewer recomputations, not wrong ones: while ingest catches up, closing rests between its rounds, and
finds the minutes of a GPU complete.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    CellState,
    GpuId,
    MoneyClass,
    cell_id,
    minute_of,
    touched_minutes,
)
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.events import from_us, to_us
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import Scope
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.store.client import Document
from gpu_token_analytics.store.compute import Books, Carried, ComputedCell, compute_run, last_activity, next_activity, runs_of
from gpu_token_analytics.store.ledger import CellWrite, LedgerStore

log = logging.getLogger(__name__)

CELLS_PER_STEP = 1000
HOUSEKEEPING_SECONDS = 10.0
IDLE_WAIT_SECONDS = 0.1
CATCH_UP_REST_SECONDS = 10.0  # at most, between rounds of closing while ingest catches up
GPUS_AT_ONCE = 2  # one is computed here while MongoDB reads for the other
AFTER_MINUTE = timedelta(seconds=1)

_content_encoder = msgspec.json.Encoder(order="sorted")


class Observer(Protocol):
    """What closing reports; metrics.py satisfies it."""

    def cells_closed(self, computed: int, changed: int) -> None:
        """So many cells were computed, so many of them changed."""

    def cells_kept(self, count: int) -> None:
        """So many cells were touched, but left as they are: their raw events may have expired."""

    def cells_due(self, count: int) -> None:
        """So many cells wait, their debounce included."""

    def event_to_ledger_seconds(self, seconds: float) -> None:
        """Time from a cell's first open mark to its being written."""


class RollupStep(Protocol):
    """Brings the rollups up to date; returns how much it did."""

    def step(self) -> int: ...


@dataclass(frozen=True)
class ClosingRules:
    """The settings closing depends on."""

    debounce_seconds: float
    finality: timedelta
    raw_complete_for: timedelta  # an older cell is never computed again: its raw events may have expired

    @staticmethod
    def of(settings: Settings) -> ClosingRules:
        """The rules these settings make."""
        finality = timedelta(hours=settings.finality_hours)
        return ClosingRules(settings.close_debounce_seconds, finality, settings.raw_complete_for)


class Closer:
    """Computes due cells, one step at a time."""

    def __init__(self, store: LedgerStore, params: LedgerParams, rules: ClosingRules, observer: Observer) -> None:
        self._store, self._params, self._rules, self._observer = store, params, rules, observer
        self._version = params.version

    def run(
        self,
        stop: threading.Event,
        clock: Clock,
        rollups: RollupStep | None = None,
        catching_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Step until `stop` is set. A store outage is waited out; anything else ends the loop with its error.

        catching_up: whether ingest has a backlog. What is closed then is read, computed and written again for every few of
        its events, at the cost of ingest; so a round, which leaves nothing due, is followed by a rest.
        """
        next_housekeeping = round_ended = clock.monotonic()
        while not stop.is_set():
            if catching_up() and clock.monotonic() < round_ended + CATCH_UP_REST_SECONDS:
                clock.wait(stop, IDLE_WAIT_SECONDS)
                continue
            try:
                if clock.monotonic() >= next_housekeeping:
                    self.housekeep()
                    next_housekeeping = clock.monotonic() + HOUSEKEEPING_SECONDS
                done = self.step() + (rollups.step() if rollups is not None else 0)
            except StoreError as error:
                log.warning("the ledger waits for the store: %s", error)
                clock.wait(stop, 2.0)
                continue
            if not done:
                round_ended = clock.monotonic()
                clock.wait(stop, IDLE_WAIT_SECONDS)

    def step(self) -> int:
        """Take, compute and write one batch of due cells. Returns how many were taken."""
        due = self._store.take_due(CELLS_PER_STEP)
        if not due:
            return 0
        now = self._store.now()
        self._keep([cell for cell in due if self._expired(cell, now)])
        books = Books.read(self._store)
        by_gpu: dict[GpuId, dict[int, Document]] = {}
        for cell in due:
            if self._expired(cell, now):
                continue
            by_gpu.setdefault(cell["gpu"], {})[to_us(cell["minute"])] = cell
        with ThreadPoolExecutor(GPUS_AT_ONCE, "closer") as threads:
            closing = [threads.submit(self._close, gpu, cells, books, now) for gpu, cells in by_gpu.items()]
            try:
                for gpu_closing in closing:
                    gpu_closing.result()
            finally:
                threads.shutdown(cancel_futures=True)  # of one error only: in an outage each would wait for its own
        return len(due)

    def _close(self, gpu: GpuId, cells: Mapping[int, Document], books: Books, now: datetime) -> None:
        """Compute and write due cells of one GPU, by their minutes."""
        for run in runs_of(cells):
            computed = compute_run(self._store, books, self._params, gpu, run, to_us(now))
            marks = [cells[minute] for minute in run]
            writes = self._writes(computed, marks, now)
            # First what follows from them: after a crash in between, the cells are still due and it is all done again.
            self._follow_up(gpu, computed, marks, books, {write.cell for write in writes if write.changed})
            self._store.write(writes)
            self._observer.cells_closed(len(writes), sum(write.changed for write in writes))

    def housekeep(self) -> None:
        """The slow, rare work: changed GPUs, placements and prices, silent GPUs, finality."""
        self._spread_gpus()
        self._spread_placements()
        self._spread_prices()
        self._extend_silence()
        self._store.finalise()
        self._observer.cells_due(self._store.count_due())

    # -- cells that cannot be computed again -------------------------------------------------------------------------

    def _expired(self, cell: Document, now: datetime) -> bool:
        return bool(cell["revision"]) and cell["opened_at"] < now - self._rules.raw_complete_for

    def _keep(self, expired: Sequence[Document]) -> None:
        """Leave cells as they are whose raw events may be gone: computed from what is left they would lose money."""
        if not expired:
            return
        log.warning(
            "%d cells, such as %s, were touched by a late event or price, but are older than their raw events are kept "
            "(RAW_RETENTION_DAYS): they stay as they are",
            len(expired),
            expired[0]["_id"],
        )
        self._store.write([CellWrite(cell["_id"], cell["gen"], cell["revision"], {}) for cell in expired])
        self._observer.cells_kept(len(expired))

    # -- writing -----------------------------------------------------------------------------------------------------

    def _writes(self, computed: Sequence[ComputedCell], due: Sequence[Document], now: datetime) -> list[CellWrite]:
        final = [cell["_id"] for cell in due if cell["state"] == CellState.FINAL]
        before = self._store.contents(final) if final else {}
        for mark in due:
            waited = (now - mark["due_at"]).total_seconds() + self._rules.debounce_seconds
            self._observer.event_to_ledger_seconds(max(0.0, waited))
        return [self._cell_write(cell, mark, before.get(mark["_id"]), now) for cell, mark in zip(computed, due, strict=True)]

    def _cell_write(self, cell: ComputedCell, mark: Document, final: Document | None, now: datetime) -> CellWrite:
        fields = {**cell.fields(), "params": self._version}
        content = blake2b(_content_encoder.encode(fields), digest_size=8).digest()
        end = mark["minute"] + timedelta(microseconds=US_PER_MINUTE)
        changes: Document = {"computed_at": now}
        correction = None
        if content != mark.get("content"):
            revision = mark["revision"] + 1
            changes |= fields | {"content": content, "revision": revision, "rolled": False}
            changes["final_at"] = max(end, mark["opened_at"]) + self._rules.finality
            if mark["state"] == CellState.PENDING:
                changes["state"] = CellState.PROVISIONAL.value
            if final is not None:
                correction = _correction(final, fields, revision, now)
        return CellWrite(
            cell=mark["_id"],
            gen=mark["gen"],
            revision=mark["revision"],
            changes=changes,
            due_again_at=end + AFTER_MINUTE if end > now else None,
            correction=correction,
        )

    # -- what one cell implies for others ----------------------------------------------------------------------------

    def _follow_up(
        self, gpu: GpuId, computed: Sequence[ComputedCell], due: Sequence[Document], books: Books, changed: Set[str]
    ) -> None:
        heard = {cell.content.start_us: cell for cell in computed if not cell.silent}
        if not heard:
            return
        # Not only where evidence is new: other evidence in the same minute may have other neighbours.
        changed_us = {to_us(mark["minute"]) for mark in due if mark["_id"] in changed} & heard.keys()
        beside = {minute + step for minute in heard for step in (-US_PER_MINUTE, US_PER_MINUTE)} - heard.keys()
        around = self._store.neighbours(gpu, sorted(beside))
        settled = {minute for minute, cell in around.items() if cell.get("silent") is False and "due_at" not in cell}
        known = heard.keys() | settled
        own_lease = due[0]["lease"]
        for minute in sorted(changed_us):
            if minute - US_PER_MINUTE not in known:
                self._own_silence_before(gpu, minute, books, own_lease)
            if minute + US_PER_MINUTE not in known:
                self._own_silence_after(gpu, minute, books, own_lease)
        news = {to_us(mark["minute"]) for mark in due if mark.get("silent", True)} & heard.keys()
        self._mark_card(gpu, heard.values(), news, books)
        self._carry(gpu, computed, due, books)

    def _own_silence_before(self, gpu: GpuId, minute_us: int, books: Books, own_lease: str | None = None) -> None:
        """Open the silent minutes since the evidence before this minute; those computed as not owned are looked at again."""
        before = self._evidence_before(gpu, minute_us, books)
        if before is not None:
            self._own_silence(gpu, before + US_PER_MINUTE, minute_us, own_lease)

    def _own_silence_after(self, gpu: GpuId, minute_us: int, books: Books, own_lease: str | None = None) -> None:
        """The same up to the next minute with evidence. Without one only minutes that have a cell: silence may still end."""
        start = minute_us + US_PER_MINUTE
        following = self._evidence_from(gpu, start, books)
        if following is not None:
            self._own_silence(gpu, start, following, own_lease)
        else:
            self._store.mark_not_owned(gpu, start, start + self._params.silent_owned_us, own_lease)

    def _own_silence(self, gpu: GpuId, start_us: int, end_us: int, own_lease: str | None) -> None:
        end_us = min(end_us, start_us + self._params.silent_owned_us)
        self._store.mark_missing(gpu, range(start_us, end_us, US_PER_MINUTE))
        self._store.mark_not_owned(gpu, start_us, end_us, own_lease)

    # Neighbours are looked for among the events, not among the cells, which may be in somebody's hands.

    def _evidence_before(self, gpu: GpuId, minute_us: int, books: Books) -> int | None:
        """The last minute before this one with evidence."""
        sample = self._store.last_sample(gpu, minute_us)
        active = last_activity(self._store, books, gpu, minute_us)
        times = ([sample["ts_us"]] if sample else []) + ([active] if active is not None else [])
        return minute_of(max(times)) if times else None

    def _evidence_from(self, gpu: GpuId, minute_us: int, books: Books) -> int | None:
        """The first minute from this one on with evidence."""
        sample = self._store.first_sample(gpu, minute_us)
        active = next_activity(self._store, books, gpu, minute_us)
        times = ([sample["ts_us"]] if sample else []) + ([active] if active is not None else [])
        return minute_of(min(times)) if times else None

    def _mark_card(self, gpu: GpuId, heard: Collection[ComputedCell], news: set[int], books: Books) -> None:
        """Card and slices depend on each other: a slice seen for the first time in a minute changes what its card keeps and
        maybe its siblings' parts; a card's samples price its slices."""
        minutes = sorted(news)
        card = next(iter(heard)).card
        if not minutes or (card is None and gpu not in books.slices_of):
            return
        if card is not None:
            self._store.mark_missing(card, minutes)
        family = [card or gpu, *books.slices_of.get(card or gpu, ())]
        self._store.mark_existing([cell_id(other, minute) for other in family if other != gpu for minute in minutes])

    def _carry(self, gpu: GpuId, computed: Sequence[ComputedCell], due: Sequence[Document], books: Books) -> None:
        """What a sample says (host, name, price) holds up to the next one; the first one's host and name hold before it,
        too. Cells computed before that was known are marked, up to the next minute with a sample, which it opens."""
        sampled = [(cell, mark) for cell, mark in zip(computed, due, strict=True) if cell.content.samples]
        news = [cell for cell, mark in sampled if mark["revision"] == 0 or _carried(mark) != cell.carried]
        here = {cell.content.start_us: cell for cell in computed}  # of one reading, so they agree with each other
        own_lease = due[0]["lease"]
        if news:
            self._store.mark_existing(self._stale_after(gpu, news, here, own_lease))
            if gpu in books.slices_of and any(cell.own_price is not None for cell in news):
                self._store.mark_range({"gpu": {"$in": books.slices_of[gpu]}}, from_us(news[0].content.start_us), None)
        for cell, mark in sampled:
            if cell.oldest and mark.get("samples") != cell.content.samples:
                before = self._store.cells_before(gpu, cell.content.start_us)
                stale = (each for each in before if _stale(each, _carried(each)[:2] == cell.carried[:2], own_lease))
                self._store.mark_existing([each["_id"] for each in stale if to_us(each["minute"]) not in here])

    def _stale_after(
        self, gpu: GpuId, news: Sequence[ComputedCell], here: Mapping[int, ComputedCell], own_lease: str
    ) -> list[str]:
        """Ids of the cells after each of `news`, up to the next one with samples, that do not say what it carries on."""
        waiting = {cell.content.start_us for cell in news}
        carried: Carried | None = None  # what the newest of `news` so far carries on; None: a sample came after it
        stale: list[str] = []
        for each in self._store.cells_from(gpu, news[0].content.start_us):
            minute = to_us(each["minute"])
            if minute in here:
                if minute in waiting:
                    waiting.discard(minute)
                    carried = here[minute].carried
                elif here[minute].content.samples:
                    carried = None
            elif carried is not None:
                if _stale(each, not each.get("samples") and _carried(each) == carried, own_lease):
                    stale.append(each["_id"])
                if each.get("samples"):
                    carried = None
            if carried is None and not waiting:
                break
        return stale

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def _spread_gpus(self) -> None:
        """A GPU is new, or its card, profile, name or being live changed: mark what was computed without knowing. Parts of a
        card depend on all of its slices."""
        for row in self._store.pending_gpus():
            slices = Books.read(self._store).slices_of
            card = row.get("parent_uuid") or row["_id"]
            self._store.mark_computed_before(sorted({row["_id"], card, *slices.get(card, ())}), row["changed_at"])
            self._store.clear_pending_gpu(row)

    def _spread_placements(self) -> None:
        """A label turned out to be another GPU: mark the cells of the requests that named it, under all its meanings."""
        for placement in self._store.pending_placements():
            books, label = Books.read(self._store), placement["label"]
            meant: dict[GpuId, set[int]] = {gpu: set() for gpu in (label, *books.placements.meanings(label))}
            for usage in self._store.labelled_usage(label):
                gpu = books.placements.resolve(label, usage["ts_us"])
                meant[gpu].update(touched_minutes(usage["start_us"], usage["ts_us"]))
            minutes = sorted(set().union(*meant.values()))
            if minutes:
                for gpu in sorted(meant):
                    self._store.mark_missing(gpu, minutes)
                    self._store.mark_existing([cell_id(gpu, minute) for minute in minutes])
                    self._move_silence(gpu, minutes, meant[gpu], books)
            self._store.clear_pending_placement(placement)

    def _move_silence(self, gpu: GpuId, minutes: Sequence[int], meant: Collection[int], books: Books) -> None:
        """Requests of a label in `minutes` are this GPU's in those of `meant` alone. Silence that the others may have owned is
        looked at again; silence around them all is opened here, since nobody else may have seen both of its ends."""
        heard = self._store.last_heard(gpu, minutes[0])
        start = minutes[0] if heard is None else to_us(heard["minute"])
        self._store.mark_silent(gpu, start, minutes[-1] + self._params.silent_owned_us + 2 * US_PER_MINUTE)
        for minute in sorted(meant):
            if minute - US_PER_MINUTE not in meant:
                self._own_silence_before(gpu, minute, books)
            if minute + US_PER_MINUTE not in meant:
                self._own_silence_after(gpu, minute, books)
        for minute in sorted(set(minutes).difference(meant)):
            following = self._evidence_from(gpu, minute + US_PER_MINUTE, books)
            if following is not None:
                self._own_silence_before(gpu, following, books)

    def _spread_prices(self) -> None:
        """A new price row: mark the cells it can concern, final ones too (they get a correction)."""
        for row in self._store.pending_prices():
            start = from_us(minute_of(to_us(row["valid_from"])))
            horizon = self._store.now() - self._rules.raw_complete_for
            where = {**_cells_priced_by(row), "opened_at": {"$gte": horizon}}
            marked = self._store.mark_range(where, start, row.get("valid_to"))
            log.info("price row %s: %d cells are computed again", row["_id"], marked)
            self._store.clear_pending_price(row)

    def _extend_silence(self) -> None:
        """GPUs that are paid for but say nothing: open their minutes up to the last whole one."""
        now_us = to_us(self._store.now())
        limit = minute_of(now_us)
        for gpu in self._store.gpus():
            if not gpu.get("live") or gpu.get("parent_uuid"):
                continue
            heard = self._store.last_heard(gpu["_id"])
            if heard is None:
                continue
            silence = to_us(heard["minute"]) + US_PER_MINUTE
            minutes = range(silence, min(limit, silence + self._params.silent_owned_us), US_PER_MINUTE)
            if minutes:
                if self._store.count_cells(gpu["_id"], silence, minutes.stop) < len(minutes):
                    self._store.mark_missing(gpu["_id"], minutes)
                self._store.mark_not_owned(gpu["_id"], silence, minutes.stop)


def _carried(cell: Document) -> Carried:
    """As ComputedCell.carried, of a stored cell."""
    return cell.get("host"), cell.get("gpu_name"), cell.get("own_price")


def _stale(cell: Document, agrees: bool, own_lease: str) -> bool:
    """Whether a stored cell needs a mark: it disagrees, or somebody else may be computing it from what was known before.
    One that is due anyway, and nobody's yet, does not."""
    if cell.get("lease", own_lease) != own_lease:
        return True
    return not agrees and "due_at" not in cell


def _cells_priced_by(row: Document) -> Document:
    """Which cells a price row can concern."""
    key = row.get("key")
    match Scope(row["scope"]):
        case Scope.GPU:
            return {"$or": [{"gpu": key}, {"card": key}]}
        case Scope.HOST:
            return {"host": key}
        case Scope.NAME:
            return {}  # a slice is priced by its card's name, which its own cells do not carry
        case Scope.DEFAULT:
            return {}


def _correction(before: Document, fields: Document, revision: int, now: datetime) -> Document:
    """What a change of a final cell moved: by class and, by line, in money and tokens. Sums of `moved` = change of C."""
    moved = {name.value: fields["classes"][name] - before["classes"].get(name, 0) for name in MoneyClass}
    return {
        "revision": revision,
        "at": now,
        "moved_nusd": {name: amount for name, amount in moved.items() if amount},
        "cost_change_nusd": fields["cost_nusd"] - before["cost_nusd"],
        "lines": _line_changes(before["lines"], fields["lines"]),
    }


def _line_changes(before: Iterable[dict[str, Any]], after: Iterable[dict[str, Any]]) -> list[Document]:
    counted = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_nusd")
    sums: dict[tuple[str, str, str], Document] = {}
    for sign, lines in ((-1, before), (1, after)):
        for line in lines:
            change = sums.setdefault((line["model"], line["tenant"], line["method"]), dict.fromkeys(counted, 0))
            for name in counted:
                change[name] += sign * line[name]
    return [
        {"model": model, "tenant": tenant, "method": method, **change}
        for (model, tenant, method), change in sorted(sums.items())
        if any(change.values())
    ]
