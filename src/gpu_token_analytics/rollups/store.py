"""Rollups: sums of cells per hour and per day, so that a month is read from 30 documents and not
from 2.8 million.

    ledger_cells --(gpu, hour)--> hourly gpu --(hour)--> hourly fleet --(day)--> daily fleet
                                             --(gpu, day)--> daily gpu

What the documents hold: documents.py.

Why this is exact after any crash and with several writers:
    1 a whole document is always recomputed from all its parts, never incremented
    2 `version` = sum of the parts' versions: it grows with every change of a part, and an older
      version never overwrites
    3 `seen` is a digest of the parts' versions. A part is called rolled only when the stored
      document holds exactly what was read (same version, same `seen`): two writers that each read
      half of two changes get the same version with different content, and then the parts stay dirty
      and are read again
    4 a part is marked rolled after its parents are stored, and only where it is unchanged
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReadPreference, WriteConcern
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.cells.lines import complete_cells
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.documents import Collection, GpuId
from gpu_token_analytics.ledger.document import SUMMED_FIELDS, CellDocument, projection
from gpu_token_analytics.mongo.aside import Aside
from gpu_token_analytics.mongo.commands import by_bytes, swap, update_many
from gpu_token_analytics.rollups.documents import (
    PLACE_FIELDS,
    Document,
    fleet,
    gpu_day,
    gpu_hour,
    rollup_id,
)
from gpu_token_analytics.rollups.lines import complete, put, sections, take_out
from gpu_token_analytics.rollups.packed import line_count
from gpu_token_analytics.rollups.spans import DAY, HOUR

_DIRTY = {"$set": {"rolled": False}}
_BATCH_DOCUMENTS = 16  # read at a time: each may have half a megabyte of lines
_WRITTEN_DOCUMENTS = 100
_WRITTEN_LINES = 50_000
OLDEST_SHARE = 4  # of this many dirty documents taken, one is of the oldest

_CELL_FIELDS = projection((*SUMMED_FIELDS, "revision"))

# What a day is made from. Not the halves and totals of its hours: they are more than half of what
# is stored.
_SUMS = ("space", "lines")
_GPU_HOUR_FIELDS = dict.fromkeys(
    ("version", "final_at", *(f"places.{name}" for name in (*PLACE_FIELDS, *_SUMS))), 1
)
_FLEET_HOUR_FIELDS = dict.fromkeys(("version", "final_at", *_SUMS), 1)


class RollupStore:
    """Reads and writes of the rollups. Everything majority, primary: a stale read must not look
    newer than it is."""

    def __init__(
        self, database: Database[Document], now: Callable[[], datetime] = SystemClock().now
    ) -> None:
        """now: the server's clock."""

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
        self.now = now
        self._chunks = LineChunks(database, now)
        self.aside = Aside(database, now)

    def dirty_gpu_hours(self, limit: int) -> list[tuple[GpuId, datetime]]:
        """Up to `limit` dirty cells, as the distinct (GPU, hour) they lie in: newest first, then a
        part of the oldest."""
        dirty = _from_both_ends(
            self._cells, {"rolled": False}, {"_id": 0, "gpu": 1, "minute": 1}, "minute", limit
        )
        return list(dict.fromkeys((cell["gpu"], hour_of(cell["minute"])) for cell in dirty))

    def roll_gpu_hours(self, gpu_hours: Iterable[tuple[GpuId, datetime]]) -> None:
        """Recompute these hourly GPU documents from their cells, then mark the cells rolled."""
        read: dict[str, list[Document]] = {}

        def built() -> Iterator[Document]:
            for gpu, hour in gpu_hours:
                # What marking them needs; with their lines, the cells of an hour can be hundreds of
                # megabytes.
                cells = read[rollup_id("gpu", gpu, hour, HOUR)] = []
                yield gpu_hour(gpu, hour, _noted(self.cells_of_hour(gpu, hour), cells))

        stored = self._store_all(self._hourly, built())
        self._mark_cells(cell for id_ in stored for cell in read[id_])

    def cells_of_hour(self, gpu: GpuId, hour: datetime) -> Iterator[CellDocument]:
        """The cells of a GPU in a UTC hour, each with all its lines, one at a time."""
        # Cell ids are ordered by minute: the hour is one range of the _id index. ":" + 1 is ";".
        prefix = f"{gpu}|{hour:%Y-%m-%dT%H}"
        cells = self._cells.find({"_id": {"$gte": prefix + ":", "$lt": prefix + ";"}}, _CELL_FIELDS)
        return complete_cells(self._chunks, self._cells, cells, _CELL_FIELDS)

    def dirty_hours(self, scope: str, limit: int) -> list[Document]:
        """Up to `limit` hourly documents of a scope whose parents do not hold them yet: {_id, gpu?,
        start, version}, newest first, then a part of the oldest."""
        where = {"rolled": False, "scope": scope}
        return _from_both_ends(
            self._hourly, where, {"gpu": 1, "start": 1, "version": 1}, "start", limit
        )

    def roll_fleet_hours(self, hours: Iterable[datetime]) -> set[datetime]:
        """Recompute fleet hours from their GPU hours. Returns those that are stored."""
        asked = sorted(set(hours))
        stored = self._store_all(self._hourly, map(self.build_fleet_hour, asked))
        return {hour for hour in asked if rollup_id("fleet", None, hour, HOUR) in stored}

    def build_fleet_hour(self, hour: datetime) -> Document:
        """A fleet hour from its GPU hours as they are stored."""
        return fleet(hour, HOUR, self._complete(self._hourly, {"scope": "gpu", "start": hour}))

    def roll_gpu_days(
        self, gpu_days: Iterable[tuple[GpuId, datetime]]
    ) -> set[tuple[GpuId, datetime]]:
        """Recompute daily GPU documents from their hours. Returns those that are stored."""
        asked = sorted(set(gpu_days))
        stored = self._store_all(self._daily, (self.build_gpu_day(gpu, day) for gpu, day in asked))
        return {(gpu, day) for gpu, day in asked if rollup_id("gpu", gpu, day, DAY) in stored}

    def build_gpu_day(self, gpu: GpuId, day: datetime) -> Document:
        """A GPU's day from its hours as they are stored."""
        ids = [rollup_id("gpu", gpu, day + hour * HOUR, HOUR) for hour in range(24)]
        return gpu_day(
            gpu, day, self._complete(self._hourly, {"_id": {"$in": ids}}, _GPU_HOUR_FIELDS)
        )

    def roll_fleet_days(self, days: Iterable[datetime]) -> set[datetime]:
        """Recompute fleet days from their fleet hours. Returns those that are stored."""
        asked = sorted(set(days))
        stored = self._store_all(self._daily, map(self.build_fleet_day, asked))
        return {day for day in asked if rollup_id("fleet", None, day, DAY) in stored}

    def build_fleet_day(self, day: datetime) -> Document:
        """A fleet's day from its hours as they are stored."""
        ids = [rollup_id("fleet", None, day + hour * HOUR, HOUR) for hour in range(24)]
        return fleet(
            day, DAY, self._complete(self._hourly, {"_id": {"$in": ids}}, _FLEET_HOUR_FIELDS)
        )

    def fleet_days(self, start: datetime | None, end: datetime | None) -> list[Document]:
        """The fleet's days with start <= day < end, in order: {start, version, final_at}. A version
        is another one whenever anything of its day has changed."""
        bounds = {key: value for key, value in (("$gte", start), ("$lt", end)) if value is not None}
        where: Document = {"scope": "fleet", **({"start": bounds} if bounds else {})}
        return list(
            self._daily.find(where, {"_id": 0, "start": 1, "version": 1, "final_at": 1}).sort(
                "start", ASCENDING
            )
        )

    def stored(self, length: timedelta, where: Document) -> Iterator[Document]:
        """Hourly or daily documents as they are stored, with all their lines, one at a time."""
        return self._complete(self._hourly if length == HOUR else self._daily, where)

    def _complete(
        self, collection: MongoCollection[Document], where: Document, fields: Document | None = None
    ) -> Iterator[Document]:
        documents = collection.find(where, fields).batch_size(_BATCH_DOCUMENTS)
        return complete(
            self._chunks,
            collection,
            documents,
            lambda name: collection.find_one({"_id": name}, fields),
        )

    def sweep(self) -> int:
        """Remove the lines that crashes left without a document. Returns of how many documents."""
        return self._chunks.sweep()

    def retry_set_aside(self) -> None:
        """Make what was set aside an hour ago dirty again: the parts that it is made of."""
        for name in self.aside.to_retry(Collection.ROLLUPS_HOURLY):
            scope, *gpu, when = name.split("|")
            if scope == "gpu":
                prefix = f"{'|'.join(gpu)}|{when}"
                self._cells.update_many(
                    {"_id": {"$gte": prefix + ":", "$lt": prefix + ";"}}, _DIRTY
                )
            else:
                start = datetime.fromisoformat(when + ":00+00:00")
                self._hourly.update_many({"scope": "gpu", "start": start}, _DIRTY)
        for name in self.aside.to_retry(Collection.ROLLUPS_DAILY):
            self._hourly.update_many(
                {"_id": {"$in": [f"{name}T{hour:02d}" for hour in range(24)]}},
                {"$set": {"rolled": False}},
            )

    def has_dirty_cells(self, gpu: GpuId, hour: datetime) -> bool:
        """Whether the hour of a GPU does not hold some of its cells yet."""
        where = {"gpu": gpu, "minute": {"$gte": hour, "$lt": hour + HOUR}, "rolled": False}
        return self._cells.find_one(where, {"_id": 1}) is not None

    def has_dirty_hours(self, where: Document) -> bool:
        """Whether days, or the fleet, do not hold some of these hours yet."""
        return self._hourly.find_one({**where, "rolled": False}, {"_id": 1}) is not None

    def oldest_dirty(self) -> Document | None:
        """The oldest cell that the sums do not hold yet: {minute, computed_at}."""
        return self._cells.find_one(
            {"rolled": False}, {"minute": 1, "computed_at": 1}, sort=[("minute", ASCENDING)]
        )

    def mark_rolled(self, hours: Sequence[Document]) -> None:
        """These hourly documents are in their parents, unless they changed since they were
        listed."""
        where = ({"_id": hour["_id"], "version": hour["version"]} for hour in hours)
        update_many(self._hourly, [{"q": one, "u": {"$set": {"rolled": True}}} for one in where])

    def _store_all(self, into: MongoCollection[Document], built: Iterable[Document]) -> set[str]:
        """Write documents as they are built, a few together. Returns the ids whose stored content
        is exactly ours, and those that MongoDB refused for good: both need not be built again
        before something changes."""
        done: set[str] = set()
        some: list[Document] = []
        lines = 0
        for document in built:
            some.append(document)
            lines += sum(line_count(holder[name]) for holder, name, _ in sections(document))
            if len(some) == _WRITTEN_DOCUMENTS or lines > _WRITTEN_LINES:
                done |= self._store(into, some)
                some, lines = [], 0
        return done | self._store(into, some)

    def _store(self, into: MongoCollection[Document], documents: Sequence[Document]) -> set[str]:
        """Write documents where theirs is a newer version."""
        if not documents:
            return set()
        of = Collection(into.name)
        seen = {document["_id"]: document["seen"] for document in documents}
        refused: dict[str, str] = {}
        few: list[Document] = []
        for document in documents:
            many = take_out(document)
            if not many:
                few.append(document)
            elif why := self._swap(into, of, document, many):
                refused[document["_id"]] = why
        # Duplicates: the stored version is as new or newer, not ours to overwrite.
        outcome = update_many(into, [_newer(document) for document in few])
        refused |= {few[index]["_id"]: why for index, why in outcome.refused.items()}
        now_stored = into.find({"_id": {"$in": list(seen)}}, {"seen": 1})
        stored = {
            document["_id"] for document in now_stored if document["seen"] == seen[document["_id"]]
        }
        self.aside.clear(of, stored)
        for name, why in refused.items():
            self.aside.put(of, name, why)
        return stored | refused.keys()

    def _swap(
        self,
        into: MongoCollection[Document],
        of: Collection,
        document: Document,
        many: Mapping[str, Document],
    ) -> str | None:
        """Store a document whose lines are in chunks. Returns why it was refused, if it was for
        good."""
        token = put(self._chunks, of, document, many)
        statement = _newer(document)
        before, why = swap(into, statement["q"], statement["u"])
        # Chunks of what was replaced; our own where a newer version is there, or nothing can refer
        # to them.
        self._chunks.drop([token] if before is None else [before.get("chunks")])
        return why

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
    """Up to `limit` documents: what is watched first, and history never stands still (decision
    23)."""
    newest = list(collection.find(where, fields).sort(by, DESCENDING).limit(limit))
    if len(newest) < limit:
        return newest
    oldest = limit // OLDEST_SHARE
    return newest[: limit - oldest] + list(
        collection.find(where, fields).sort(by, ASCENDING).limit(oldest)
    )


def _noted(cells: Iterable[CellDocument], into: list[Document]) -> Iterator[CellDocument]:
    """The cells, with what marking them needs kept."""
    for cell in cells:
        into.append({"_id": cell["_id"], "revision": cell["revision"], "state": cell["state"]})
        yield cell


def _newer(document: Document) -> Document:
    """The statement that writes a document over an older version, or where there is none."""
    update: Document = {"$set": document}
    if "chunks" not in document:
        update["$unset"] = {"chunks": ""}
    return {
        "q": {"_id": document["_id"], "version": {"$lt": document["version"]}},
        "u": update,
        "upsert": True,
    }


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
