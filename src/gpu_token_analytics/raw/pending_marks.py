"""Marks that are left for later: the cells of records that reach too far for their batch.

A request may name a hundred GPUs and last for hours; three hundred of them touch two million cells.
Marked with their batch they would hold up every sender whose records come after them. So what a
batch touches beyond BATCH_MAX_CELLS is written down here, one document a record, before the batch
is committed, and closing marks it in pieces, short spans first.

    event durable -> document here durable -> offsets committed ... piece marked -> progress noted
    ... document removed

Whatever dies in between, the document says what is still to be marked; a piece marked twice only
says "look again" twice. These marks are nobody's in recent.py: a cell that has one is computed from
what is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from gpu_token_analytics.books.gpu_names import meanings_of
from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    Collection,
    GpuMinute,
    minute_of,
    touched_minutes,
)
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import update_many
from gpu_token_analytics.mongo.errors import Document, mapped
from gpu_token_analytics.raw.reach import Reach

_READ_AT_ONCE = 500


class PendingMarks:
    """Reaches that wait to be marked. Every method raises StoreUnreachable, StoreRefused or
    StoreOutcomeUnknown."""

    def __init__(self, store: Store, debounce_seconds: float) -> None:
        self._store, self._rows = store, store[Collection.PENDING_MARKS]
        self._debounce_seconds = debounce_seconds

    @mapped
    def put(self, reaches: Iterable[Reach]) -> None:
        """Write them down; what is there already begins anew, since another event may be behind it.
        Can be repeated."""
        now = self._store.now()
        statements: list[Document] = []
        for reach in reaches:
            minutes = touched_minutes(reach.start_us, reach.end_us)
            fields = {
                "names": list(reach.names),
                "next_us": minutes.start,
                "end_us": minutes[-1] + US_PER_MINUTE,
                "ended_us": reach.ended_us,
                "cells": len(minutes) * len(reach.names),
            }
            update = {"$set": fields, "$inc": {"version": 1}, "$setOnInsert": {"at": now}}
            statements.append({"q": {"_id": _name(reach)}, "u": update, "upsert": True})
        if statements:
            update_many(self._rows, statements).raise_refused("to write down marks")

    @mapped
    def mark(self, most_cells: int) -> int:
        """Mark a piece of about so many cells, and note it. Returns how many were marked; 0:
        nothing waits."""
        marker = CellMarker(self._store, self._debounce_seconds)
        left = most_cells
        for row in list(self._rows.find().sort("cells").limit(_READ_AT_ONCE)):
            if left <= 0:
                break
            minutes = max(1, left // len(row["names"]))
            until_us = min(row["end_us"], row["next_us"] + minutes * US_PER_MINUTE)
            cells = self._cells(row, until_us)
            marker.mark(cells)
            left -= len(cells)
            # By its version: put again meanwhile, it begins anew.
            noted = {"_id": row["_id"], "version": row["version"]}
            if until_us == row["end_us"]:
                self._rows.delete_one(noted)
            else:
                cells_left = (row["end_us"] - until_us) // US_PER_MINUTE * len(row["names"])
                self._rows.update_one(noted, {"$set": {"next_us": until_us, "cells": cells_left}})
        return most_cells - left

    def _cells(self, row: Document, until_us: int) -> list[GpuMinute]:
        """Names are looked up now, after the event was stored: what is learned later is `pending`
        (ingest/settle.py)."""
        placements = meanings_of(self._store, row["names"])
        meant = [placements.resolve(name, row["ended_us"]) for name in row["names"]]
        gpus = sorted({*meant, *(name for name in row["names"] if "/" not in name)})
        return [
            (gpu, minute_us)
            for minute_us in range(row["next_us"], until_us, US_PER_MINUTE)
            for gpu in gpus
        ]

    @mapped
    def count(self, start_us: int | None = None, end_us: int | None = None) -> int:
        """Cells that wait to be marked, in the minutes that begin in [start, end)."""
        first = "$next_us" if start_us is None else {"$max": ["$next_us", _minute_from(start_us)]}
        end = "$end_us" if end_us is None else {"$min": ["$end_us", _minute_from(end_us)]}
        minutes = {"$max": [0, {"$divide": [{"$subtract": [end, first]}, US_PER_MINUTE]}]}
        cells = {"$sum": {"$multiply": [minutes, {"$size": "$names"}]}}
        counted = list(self._rows.aggregate([{"$group": {"_id": None, "cells": cells}}]))
        return int(counted[0]["cells"]) if counted else 0

    @mapped
    def waiting(self, minutes_us: Iterable[int]) -> set[int]:
        """Those of these minutes in which a cell, of whatever GPU, waits to be marked."""
        asked = {minute_of(at) for at in minutes_us}
        if not asked:
            return set()
        meeting = {"next_us": {"$lte": max(asked)}, "end_us": {"$gt": min(asked)}}
        spans = list(self._rows.find(meeting, {"_id": 0, "next_us": 1, "end_us": 1}))
        return {at for at in asked if any(span["next_us"] <= at < span["end_us"] for span in spans)}


def _minute_from(at_us: int) -> int:
    """The start of the first minute that begins then or later."""
    return -minute_of(-at_us)


def _name(reach: Reach) -> bytes:
    """16 bytes. Of UUIDs it does not matter when the request ended."""
    ended = reach.ended_us if any("/" in name for name in reach.names) else 0
    minutes = touched_minutes(reach.start_us, reach.end_us)
    text = "\n".join((*reach.names, str(minutes.start), str(minutes[-1]), str(ended)))
    return blake2b(text.encode(), digest_size=16).digest()
