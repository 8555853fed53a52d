"""Placements of serving instances: on which GPUs an engine runs, and from when on. Listed and
appended, never edited.

    {_id, instance, gpus, host, model, counted_by, valid_from, valid_to, created_at, source}

What a row means: sources/instances.py. Asked when what sources send becomes events; cells never
ask, their events name the GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pymongo import DESCENDING, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreUnreachable
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement
from gpu_token_analytics.wire.identity import new_event_id
from gpu_token_analytics.wire.times import to_us

Document = dict[str, Any]
KNOWN_SECONDS = 5.0
_log = logging.getLogger(__name__)

_SAID = ("instance", "gpus", "host", "model", "counted_by", "valid_from", "valid_to")


class InstanceStore:
    """Lists and appends placements."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._placements = database.get_collection(
            Collection.PLACEMENTS.value, write_concern=WriteConcern("majority")
        )
        self._timeout_ms = timeout_ms

    def rows(self) -> list[Document]:
        """All rows, newest valid_from first."""
        order = [("valid_from", DESCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        return list(self._placements.find({}, max_time_ms=self._timeout_ms).sort(order))

    def book(self) -> InstanceBook:
        """All rows, ready to be asked."""
        return InstanceBook(map(InstancePlacement.of, self.rows()))

    def append(
        self,
        said: Sequence[Document],
        *,
        created_at: datetime,
        source: str,
        changes_only: bool = False,
    ) -> list[Document]:
        """Append rows of canonical names, in this order; one that says what was said last of its
        instance from that time on is left out, so that a file can be imported again. Returns the
        appended ones.

        changes_only: left out is also what holds at its time anyway, and what a row does not say
        (model, counted_by) stays as it was: for a sender that looks again and again, and knows no
        more than which GPUs there are.
        """
        stored = self.rows()
        last = {_since(row): {name: row[name] for name in _SAID} for row in reversed(stored)}
        book = InstanceBook(map(InstancePlacement.of, stored)) if changes_only else None
        rows: list[Document] = []
        for told in said:
            fields = told
            if book is not None:
                held = book.at([told["instance"]], to_us(told["valid_from"]))
                fields = _with_what_stays(told, held)
                if _holds(fields, held):
                    continue
            if last.get(_since(fields)) == fields:
                continue
            last[_since(fields)] = fields
            row = {"_id": new_event_id(), **fields, "created_at": created_at, "source": source}
            rows.append(row)
            if book is not None:
                book.add(InstancePlacement.of(row))
        if rows:
            self._placements.insert_many(rows, ordered=True)
        return rows


def _holds(fields: Document, held: InstancePlacement | None) -> bool:
    if held is None or not held.gpus:
        return not fields["gpus"]
    said = tuple(fields["gpus"]), fields["host"], fields["model"], fields["counted_by"]
    return said == (held.gpus, held.host, held.model, held.counted_by.value)


def _with_what_stays(fields: Document, held: InstancePlacement | None) -> Document:
    if held is None:
        return fields
    counted_by = (
        held.counted_by.value if fields["counted_by"] == CountedBy.ANY else fields["counted_by"]
    )
    return {**fields, "model": fields["model"] or held.model, "counted_by": counted_by}


class KnownPlacements:
    """All rows as they were read lately: for whoever asks again and again. For one thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._book = InstanceBook()
        self._read_at: float | None = None

    def book(self) -> InstanceBook:
        """The rows as they were at most KNOWN_SECONDS ago; in an outage as they were before it."""
        now = self._clock.monotonic()
        if self._read_at is None or now >= self._read_at + KNOWN_SECONDS:
            try:
                with store_errors("read placements"):
                    self._book = InstanceStore(self._store.database).book()
            except (StoreUnreachable, StoreOutcomeUnknown) as error:
                _log.warning(
                    "placements are those of %s: %s",
                    "nobody yet" if self._read_at is None else "before",
                    error,
                )
            self._read_at = now
        return self._book


def _since(row: Document) -> tuple[str, datetime]:
    return row["instance"], row["valid_from"]
