"""Rollups: sums of cells per hour and per day, so that a month is read from 30 documents and not from 2.8 million.

    ledger_cells --(gpu, hour)--> hourly gpu --(hour)--> hourly fleet --(day)--> daily fleet
                                             --(gpu, day)--> daily gpu

What the documents hold: rollup_documents.py.

Why this is exact after any crash and with several writers:
    1 a whole document is always recomputed from all its parts, never incremented
    2 `version` = sum of the parts' versions: it grows with every change of a part, and an older version never overwrites
    3 `seen` is a digest of the parts' versions. A part is called rolled only when the stored document holds exactly what
      was read (same version, same `seen`): two writers that each read half of two changes get the same version with
      different content, and then the parts stay dirty and are read again
    4 a part is marked rolled after its parents are stored, and only where it is unchanged
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReadPreference, WriteConcern
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from gpu_token_analytics.documents import Collection, GpuId
from gpu_token_analytics.store.commands import by_bytes, update_many
from gpu_token_analytics.store.rollup_documents import Document, fleet, gpu_day, gpu_hour, rollup_id
from gpu_token_analytics.store.spans import DAY, HOUR

OLDEST_SHARE = 4  # of this many dirty documents taken, one is of the oldest

_CELL_FIELDS = dict.fromkeys(
    (
        "gpu",
        "minute",
        "host",
        "gpu_name",
        "state",
        "revision",
        "final_at",
        "cost_nusd",
        "owned_us",
        "classes",
        "class_us",
        "energy_mj",
        "energy_observed_us",
        "lines",
        "price.mode",
        "corrections.revision",
    ),
    1,
)

# What a day is made from. Not the halves and totals of its hours: they are more than half of what is stored.
_SUMS = ("space", "lines")
_GPU_HOUR_FIELDS = dict.fromkeys(
    ("version", "final_at", *(f"places.{name}" for name in ("host", "gpu_name", "price_mode", *_SUMS))), 1
)
_FLEET_HOUR_FIELDS = dict.fromkeys(("version", "final_at", *_SUMS), 1)


class RollupStore:
    """Reads and writes of the rollups. Everything majority, primary: a stale read must not look newer than it is."""

    def __init__(self, database: Database[Document]) -> None:
        def collection(name: Collection) -> MongoCollection[Document]:
            return database.get_collection(
                name.value,
                write_concern=WriteConcern("majority"),
                read_concern=ReadConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )

        self._cells = collection(Collection.LEDGER_CELLS)
        self._hourly = collection(Collection.ROLLUPS_HOURLY)
        self._daily = collection(Collection.ROLLUPS_DAILY)

    def dirty_gpu_hours(self, limit: int) -> list[tuple[GpuId, datetime]]:
        """Up to `limit` dirty cells, as the distinct (GPU, hour) they lie in: newest first, then a part of the oldest."""
        found = _from_both_ends(self._cells, {"rolled": False}, {"_id": 0, "gpu": 1, "minute": 1}, "minute", limit)
        return list(dict.fromkeys((cell["gpu"], hour_of(cell["minute"])) for cell in found))

    def roll_gpu_hours(self, gpu_hours: Iterable[tuple[GpuId, datetime]]) -> None:
        """Recompute these hourly GPU documents from their cells, then mark the cells rolled."""
        documents: list[Document] = []
        read: dict[str, list[Document]] = {}
        for gpu, hour in gpu_hours:
            # Cell ids are ordered by minute: the hour is one range of the _id index. ":" + 1 is ";".
            prefix = f"{gpu}|{hour:%Y-%m-%dT%H}"
            cells = list(self._cells.find({"_id": {"$gte": prefix + ":", "$lt": prefix + ";"}}, _CELL_FIELDS))
            document = gpu_hour(gpu, hour, cells)
            documents.append(document)
            read[document["_id"]] = cells
        stored = self._store(self._hourly, documents)
        self._mark_cells(cell for id_ in stored for cell in read[id_])

    def dirty_hours(self, scope: str, limit: int) -> list[Document]:
        """Up to `limit` hourly documents of a scope whose parents do not hold them yet: {_id, gpu?, start, version}, newest
        first, then a part of the oldest."""
        where = {"rolled": False, "scope": scope}
        return _from_both_ends(self._hourly, where, {"gpu": 1, "start": 1, "version": 1}, "start", limit)

    def roll_fleet_hours(self, hours: Iterable[datetime]) -> set[datetime]:
        """Recompute fleet hours from their GPU hours. Returns those that are stored."""
        built = {hour: fleet(hour, HOUR, self._hourly.find({"scope": "gpu", "start": hour})) for hour in sorted(set(hours))}
        stored = self._store(self._hourly, list(built.values()))
        return {hour for hour, document in built.items() if document["_id"] in stored}

    def roll_gpu_days(self, gpu_days: Iterable[tuple[GpuId, datetime]]) -> set[tuple[GpuId, datetime]]:
        """Recompute daily GPU documents from their hours. Returns those that are stored."""
        built = {}
        for gpu, day in sorted(set(gpu_days)):
            ids = [rollup_id("gpu", gpu, day + hour * HOUR, HOUR) for hour in range(24)]
            built[gpu, day] = gpu_day(gpu, day, self._hourly.find({"_id": {"$in": ids}}, _GPU_HOUR_FIELDS))
        stored = self._store(self._daily, list(built.values()))
        return {key for key, document in built.items() if document["_id"] in stored}

    def roll_fleet_days(self, days: Iterable[datetime]) -> set[datetime]:
        """Recompute fleet days from their fleet hours. Returns those that are stored."""
        built = {}
        for day in sorted(set(days)):
            ids = [rollup_id("fleet", None, day + hour * HOUR, HOUR) for hour in range(24)]
            built[day] = fleet(day, DAY, self._hourly.find({"_id": {"$in": ids}}, _FLEET_HOUR_FIELDS))
        stored = self._store(self._daily, list(built.values()))
        return {day for day, document in built.items() if document["_id"] in stored}

    def mark_rolled(self, hours: Sequence[Document]) -> None:
        """These hourly documents are in their parents, unless they changed since they were listed."""
        where = ({"_id": hour["_id"], "version": hour["version"]} for hour in hours)
        update_many(self._hourly, [{"q": one, "u": {"$set": {"rolled": True}}} for one in where])

    def _store(self, into: MongoCollection[Document], documents: Sequence[Document]) -> set[str]:
        """Write documents where theirs is a newer version. Returns the ids whose stored content is exactly ours."""
        if not documents:
            return set()
        statements: list[Document] = [
            {
                "q": {"_id": document["_id"], "version": {"$lt": document["version"]}},
                "u": {"$set": document},
                "upsert": True,
            }
            for document in documents
        ]
        # Duplicates: the stored version is as new or newer, not ours to overwrite.
        update_many(into, statements).raise_refused("sums of cells")
        seen = {document["_id"]: document["seen"] for document in documents}
        found = into.find({"_id": {"$in": list(seen)}}, {"seen": 1})
        return {document["_id"] for document in found if document["seen"] == seen[document["_id"]]}

    def _mark_cells(self, cells: Iterable[Mapping[str, Any]]) -> None:
        groups: dict[tuple[int, str], list[str]] = {}
        for cell in cells:
            groups.setdefault((cell["revision"], cell["state"]), []).append(cell["_id"])
        statements: list[Document] = [
            {
                "q": {"_id": {"$in": some}, "rolled": False, "revision": revision, "state": state},
                "u": {"$set": {"rolled": True}},
                "multi": True,
            }
            for (revision, state), ids in groups.items()
            for some in by_bytes(ids)
        ]
        update_many(self._cells, statements)


def _from_both_ends(
    collection: MongoCollection[Document], where: Document, fields: Document, by: str, limit: int
) -> list[Document]:
    """Up to `limit` documents: what is watched first, and history never stands still (decision 23)."""
    newest = list(collection.find(where, fields).sort(by, DESCENDING).limit(limit))
    if len(newest) < limit:
        return newest
    oldest = limit // OLDEST_SHARE
    return newest[: limit - oldest] + list(collection.find(where, fields).sort(by, ASCENDING).limit(oldest))


def hour_of(at: datetime) -> datetime:
    """Start of its UTC hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def day_of(at: datetime) -> datetime:
    """Start of its UTC day."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """`items` in pieces of at most `size`."""
    for at in range(0, len(items), size):
        yield items[at : at + size]
