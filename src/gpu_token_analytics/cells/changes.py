"""Marks on the cells of changed intervals: "what this cell depends on outside of its minute
changed, compute it again".

A cell that somebody else is computing is marked, too: he may have read before the change, and
writes it as done. Everything here can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.cells.marks import SAFETY
from gpu_token_analytics.documents import US_PER_MINUTE, Collection, GpuId, cell_id, minute_of
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.document import opened
from gpu_token_analytics.ledger.prices import PriceScope, canonical_key
from gpu_token_analytics.ledger.shared import SharedUuids
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import update_many
from gpu_token_analytics.mongo.errors import Document, mapped
from gpu_token_analytics.wire.times import from_us, to_us


class ChangeMarks:
    """Marks and opens cells. Every method raises StoreUnreachable, StoreRefused or
    StoreOutcomeUnknown."""

    def __init__(self, store: Store, debounce_seconds: float) -> None:
        self._now = store.now
        self._debounce = timedelta(seconds=debounce_seconds)
        self._cells = store[Collection.LEDGER_CELLS]

    def mark(self, changes: Iterable[Change], own_lease: str | None = None) -> int:
        """Mark the cells that these changes concern, and open those that are missing; most often
        with one command. Returns how many were opened. own_lease: what the caller took cells under;
        None: he took none."""
        now = self._now()
        outcome = update_many(self._cells, self._statements(changes, own_lease, now))
        # Duplicates: another processor opened them at the same moment.
        outcome.raise_refused("to mark cells")
        return outcome.upserted

    def open(self, gpu: GpuId, minutes_us: Iterable[int]) -> int:
        """Open cells for silent minutes that have none; those that exist are left alone. Returns
        how many were opened."""
        now = self._now()
        outcome = update_many(self._cells, (_opening(gpu, minute, now) for minute in minutes_us))
        outcome.raise_refused("to open cells")
        return outcome.upserted

    @mapped
    def mark_computed_before(self, gpus: Sequence[GpuId], at: datetime) -> None:
        """Mark the cells of these GPUs whose computation may have read something that changed at
        `at`."""
        read_before = {"computed_at": {"$lt": at + SAFETY}}
        where = {"gpu": {"$in": list(gpus)}, "$or": [read_before, _computed_by_others(None)]}
        self._cells.update_many(where, self._touch(self._now()))

    @mapped
    def mark_priced(self, row: Document, shared: SharedUuids, opened_since: datetime) -> int:
        """Mark the cells that a price row can concern, if they were opened since a time. Returns
        how many there are."""
        minute = {"$gte": from_us(minute_of(to_us(row["valid_from"])))}
        if (valid_to := row.get("valid_to")) is not None:
            minute["$lt"] = valid_to
        where = {**_priced_by(row, shared), "opened_at": {"$gte": opened_since}, "minute": minute}
        return self._cells.update_many(where, self._touch(self._now())).matched_count

    def _touch(self, now: datetime) -> Document:
        return {"$inc": {"gen": 1}, "$min": {"due_at": now + self._debounce}}

    def _statements(
        self, changes: Iterable[Change], own_lease: str | None, now: datetime
    ) -> Iterator[Document]:
        for change in changes:
            if change.opens and change.start_us is not None and change.end_us is not None:
                for minute in range(change.start_us, change.end_us, US_PER_MINUTE):
                    yield _opening(change.gpu, minute, now)
            yield {"q": _concerned(change, own_lease), "u": self._touch(now), "multi": True}


def _opening(gpu: GpuId, minute_us: int, now: datetime) -> Document:
    """A cell for a minute that has none; one that exists is left alone."""
    cell = {**opened(gpu, minute_us, now), "gen": 1, "due_at": now}
    return {"q": {"_id": cell_id(gpu, minute_us)}, "u": {"$setOnInsert": cell}, "upsert": True}


def _concerned(change: Change, own_lease: str | None) -> Document:
    """The cells that a change concerns: those that say otherwise, and those of others."""
    minute: Document = {}
    if change.start_us is not None:
        minute["$gte"] = from_us(change.start_us)
    if change.end_us is not None:
        minute["$lt"] = from_us(change.end_us)
    computed = [at for at in change.computed_us if _is_in(at, change)]
    if computed:
        minute["$nin"] = [from_us(at) for at in sorted(computed)]
    where: Document = {"gpu": change.gpu, **({"minute": minute} if minute else {})}
    if change.kind is not ChangeKind.ALL:
        where["$or"] = [_says_otherwise(change), _computed_by_others(own_lease)]
    return where


def _is_in(minute_us: int, change: Change) -> bool:
    return (change.start_us is None or minute_us >= change.start_us) and (
        change.end_us is None or minute_us < change.end_us
    )


def _says_otherwise(change: Change) -> Document:
    match change.kind:
        case ChangeKind.SILENT:
            return {"silent": True}
        case ChangeKind.NOT_OWNED:
            return {"silent": True, "owned_us": 0}
        case ChangeKind.MEMORY:
            return {"memory_unknown_us": {"$gt": 0}}
        case ChangeKind.CARRIED:
            # Of a minute with a sample the part before that is another one: it says nothing of
            # itself.
            return _not_due(
                [*_differs(change, ("host", "gpu_name", "own_price")), {"samples": {"$gt": 0}}]
            )
        case ChangeKind.NAMED:
            return _not_due(_differs(change, ("host", "gpu_name")))
        case _:
            raise ValueError(f"{change.kind} concerns every cell")


def _differs(change: Change, names: Sequence[str]) -> list[Document]:
    if change.carried is None:
        raise ValueError(f"a change of kind {change.kind} says what is carried")
    return [{name: {"$ne": value}} for name, value in zip(names, change.carried, strict=False)]


def _not_due(otherwise: list[Document]) -> Document:
    """One that is due anyway, and nobody's yet, needs no mark."""
    return {"due_at": {"$exists": False}, "$or": otherwise}


def _computed_by_others(own_lease: str | None) -> Document:
    """Cells that somebody else may be computing from what was read before a change: he writes them
    as done, unless they are marked again."""
    return {"lease": {"$exists": True, "$ne": own_lease}}


def _priced_by(row: Document, shared: SharedUuids) -> Document:
    """Which cells a price row can concern."""
    scope = PriceScope(row["scope"])
    key: Any = canonical_key(scope, row.get("key"))
    match scope:
        case PriceScope.GPU:
            cards = [key, *shared.cards(key or "")]
            return {"$or": [{"gpu": {"$in": cards}}, {"card": {"$in": cards}}]}
        case PriceScope.HOST:
            return {"host": key}
        case PriceScope.NAME:
            return {}  # a slice is priced by its card's name, which its own cells do not carry
        case PriceScope.DEFAULT:
            return {}
