"""Closing: due cells are computed from the stored events and written, by any replica, any number of times.

    1 take due cells (their gen is read here, before any event)   2 read prices, placements, inventory
    3 for each GPU: read its events and compute   4 open or mark what a first result implies for others: silent minutes
      between this one and its neighbours, the card of a MIG slice, prices carried on through silence
    5 write where nobody was faster   6 now and then: placements and prices that changed, GPUs that fell silent, finality

A cell is never taken before its `due_at`: ingest leaves a mark out while the one before is still ahead (ingest.py).
Behind schedule means fewer recomputations, not wrong ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
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
from gpu_token_analytics.store.client import Document
from gpu_token_analytics.store.compute import Books, ComputedCell, compute_run, last_activity, runs_of
from gpu_token_analytics.store.ledger import CellWrite, LedgerStore

log = logging.getLogger(__name__)

CELLS_PER_STEP = 1000
HOUSEKEEPING_SECONDS = 10.0
IDLE_WAIT_SECONDS = 0.5
AFTER_MINUTE = timedelta(seconds=1)

_content_encoder = msgspec.json.Encoder(order="sorted")


class Observer(Protocol):
    """What closing reports; metrics.py satisfies it."""

    def cells_closed(self, computed: int, changed: int) -> None:
        """So many cells were computed, so many of them changed."""

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


class Closer:
    """Computes due cells, one step at a time."""

    def __init__(self, store: LedgerStore, params: LedgerParams, rules: ClosingRules, observer: Observer) -> None:
        self._store, self._params, self._rules, self._observer = store, params, rules, observer
        self._version = params.version

    def run(self, stop: threading.Event, clock: Clock, rollups: RollupStep | None = None) -> None:
        """Step until `stop` is set. A store outage is waited out; anything else ends the loop with its error."""
        next_housekeeping = clock.monotonic()
        while not stop.is_set():
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
                clock.wait(stop, IDLE_WAIT_SECONDS)

    def step(self) -> int:
        """Take, compute and write one batch of due cells. Returns how many were taken."""
        due = self._store.take_due(CELLS_PER_STEP)
        if not due:
            return 0
        now = self._store.now()
        books = Books.read(self._store)
        by_gpu: dict[GpuId, dict[int, Document]] = {}
        for cell in due:
            by_gpu.setdefault(cell["gpu"], {})[to_us(cell["minute"])] = cell
        for gpu, cells in by_gpu.items():
            for run in runs_of(cells):
                computed = compute_run(self._store, books, self._params, gpu, run, to_us(now))
                marks = [cells[minute] for minute in run]
                # First what follows from them: after a crash in between, the cells are still due and it is all done again.
                self._follow_up(gpu, computed, marks, books)
                self._write(computed, marks, now)
        return len(due)

    def housekeep(self) -> None:
        """The slow, rare work: changed placements and prices, silent GPUs, finality."""
        self._spread_placements()
        self._spread_prices()
        self._extend_silence()
        self._store.finalise()
        self._observer.cells_due(self._store.count_due())

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, computed: Sequence[ComputedCell], due: Sequence[Document], now: datetime) -> None:
        final = [cell["_id"] for cell in due if cell["state"] == CellState.FINAL]
        before = self._store.contents(final) if final else {}
        writes, changed = [], 0
        for cell, mark in zip(computed, due, strict=True):
            write = self._cell_write(cell, mark, before.get(mark["_id"]), now)
            changed += "cost_nusd" in write.changes
            writes.append(write)
            self._observer.event_to_ledger_seconds(
                max(0.0, (now - mark["due_at"]).total_seconds() + self._rules.debounce_seconds)
            )
        self._store.write(writes)
        self._observer.cells_closed(len(computed), changed)

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

    def _follow_up(self, gpu: GpuId, computed: Sequence[ComputedCell], due: Sequence[Document], books: Books) -> None:
        heard = {cell.content.start_us: cell for cell in computed if not cell.silent}
        if not heard:
            return
        # News: evidence in a minute that had no cell yet, or a silent one.
        news = {to_us(mark["minute"]) for mark in due if mark["revision"] == 0 or mark.get("silent", True)} & heard.keys()
        beside = {minute + step for minute in heard for step in (-US_PER_MINUTE, US_PER_MINUTE)} - heard.keys()
        around = self._store.neighbours(gpu, sorted(beside))
        known = heard.keys() | {minute for minute, cell in around.items() if cell.get("silent") is False}
        for minute in sorted(news):
            if minute - US_PER_MINUTE not in known:
                self._own_silence_before(gpu, minute, books)
            if minute + US_PER_MINUTE not in known:
                self._own_silence_after(gpu, minute)
        for minute, cell in heard.items():
            following = around.get(minute + US_PER_MINUTE)
            if following is not None and following.get("silent") and following.get("own_price") != cell.own_price:
                self._store.touch_silent_after(gpu, minute, cell.own_price)
        self._mark_card(gpu, heard.values(), news, books)

    def _own_silence_before(self, gpu: GpuId, minute_us: int, books: Books) -> None:
        """Open the silent minutes since the evidence before this minute; those computed as not owned are looked at again."""
        sample = self._store.last_sample(gpu, minute_us)
        active = last_activity(self._store, books, gpu, minute_us)
        times = ([sample["ts_us"]] if sample else []) + ([active] if active is not None else [])
        if times:
            start = minute_of(max(times)) + US_PER_MINUTE
            end = min(minute_us, start + self._params.silent_owned_us)
            self._store.mark_missing(gpu, range(start, end, US_PER_MINUTE))
            self._store.mark_not_owned(gpu, start, end)

    def _own_silence_after(self, gpu: GpuId, minute_us: int) -> None:
        """The same up to the next minute with evidence. Without one only minutes that have a cell: silence may still end."""
        start = minute_us + US_PER_MINUTE
        end = start + self._params.silent_owned_us
        following = self._store.next_heard(gpu, minute_us)
        if following is not None:
            end = min(to_us(following["minute"]), end)
            self._store.mark_missing(gpu, range(start, end, US_PER_MINUTE))
        self._store.mark_not_owned(gpu, start, end)

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

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def _spread_placements(self) -> None:
        """A label turned out to be another GPU: mark the cells of the requests that named it, under all its meanings."""
        for placement in self._store.pending_placements():
            books = Books.read(self._store)
            minutes: set[int] = set()
            for usage in self._store.labelled_usage(placement["label"]):
                minutes.update(touched_minutes(usage["start_us"], usage["ts_us"]))
            for gpu in sorted({placement["label"], *books.placements.meanings(placement["label"])}):
                self._store.mark_missing(gpu, sorted(minutes))
                self._store.mark_existing([cell_id(gpu, minute) for minute in sorted(minutes)])
            self._store.clear_pending_placement(placement)

    def _spread_prices(self) -> None:
        """A new price row: mark the cells it can concern, final ones too (they get a correction)."""
        for row in self._store.pending_prices():
            start = from_us(minute_of(to_us(row["valid_from"])))
            marked = self._store.mark_range(_cells_priced_by(row), start, row.get("valid_to"))
            log.info("price row %s: %d cells are computed again", row["_id"], marked)
            self._store.clear_pending_price(row)

    def _extend_silence(self) -> None:
        """GPUs that are paid for but say nothing: open their minutes up to the last whole one."""
        now_us = to_us(self._store.now())
        limit = minute_of(now_us)
        for gpu in self._store.gpus():
            if not gpu.get("live") or gpu.get("parent_uuid"):
                continue
            last, heard = self._store.last_cell(gpu["_id"]), self._store.last_heard(gpu["_id"])
            if last is None or heard is None:
                continue
            silence = to_us(heard["minute"]) + US_PER_MINUTE
            end = min(limit, silence + self._params.silent_owned_us)
            if silence < end:
                self._store.mark_missing(gpu["_id"], range(to_us(last["minute"]) + US_PER_MINUTE, end, US_PER_MINUTE))
                self._store.mark_not_owned(gpu["_id"], silence, end)


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
