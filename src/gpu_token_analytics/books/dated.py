"""Books whose rows say what holds of a key since when: append-only; a row holds until its key's
next one.

    {_id, ...what it says..., valid_from, created_at, source}

Of rows that begin at once the one written last holds. Teams, owners and exchange rates are such
books.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, ClassVar, Generic, TypeVar

from pymongo import DESCENDING, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.errors import mapped
from gpu_token_analytics.wire.identity import new_event_id

Document = dict[str, Any]
K = TypeVar("K", bound=Hashable)
MAX_ROWS = 2_000  # of a book: each is read whole


class TooManyRows(Exception):
    """The book has MAX_ROWS rows already."""


class DatedBook(Generic[K]):
    """What held of every key at any time."""

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], key_of: Callable[[Mapping[str, Any]], K]
    ) -> None:
        self._rows: dict[K, list[Mapping[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: (row["valid_from"], row["created_at"], row["_id"])):
            self._rows.setdefault(key_of(row), []).append(row)

    @property
    def keys(self) -> list[K]:
        """Every key that has a row."""
        return list(self._rows)

    def row_at(self, key: K, at: datetime) -> Mapping[str, Any] | None:
        """The row that holds of a key then."""
        holding = None
        for row in self._rows.get(key, ()):
            if row["valid_from"] > at:
                break
            holding = row
        return holding

    def borders(self, start: datetime, end: datetime) -> set[datetime]:
        """When inside (start, end) a row of any key begins."""
        return {
            row["valid_from"]
            for rows in self._rows.values()
            for row in rows
            if start < row["valid_from"] < end
        }

    def pieces(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """[start, end) cut where a row begins: within a piece nothing changes."""
        return pieces(start, end, self.borders(start, end))


def pieces(
    start: datetime, end: datetime, borders: Iterable[datetime]
) -> list[tuple[datetime, datetime]]:
    """[start, end) cut at borders inside it."""
    cuts = [start, *sorted(borders), end]
    return [(low, high) for low, high in pairwise(cuts) if low < high]


class DatedStore:
    """Lists and appends rows of the book of a collection, which a subclass names. Raises
    StoreError."""

    collection: ClassVar[Collection]

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._rows = database.get_collection(
            self.collection.value, write_concern=WriteConcern("majority")
        )
        self._timeout_ms = timeout_ms

    @mapped
    def rows(self) -> list[Document]:
        """All rows, newest valid_from first."""
        order = [("valid_from", DESCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        return list(self._rows.find({}, max_time_ms=self._timeout_ms).sort(order))

    @mapped
    def append(
        self, said: Mapping[str, Any], *, valid_from: datetime, created_at: datetime, source: str
    ) -> Document:
        """Append a row that says `said`. source: who says so (`api`, `cli`). Raises TooManyRows."""
        if self._rows.count_documents({}, limit=MAX_ROWS, maxTimeMS=self._timeout_ms) >= MAX_ROWS:
            raise TooManyRows
        dated = {"valid_from": valid_from, "created_at": created_at, "source": source}
        row: Document = {"_id": new_event_id(), **said, **dated}
        self._rows.insert_one(row)
        return row
