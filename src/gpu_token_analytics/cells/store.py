"""Ledger cells in the store: take those that are due, write what was computed, mark what has to be
computed again.

Safety rests on two guards, not on leases: a cell is written only where `done_gen <= gen` that was
read before its events, and only over the revision it was computed against. Times in `due_at` and
leases are the MongoDB server's clock.

No `due_at` is ever brought forward: every mark writes now + debounce, because ingest leaves a mark
out while the one it knows of is still ahead (marks.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, cast

from pymongo import ASCENDING, DESCENDING

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.cells.lines import are_many, complete_cells, put_lines
from gpu_token_analytics.documents import CellId, CellState, Collection, GpuId, GpuMinute, cell_id
from gpu_token_analytics.ledger.document import (
    CHUNKED_FIELDS,
    TAKEN_FIELDS,
    CellDocument,
    projection,
)
from gpu_token_analytics.mongo.aside import Aside
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import by_bytes, update_many
from gpu_token_analytics.mongo.errors import Document, each, mapped
from gpu_token_analytics.wire.times import from_us, to_us

Version: TypeAlias = tuple[int, datetime | None]

LEASE_SECONDS = 60
_BATCH_CELLS = 100  # whole cells read at a time: each may have half a megabyte of lines
# times as long as others wait for the idle, they wait for those who have cells of their own
_LONGER = 12
_LOOKED_AT = 4  # times as many as are taken, to find one's own among others'
LIVE = timedelta(minutes=10)  # minutes younger than this are live: their costs are being watched
# of this many due cells taken, one is of history, however many live ones there are
HISTORY_SHARE = 4
_TAKEN_BY = projection(("gpu", "minute", "due_at"))
_TAKEN = projection(TAKEN_FIELDS)
_STATE = projection(("silent", "revision", "due_at", "lease"))
# per GPU, on average: in order there is one, of the minute that has begun, and none before the
# first
LATER_CELLS = 5


def version_of(cell: CellDocument) -> Version:
    """What is another one whenever a cell was touched or computed."""
    return cell["gen"], cell.get("computed_at")


def is_live(cell: CellDocument, now: datetime) -> bool:
    """Whether a cell is of a minute that is being watched."""
    return cell["minute"] >= now - LIVE


def _live_and_history(
    cells: Iterable[CellDocument], now: datetime
) -> tuple[list[CellDocument], list[CellDocument]]:
    live: list[CellDocument] = []
    history: list[CellDocument] = []
    for cell in cells:
        (live if is_live(cell, now) else history).append(cell)
    return live, history


@dataclass(frozen=True)
class CellWrite:
    """One computed cell. `due_again_at`: null when nothing more is expected; set for a minute that
    is not over."""

    cell: str
    gen: int
    revision: int
    changes: Document  # fields to set; {} when the content is what is stored already
    due_again_at: datetime | None = None
    replaces: str | None = None  # the token of the chunks that hold the lines of the stored content

    @property
    def changed(self) -> bool:
        """Whether the content is another one than the stored."""
        return "content" in self.changes


class CellStore:
    """Reads and writes of `ledger_cells`. Every method raises StoreUnreachable, StoreRefused or
    StoreOutcomeUnknown."""

    def __init__(
        self, store: Store, debounce_seconds: float, *, noting_unsent: bool = False
    ) -> None:
        """noting_unsent: whether changed cells are to be sent to the ledger's topic
        (warehouse/outbox.py)."""
        self.now = store.now
        self._noting_unsent = noting_unsent
        self._debounce = timedelta(seconds=debounce_seconds)
        self._cells = store[Collection.LEDGER_CELLS]
        self._chunks = LineChunks(store.database, store.now)
        self.aside = Aside(store.database, store.now)

    # -- due cells ---------------------------------------------------------------------------------

    @mapped
    def take_due(
        self, limit: int, mine: Set[GpuId] | None = None, others_wait: timedelta = timedelta()
    ) -> list[CellDocument]:
        """Lease up to `limit` due cells. Their `gen` is read before any event is.

        Live minutes come first (LIVE), then history; each longest due first. History always gets
        its share, else a fleet that keeps a processor busy would never see a price of last month
        (docs/decisions/0023).

        mine: GPUs whose cells come first. Cells of other GPUs are taken when they have been due for
        `others_wait`; while there are cells of one's own, for longer, but not for ever.
        """
        now = self.now()
        due: Document = {
            "due_at": {"$lte": now},
            "$or": [{"lease_until": {"$exists": False}}, {"lease_until": {"$lt": now}}],
        }
        many = limit if mine is None else _LOOKED_AT * limit
        waiting = self._listed(
            self._cells.find(due, _TAKEN_BY).sort("due_at", ASCENDING).limit(many)
        )
        live, history = _live_and_history(waiting, now)
        if len(waiting) == many:
            # A backlog: live minutes may be due behind it. Few cells are that young, and their
            # index finds them.
            young = self._cells.find({"minute": {"$gte": now - LIVE}, **due}, _TAKEN_BY).hint(
                [("minute", ASCENDING)]
            )
            live = self._listed(young.sort("due_at", ASCENDING).limit(many))
            if not history:
                old = self._cells.find({"minute": {"$lt": now - LIVE}, **due}, _TAKEN_BY)
                history = self._listed(old.sort("due_at", ASCENDING).limit(limit))
        if mine is not None:
            busy = any(cell["gpu"] in mine for cell in (*live, *history))
            overdue = now - others_wait * (_LONGER if busy else 1)
            live, history = (
                [cell for cell in cells if cell["gpu"] in mine or cell["due_at"] <= overdue]
                for cells in (live, history)
            )
        share = min(len(history), max(1, limit // HISTORY_SHARE, limit - len(live)))
        taken = live[: limit - share] + history[:share]
        if not taken:
            return []
        lease = secrets.token_hex(8)
        ids = {"_id": {"$in": [cell["_id"] for cell in taken]}}
        self._cells.update_many(
            {**ids, **due},
            {"$set": {"lease_until": now + timedelta(seconds=LEASE_SECONDS), "lease": lease}},
        )
        return self._listed(self._cells.find({**ids, "lease": lease}, _TAKEN))

    @staticmethod
    def _listed(cells: Iterable[Document]) -> list[CellDocument]:
        return cast("list[CellDocument]", list(cells))

    @mapped
    def count_due(self) -> int:
        """Cells that wait to be computed, their debounce included."""
        return self._cells.count_documents({"due_at": {"$exists": True}})

    @mapped
    def count_overdue(self) -> int:
        """Cells that could be computed now."""
        return self._cells.count_documents({"due_at": {"$lte": self.now()}})

    @mapped
    def write(self, writes: Sequence[CellWrite]) -> int:
        """Write computed cells where nobody was faster; a cell touched meanwhile stays due. Returns
        how many were taken.

        What MongoDB refuses for good is set aside, and is due no more until it is touched again.
        """
        if not writes:
            return 0
        chunked = {
            write.cell: write
            for write in writes
            if write.changed and are_many(write.changes["lines"])
        }
        fields = {
            name: put_lines(self._chunks, name, write.changes["lines"])
            for name, write in chunked.items()
        }
        outcome = update_many(
            self._cells, (self._write_one(write, fields.get(write.cell)) for write in writes)
        )
        tokens = {name: str(put["chunks"]) for name, put in fields.items()}
        self._drop_replaced(
            [write for write in writes if write.cell in tokens or write.replaces], tokens
        )
        refused = {writes[index].cell: why for index, why in outcome.refused.items()}
        self.aside.clear(
            Collection.LEDGER_CELLS, (write.cell for write in writes if write.cell not in refused)
        )
        for index in outcome.refused:
            self._set_aside(writes[index], refused[writes[index].cell])
        return outcome.matched

    def _drop_replaced(self, writes: Sequence[CellWrite], tokens: Mapping[str, str]) -> None:
        """Of cells that have or had lines in chunks: remove those that no cell refers to now."""
        if not writes:
            return
        cells = self._cells.find(
            {"_id": {"$in": [write.cell for write in writes]}}, {"chunks": 1, "revision": 1}
        )
        now = {cell["_id"]: cell for cell in cells}
        for write in writes:
            cell, token = now.get(write.cell, {}), tokens.get(write.cell)
            if token is not None and cell.get("chunks") != token:
                self._chunks.drop([token])  # somebody was faster
            elif (
                write.changed
                and cell.get("revision") == write.changes["revision"]
                and cell.get("chunks") == token
            ):
                self._chunks.drop([write.replaces])

    def _set_aside(self, write: CellWrite, why: str) -> None:
        self.aside.put(Collection.LEDGER_CELLS, write.cell, why)
        # Not due, but not done: a mark makes it due again, and the audit sees that it is behind.
        untouched = {"_id": write.cell, "gen": write.gen, "revision": write.revision}
        self._cells.update_one(
            untouched, {"$unset": {"due_at": "", "lease": "", "lease_until": ""}}
        )

    @mapped
    def look_after_set_aside(self) -> int:
        """Try again what was set aside an hour ago. Returns how many documents are."""
        names = self.aside.to_retry(Collection.LEDGER_CELLS)
        if names:
            self.mark_existing(names)
        return self.aside.refresh()

    def _touch(self) -> Document:
        return {"$inc": {"gen": 1}, "$min": {"due_at": self.now() + self._debounce}}

    def _write_one(self, write: CellWrite, chunked: Document | None) -> Document:
        again: Any = "$$REMOVE" if write.due_again_at is None else write.due_again_at
        touched = self.now() + self._debounce
        # $literal: field values are data; a model named "$x" must not become an expression.
        changes = write.changes if chunked is None else {**write.changes, **chunked}
        fields: Document = {name: {"$literal": value} for name, value in changes.items()}
        if chunked is not None:
            fields["lines"] = "$$REMOVE"
        elif write.replaces is not None and write.changed:
            fields |= dict.fromkeys(CHUNKED_FIELDS, "$$REMOVE")
        if self._noting_unsent and write.changed:
            fields["unsent"] = True
        fields["done_gen"] = write.gen
        fields["due_at"] = {"$cond": [{"$eq": ["$gen", write.gen]}, again, touched]}
        fields["lease_until"] = fields["lease"] = "$$REMOVE"
        # `done_gen <= gen`: a cell may be due again without a new mark, because its minute was not
        # over.
        guard = {"_id": write.cell, "revision": write.revision, "done_gen": {"$lte": write.gen}}
        return {"q": guard, "u": [{"$set": fields}]}

    @mapped
    def contents(self, ids: Iterable[CellId]) -> dict[CellId, CellDocument]:
        """Whole cell documents by id, all their lines included."""
        cells = self._cells.find({"_id": {"$in": list(ids)}})
        return {cell["_id"]: cell for cell in complete_cells(self._chunks, self._cells, cells)}

    @mapped
    def finalise(self) -> int:
        """Turn cells whose time is over from provisional to final. Returns how many."""
        return self._cells.update_many(
            {
                "state": CellState.PROVISIONAL,
                "final_at": {"$lte": self.now()},
                "due_at": {"$exists": False},
            },
            {"$set": {"state": CellState.FINAL.value}},
        ).modified_count

    # -- marks -------------------------------------------------------------------------------------

    @mapped
    def mark_existing(self, ids: Sequence[str]) -> None:
        """Mark cells that exist as touched; ids without a cell are left out."""
        for some in by_bytes(ids):
            self._cells.update_many({"_id": {"$in": some}}, self._touch())

    # -- reads -------------------------------------------------------------------------------------

    @mapped
    def states(self, cells: Iterable[GpuMinute]) -> dict[GpuMinute, CellDocument]:
        """Those of these cells that exist: {silent, revision, due_at, lease}."""
        ids = {cell_id(gpu, minute): (gpu, minute) for gpu, minute in cells}
        if not ids:
            return {}
        states = self._listed(self._cells.find({"_id": {"$in": list(ids)}}, _STATE))
        return {ids[cell["_id"]]: cell for cell in states}

    @mapped
    def versions(self, ids: Iterable[str]) -> dict[str, Version]:
        """The version of each of these cells; those that do not exist are left out."""
        cells = self._listed(
            self._cells.find({"_id": {"$in": list(ids)}}, {"gen": 1, "computed_at": 1})
        )
        return {cell["_id"]: version_of(cell) for cell in cells}

    @mapped
    def is_changing(self, since: datetime) -> bool:
        """Whether any cell is due or was computed since. May look at all of them."""
        changing = {"$or": [{"due_at": {"$exists": True}}, {"computed_at": {"$gte": since}}]}
        return self._cells.find_one(changing, {"_id": 1}) is not None

    @mapped
    def minutes_after(self, last_us: Mapping[GpuId, int]) -> dict[GpuId, list[int]]:
        """The minutes of the cells that each GPU has after a minute, from the index alone; {} where
        there are too many to be read."""
        limit = LATER_CELLS * len(last_us)
        where = {"gpu": {"$in": sorted(last_us)}, "minute": {"$gt": from_us(min(last_us.values()))}}
        cells = list(self._cells.find(where, {"_id": 0, "gpu": 1, "minute": 1}).limit(limit))
        if len(cells) == limit:
            return {}
        later: dict[GpuId, list[int]] = {gpu: [] for gpu in last_us}
        for cell in cells:
            if (minute := to_us(cell["minute"])) > last_us[cell["gpu"]]:
                later[cell["gpu"]].append(minute)
        return later

    @mapped
    def count_cells(self, gpu: GpuId, start_us: int, end_us: int) -> int:
        """How many cells a GPU has in [start, end)."""
        return self._cells.count_documents(
            {"gpu": gpu, "minute": {"$gte": from_us(start_us), "$lt": from_us(end_us)}}
        )

    @mapped
    def last_heard(self, gpu: GpuId) -> datetime | None:
        """The newest minute of a GPU that was computed with evidence in it."""
        cell = self._cells.find_one(
            {"gpu": gpu, "silent": False}, {"minute": 1}, sort=[("minute", DESCENDING)]
        )
        return None if cell is None else cell["minute"]

    @mapped
    def cells_of(
        self, gpu: GpuId, start: datetime | None, end: datetime | None
    ) -> Iterable[CellDocument]:
        """The cells of one GPU with start <= minute < end, in time order, all their lines included;
        one at a time."""
        minute = {key: value for key, value in (("$gte", start), ("$lt", end)) if value is not None}
        cells = self._cells.find({"gpu": gpu, **({"minute": minute} if minute else {})}).sort(
            "minute", ASCENDING
        )
        return complete_cells(self._chunks, self._cells, each(cells.batch_size(_BATCH_CELLS)))

    @mapped
    def cell_gpus(self) -> list[GpuId]:
        """Every GPU that has a cell."""
        return list(self._cells.distinct("gpu"))
