"""Cells that the topic does not hold yet, and which process sends them.

    ledger_cells   unsent: true      written with the cell's change, in the same update; taken away
                                     once the topic holds that revision, and only where the cell has
                                     not changed since
    ledger_topic   "lead"            {holder, until}: the process that sends
                   "sweep"           {topic, after, done}: cells from before the topic was switched
                                     on, in order of id

What is to be sent stands in the cells themselves, so a crash at any point leaves it there, and it
is no longer than the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.cells.lines import complete_cells
from gpu_token_analytics.documents import CellId, Collection
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import update_many
from gpu_token_analytics.mongo.errors import each, mapped

LEASE = timedelta(seconds=30)
# of a minute: from its start until nothing more is computed because it was not over
OVER = timedelta(seconds=61)
SWEPT_AT_ONCE = 1000
_BATCH_CELLS = 50  # read at a time: each may have half a megabyte of lines
_LEAD, _SWEEP = "lead", "sweep"

Sent = tuple[CellId, int]  # cell, revision


class Outbox:
    """Reads and writes of what is to be sent. Raises StoreUnreachable, StoreRefused or
    StoreOutcomeUnknown."""

    def __init__(self, store: Store) -> None:
        self._now = store.now
        self._cells = store[Collection.LEDGER_CELLS]
        self._state = store[Collection.LEDGER_TOPIC]
        self._chunks = LineChunks(store.database)

    # -- who sends ---------------------------------------------------------------------------------

    @mapped
    def lead(self, holder: str) -> bool:
        """Take the lead for LEASE, or keep it. False: another process has it.

        It saves work only: that no two write at once is Kafka's to see to
        (kafka/ledger_topic.py)."""
        now = self._now()
        free = {"_id": _LEAD, "$or": [{"holder": holder}, {"until": {"$lt": now}}]}
        try:
            self._state.update_one(
                free, {"$set": {"holder": holder, "until": now + LEASE}}, upsert=True
            )
        except DuplicateKeyError:
            return False
        return True

    @mapped
    def leave(self, holder: str) -> None:
        """Give the lead back, so that another process need not wait for it to run out."""
        self._state.delete_one({"_id": _LEAD, "holder": holder})

    # -- what is to be sent ------------------------------------------------------------------------

    @mapped
    def unsent(self, limit: int) -> Iterator[CellDocument]:
        """Up to `limit` cells that the topic does not hold, of minutes that are over, the oldest
        first, with all their lines, one at a time."""
        where = {"unsent": True, "minute": {"$lte": self._now() - OVER}}
        cells = (
            self._cells.find(where).sort("minute", ASCENDING).limit(limit).batch_size(_BATCH_CELLS)
        )
        return complete_cells(self._chunks, self._cells, each(cells))

    @mapped
    def oldest_seconds(self) -> float:
        """For how long the unsent cell of the oldest minute has been computed; 0: there is none."""
        now = self._now()
        where = {"unsent": True, "minute": {"$lte": now - OVER}}
        oldest = self._cells.find_one(where, {"computed_at": 1}, sort=[("minute", ASCENDING)])
        return 0.0 if oldest is None else max(0.0, (now - oldest["computed_at"]).total_seconds())

    @mapped
    def sent(self, cells: Sequence[Sent]) -> None:
        """The topic holds these revisions. A cell that has changed since stays unsent."""
        update_many(
            self._cells,
            (
                {"q": {"_id": cell, "revision": revision}, "u": {"$unset": {"unsent": ""}}}
                for cell, revision in cells
            ),
        )

    # -- what was there before ---------------------------------------------------------------------

    @mapped
    def sweep(self, topic: str) -> int:
        """Add some cells from before the topic was switched on, in order of id. Returns how many;
        0: all were added."""
        at = self._state.find_one({"_id": _SWEEP, "topic": topic}) or {"after": "", "done": False}
        if at["done"]:
            return 0
        where = {"_id": {"$gt": at["after"]}, "revision": {"$gt": 0}}
        page = [
            cell["_id"]
            for cell in self._cells.find(where, {"_id": 1})
            .sort("_id", ASCENDING)
            .limit(SWEPT_AT_ONCE)
        ]
        if page:
            self._cells.update_many({"_id": {"$in": page}}, {"$set": {"unsent": True}})
        # Afterwards: a crash before adds the page again, which changes nothing.
        state = {"topic": topic, "after": page[-1] if page else at["after"], "done": not page}
        self._state.replace_one({"_id": _SWEEP}, state, upsert=True)
        return len(page)

    @mapped
    def forget(self) -> None:
        """Nobody notes from here on what is to be sent: whoever switches the topic on again sweeps
        from the beginning."""
        self._state.delete_one({"_id": _SWEEP})
