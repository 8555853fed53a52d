"""Marks on ledger cells: "events of this GPU and minute were stored, compute it (again)".

A mark may be left out while the cell is known to be due later than now: whoever computes it then
sees the events, which are durable before anybody is asked to mark. Three things make that true, and
break it when changed:

- what is remembered is the cell's own `due_at`, read back after marking. Another process may have
  marked it earlier, and then it is due before the time that was written here;
- nobody takes a cell before its `due_at`, measured on the MongoDB server's clock (two processes may
  read that clock a little differently, hence SAFETY);
- nobody brings a `due_at` forward that was set: every mark writes now + debounce, the closer
  computes and clears it.

A mark is left out only after one of the same process: whoever stored events of a cell is in its
`gen` at least once. Closing relies on that (raw/recent.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from gpu_token_analytics.documents import Collection, GpuMinute, cell_id
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.ledger.document import opened
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import DUPLICATE_KEY, write_command
from gpu_token_analytics.mongo.errors import Document, store_errors

SAFETY = timedelta(seconds=1)
_TRIES = 10
_CHUNK = 1000


class CellMarker:
    """Marks cells, remembering which marks are still ahead. For one thread; bounded by `remembered`
    cells."""

    def __init__(self, store: Store, debounce_seconds: float, remembered: int = 200_000) -> None:
        self._store = store
        self._debounce = timedelta(seconds=debounce_seconds)
        self._remembered = remembered
        self._due: dict[GpuMinute, datetime] = {}

    def mark(self, touched: Iterable[GpuMinute]) -> Sequence[GpuMinute]:
        """Mark every cell that needs it, durably. Returns these, each once: it may have been marked
        more often, after an outage, but not less. Their events must be durable already.

        Raises StoreUnreachable or StoreOutcomeUnknown: call again with the same cells;
        StoreRefused: stop.
        """
        now = self._store.now()
        soon = now + SAFETY
        due = self._due
        cells = [
            cell for cell in dict.fromkeys(touched) if (at := due.get(cell)) is None or at <= soon
        ]
        for start in range(0, len(cells), _CHUNK):
            self._mark(cells[start : start + _CHUNK], now)
        return cells

    def _mark(self, cells: Sequence[GpuMinute], now: datetime) -> None:
        ids = {cell_id(gpu, minute_us): (gpu, minute_us) for gpu, minute_us in cells}
        updates = [_mark_one(name, cell, now, now + self._debounce) for name, cell in ids.items()]
        for _ in range(_TRIES):
            updates = self._write(updates)
            if not updates:
                break
        else:
            raise StoreOutcomeUnknown(
                f"{len(updates)} cells are being created by others again and again"
            )
        self._remember(ids)

    def _write(self, updates: Sequence[Document]) -> list[Document]:
        """Returns the updates to repeat: two processes that create one cell at the same moment
        collide once."""
        failed = write_command(self._store[Collection.LEDGER_CELLS], "update", updates).get(
            "writeErrors", ()
        )
        for error in failed:
            if error["code"] != DUPLICATE_KEY:
                raise StoreRefused(f"MongoDB refused to mark cells: {error.get('errmsg')}")
        return [updates[error["index"]] for error in failed]

    def _remember(self, ids: Mapping[str, GpuMinute]) -> None:
        if self._debounce <= SAFETY:
            return
        with store_errors("read marks back"):
            ahead = self._store[Collection.LEDGER_CELLS].find(
                {"_id": {"$in": list(ids)}, "due_at": {"$exists": True}}, {"due_at": 1}
            )
            due = {ids[cell["_id"]]: cell["due_at"] for cell in ahead}
        if len(self._due) + len(due) > self._remembered:
            self._due.clear()  # forgetting costs a mark, nothing else
        self._due.update(due)


def _mark_one(name: str, cell: GpuMinute, now: datetime, due_at: datetime) -> Document:
    update = {"$inc": {"gen": 1}, "$min": {"due_at": due_at}, "$setOnInsert": opened(*cell, now)}
    return {"q": {"_id": name}, "u": update, "upsert": True}
