"""Money, tokens and energy of a range, by any grouping: what /v1/costs, exports and reports are made of.

Rows come out in order of bucket, then group (null last), one bucket in memory at a time. Whatever the grouping, the sums
of all rows are the sums of the cells: attributed lines + idle = cost, to the nano-dollar.

    grouping or filter by gpu, host, gpu_name   GPU documents    else   fleet documents
    no model, no tenant                         `total`          model only   `by_model`        else   `lines`
    minutes that are no whole hour              ledger_cells

A tenant lock is part of the query object and applied here, to every row and every column: nothing but that tenant's
attributed lines comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database

from gpu_token_analytics.documents import Collection, MoneyClass
from gpu_token_analytics.store import sums
from gpu_token_analytics.store.rollups import hour_of
from gpu_token_analytics.store.spans import UTC_ZONE, Grain, Span, Step, bucket_start, buckets, runs, spans

Document = dict[str, Any]
Key: TypeAlias = tuple[str | None, ...]

DIMENSIONS = ("model", "tenant", "gpu", "host", "gpu_name", "class")
PLACE_DIMENSIONS = frozenset(("gpu", "host", "gpu_name"))
LINE_DIMENSIONS = frozenset(("model", "tenant"))
ATTRIBUTED = str(MoneyClass.ATTRIBUTED)
WARM_IDLE = str(MoneyClass.WARM_IDLE)

# A row: the line columns, then the money nobody's line holds, then GPU time. Rows add up as vectors.
REST_COLUMNS = ("unmetered_work_nusd", "cold_idle_nusd", "unobserved_nusd")
TIME_COLUMNS = ("gpu_us", "unobserved_us", "energy_all_mj", "energy_observed_us", "cells")
FLAG_COLUMNS = ("provisional_cells", "corrected_cells")
ROW_COLUMNS = sums.LINE_COLUMNS + REST_COLUMNS + TIME_COLUMNS + FLAG_COLUMNS
ROW = {name: index for index, name in enumerate(ROW_COLUMNS)}
_SPACE = {name: index for index, name in enumerate(sums.SPACE_COLUMNS)}
# A batch is decoded as a whole: the driver's 16 MB would be 150 MB of objects, and a page often needs its beginning only.
BATCH_DOCUMENTS = 1_000
BATCH_FLEET_DOCUMENTS = 100
_NO_REST = (0,) * (len(REST_COLUMNS) + len(TIME_COLUMNS))
_ZERO_ROW = (0,) * len(ROW_COLUMNS)
_MONEY_COLUMNS = (ROW["cost_nusd"], ROW["warm_idle_nusd"], *(ROW[name] for name in REST_COLUMNS))


@dataclass(frozen=True)
class CostQuery:
    """What is asked. Empty filter: all. `tenant_lock`: the only tenant whose data may come out, whatever else is asked."""

    start: datetime
    end: datetime
    step: Step = Step.NONE
    zone: ZoneInfo = UTC_ZONE
    group_by: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    gpus: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    gpu_names: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    tenant_lock: str | None = None

    @property
    def by_place(self) -> bool:
        """GPU documents are needed."""
        return bool(PLACE_DIMENSIONS.intersection(self.group_by) or self.gpus or self.hosts or self.gpu_names)

    @property
    def section(self) -> str:
        """The coarsest lines that can answer it."""
        if "tenant" in self.group_by or self.tenants or self.tenant_lock is not None:
            return "lines"
        if "model" in self.group_by or self.models:
            return "lines" if self.by_place else "by_model"
        return "total"

    def whole(self) -> CostQuery:
        """The same selection as one row."""
        return replace(self, group_by=(), step=Step.NONE)

    def spans(self) -> Iterator[Span]:
        """What has to be read, in order."""
        return runs(piece for start, end in buckets(self.start, self.end, self.step, self.zone) for piece in spans(start, end))


@dataclass(frozen=True)
class Row:
    """One group in one bucket. `values` by ROW; `bucket` is its start in the zone, null without buckets."""

    bucket: datetime | None
    start: datetime  # of the part of the bucket inside the range
    end: datetime
    key: Key
    values: Sequence[int]

    def __getitem__(self, name: str) -> int:
        return self.values[ROW[name]]

    @property
    def money_nusd(self) -> int:
        """All money of the row."""
        return sum(self.values[index] for index in _MONEY_COLUMNS)


@dataclass
class Scope:
    """All that was read, before filters on lines: fills up as rows are drawn."""

    cost_nusd: int = 0
    cells: int = 0


@dataclass
class _Piece:
    """One stored document (or place of one), as vectors."""

    start: datetime
    gpu: str | None
    host: str | None
    gpu_name: str | None
    space: list[int]
    lines: Iterable[tuple[str | None, str | None, Sequence[int]]]


@dataclass
class _Bucket:
    rows: dict[Key, list[int]] = field(default_factory=dict)
    provisional: int = 0
    corrected: int = 0


class CostReads:
    """Reads costs. `timeout_ms` bounds each database operation."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._cells: MongoCollection[Document] = database[Collection.LEDGER_CELLS]
        self._hourly: MongoCollection[Document] = database[Collection.ROLLUPS_HOURLY]
        self._daily: MongoCollection[Document] = database[Collection.ROLLUPS_DAILY]
        self._timeout_ms = timeout_ms

    def rows(self, query: CostQuery, now: datetime, scope: Scope | None = None) -> Iterator[Row]:
        """The rows in order. `now` tells which stored figures can still change."""
        collect = _Collector(query, scope or Scope())
        for start, end in buckets(query.start, query.end, query.step, query.zone):
            collect.open(start, end)
        pieces = (piece for span in query.spans() for piece in self._pieces(query, span, now))
        yield from collect.rows(pieces)

    def total(self, query: CostQuery, now: datetime, scope: Scope | None = None) -> Row:
        """The whole selection as one row (of zeros when there is nothing)."""
        return next(self.rows(query.whole(), now, scope), None) or Row(None, query.start, query.end, (), list(_ZERO_ROW))

    def not_rolled(self, start: datetime, end: datetime) -> int:
        """Cells of the range whose newest content the rollups do not hold yet."""
        where = {"rolled": False, "minute": {"$gte": start, "$lt": end}}
        return self._cells.count_documents(where, maxTimeMS=self._timeout_ms)

    def _pieces(self, query: CostQuery, span: Span, now: datetime) -> Iterator[_Piece]:
        if span.grain is Grain.MINUTES:
            return self._cell_pieces(query, span, now)
        collection = self._daily if span.grain is Grain.DAYS else self._hourly
        if query.by_place:
            return self._gpu_pieces(collection, query, span, now)
        return self._fleet_pieces(collection, query, span, now)

    def _fleet_pieces(
        self, collection: MongoCollection[Document], query: CostQuery, span: Span, now: datetime
    ) -> Iterator[_Piece]:
        section = query.section
        fields = {"_id": 0, "start": 1, "final_at": 1, "space": 1, section: 1}
        where = {"scope": "fleet", "start": {"$gte": span.start, "$lt": span.end}}
        cursor = collection.find(where, fields, max_time_ms=self._timeout_ms).sort("start", 1)
        with cursor.batch_size(BATCH_FLEET_DOCUMENTS) as found:
            for document in found:
                space = _settled(sums.read_space(document["space"]), document["final_at"], now)
                yield _Piece(document["start"], None, None, None, space, _read_section(document[section], section))

    def _gpu_pieces(
        self, collection: MongoCollection[Document], query: CostQuery, span: Span, now: datetime
    ) -> Iterator[_Piece]:
        section = query.section
        fields: Document = {"_id": 0, "start": 1, "final_at": 1, "gpu": 1}
        fields |= dict.fromkeys(("places.host", "places.gpu_name", "places.space", f"places.{section}"), 1)
        where: Document = {"scope": "gpu", "start": {"$gte": span.start, "$lt": span.end}, **_in("gpu", query.gpus)}
        where |= _in("places.host", query.hosts) | _in("places.gpu_name", query.gpu_names)
        cursor = collection.find(where, fields, max_time_ms=self._timeout_ms).sort("start", 1)
        with cursor.batch_size(BATCH_DOCUMENTS) as found:
            for document in found:
                for place in document["places"]:
                    space = _settled(sums.read_space(place["space"]), document["final_at"], now)
                    lines = _read_section(place[section], section)
                    yield _Piece(document["start"], document["gpu"], place["host"], place["gpu_name"], space, lines)

    def _cell_pieces(self, query: CostQuery, span: Span, now: datetime) -> Iterator[_Piece]:
        where: Document = {"minute": {"$gte": span.start, "$lt": span.end}, "state": {"$in": ["provisional", "final"]}}
        where |= _in("gpu", query.gpus) | _in("host", query.hosts) | _in("gpu_name", query.gpu_names)
        shares = _WarmOfHour(self._hourly, self._timeout_ms) if query.section != "total" else None
        cursor = self._cells.find(where, CELL_FIELDS, max_time_ms=self._timeout_ms).sort("minute", 1)
        with cursor.batch_size(BATCH_DOCUMENTS) as found:
            for cell in found:
                lines: dict[Any, list[int]] = {}
                for key, vector in sums.cell_lines(cell):
                    sums.add_into(lines, key, vector)
                if shares is not None:
                    sums.add_warm(lines, shares.of(cell))
                listed = [(model, tenant, vector) for (model, tenant), vector in lines.items()]
                space = _settled(sums.cell_space(cell), cell.get("final_at"), now)
                yield _Piece(cell["minute"], cell["gpu"], cell["host"], cell["gpu_name"], space, listed)


CELL_FIELDS = dict.fromkeys(
    (
        "gpu",
        "minute",
        "host",
        "gpu_name",
        "state",
        "final_at",
        "cost_nusd",
        "owned_us",
        "classes",
        "class_us",
        "energy_mj",
        "energy_observed_us",
        "lines",
        "corrections.revision",
    ),
    1,
)


class _WarmOfHour:
    """The weights by which a cell's warm idle money is shared: those of its GPU's whole hour, from the hourly documents."""

    def __init__(self, hourly: MongoCollection[Document], timeout_ms: int) -> None:
        self._hourly = hourly
        self._timeout_ms = timeout_ms
        self._hour: datetime | None = None
        self._of_gpu: dict[str, sums.WarmShares] = {}

    def of(self, cell: Mapping[str, Any]) -> Iterable[tuple[sums.LineKey, int]]:
        """The shares of one cell. Cells come in order of time: one hour is held."""
        warm = cell["classes"][WARM_IDLE]
        if not warm:
            return ()
        hour = hour_of(cell["minute"])
        if hour != self._hour:
            self._load(hour)
        shares = self._of_gpu.get(cell["gpu"])
        return () if shares is None else shares.of(warm)

    def _load(self, hour: datetime) -> None:
        self._hour, self._of_gpu = hour, {}
        where, fields = {"scope": "gpu", "start": hour}, {"gpu": 1, "places.lines": 1}
        for document in self._hourly.find(where, fields, max_time_ms=self._timeout_ms):
            attributed: dict[sums.LineKey, int] = {}
            for place in document["places"]:
                for model, tenant, vector in sums.unpack(place["lines"]):
                    key = (model, str(tenant))
                    attributed[key] = attributed.get(key, 0) + vector[sums.COST]
            self._of_gpu[document["gpu"]] = sums.WarmShares(attributed)


class _Collector:
    """Groups pieces into rows, bucket by bucket."""

    def __init__(self, query: CostQuery, scope: Scope) -> None:
        self._query = query
        self._scope = scope
        self._tenants = query.tenants
        if query.tenant_lock is not None:
            # An empty set would mean "all": a lock outside the asked tenants selects nobody.
            allowed = not query.tenants or query.tenant_lock in query.tenants
            self._tenants = frozenset((query.tenant_lock,)) if allowed else frozenset()
            self._nobody = not allowed
        else:
            self._nobody = False
        self._selects_lines = bool(query.models or query.tenants or query.tenant_lock is not None)
        self._by_class = "class" in query.group_by
        self._buckets: list[tuple[datetime, datetime]] = []

    def open(self, start: datetime, end: datetime) -> None:
        """One more bucket, after all others."""
        self._buckets.append((start, end))

    def rows(self, pieces: Iterable[_Piece]) -> Iterator[Row]:
        """Rows of pieces that come in order of time."""
        at, bucket = 0, _Bucket()
        for piece in pieces:
            while piece.start >= self._buckets[at][1]:
                yield from self._close(at, bucket)
                at, bucket = at + 1, _Bucket()
            self._add(bucket, piece)
        if self._buckets:
            yield from self._close(at, bucket)

    def _close(self, at: int, bucket: _Bucket) -> Iterator[Row]:
        start, end = self._buckets[at]
        label = None if self._query.step is Step.NONE else bucket_start(start, self._query.step, self._query.zone)
        flags = (bucket.provisional, bucket.corrected)
        for key in sorted(bucket.rows, key=sort_key):
            yield Row(label, start, end, key, (*bucket.rows[key], *flags))

    def _add(self, bucket: _Bucket, piece: _Piece) -> None:
        query = self._query
        if query.hosts and piece.host not in query.hosts:
            return
        if query.gpu_names and piece.gpu_name not in query.gpu_names:
            return
        space = piece.space
        self._scope.cost_nusd += space[sums.SPACE_COST]
        self._scope.cells += space[_SPACE["cells"]]
        bucket.provisional += space[_SPACE["provisional_cells"]]
        bucket.corrected += space[_SPACE["corrected_cells"]]
        if self._nobody:
            return
        shared = 0
        for model, tenant, vector in piece.lines:
            shared += vector[sums.WARM]
            if query.models and model not in query.models:
                continue
            if self._tenants and tenant not in self._tenants:
                continue
            self._add_line(bucket.rows, piece, model, tenant, vector)
        if not self._selects_lines:
            self._add_rest(bucket.rows, piece, shared)

    def _add_line(
        self, rows: dict[Key, list[int]], piece: _Piece, model: str | None, tenant: str | None, vector: Sequence[int]
    ) -> None:
        query = self._query
        warm = vector[sums.WARM]
        attributed: Sequence[int] = vector
        if query.tenant_lock is not None or self._by_class or query.classes:
            attributed = [*vector[: sums.WARM], 0, *vector[sums.WARM + 1 :]]
            if query.tenant_lock is not None:
                warm = 0
            if warm and self._wanted(WARM_IDLE):
                key = self._key(piece, model, tenant, WARM_IDLE)
                sums.add_into(rows, key, (*sums.warm_vector(warm), *_NO_REST))
        # A line can hold nothing but a share of warm idle (no request in this span): no attributed row of zeros for it.
        if self._wanted(ATTRIBUTED) and any(attributed):
            sums.add_into(rows, self._key(piece, model, tenant, ATTRIBUTED), (*attributed, *_NO_REST))

    def _add_rest(self, rows: dict[Key, list[int]], piece: _Piece, shared_nusd: int) -> None:
        """Idle money that no line holds, and the GPU time. Into one row, or one for each class."""
        space = piece.space
        warm = space[sums.SPACE_WARM] - shared_nusd
        if not self._by_class and not self._query.classes:
            vector = [
                *sums.warm_vector(warm),
                *(space[_SPACE[name]] for name in REST_COLUMNS),
                space[_SPACE["owned_us"]],
                space[_SPACE["unobserved_us"]],
                space[_SPACE["energy_mj"]],
                space[_SPACE["energy_observed_us"]],
                space[_SPACE["cells"]],
            ]
            sums.add_into(rows, self._key(piece, None, None, ""), vector)
            return
        for name in sums.CLASSES:
            if self._wanted(name):
                vector = self._class_vector(space, name, warm)
                if any(vector):
                    sums.add_into(rows, self._key(piece, None, None, name), vector)

    @staticmethod
    def _class_vector(space: Sequence[int], name: str, warm_nusd: int) -> list[int]:
        money = [0, 0, 0]
        line = list(sums.ZERO_LINE)
        if name == WARM_IDLE:
            line[sums.WARM] = warm_nusd
        elif name != ATTRIBUTED:
            money[REST_COLUMNS.index(f"{name}_nusd")] = space[_SPACE[f"{name}_nusd"]]
        time_us = space[_SPACE[f"{name}_us"]]
        unobserved_us = time_us if name == str(MoneyClass.UNOBSERVED) else 0
        return [*line, *money, time_us, unobserved_us, 0, 0, 0]

    def _wanted(self, name: str) -> bool:
        return not self._query.classes or name in self._query.classes

    def _key(self, piece: _Piece, model: str | None, tenant: str | None, name: str) -> Key:
        values = {
            "model": model,
            "tenant": tenant,
            "gpu": piece.gpu,
            "host": piece.host,
            "gpu_name": piece.gpu_name,
            "class": name,
        }
        return tuple(values[dimension] for dimension in self._query.group_by)


def sort_key(key: Key) -> tuple[tuple[bool, str], ...]:
    """Order of groups: by value, null last."""
    return tuple((value is None, value or "") for value in key)


def _in(name: str, values: frozenset[str]) -> Document:
    return {name: {"$in": sorted(values)}} if values else {}


def _read_section(section: Mapping[str, Any], name: str) -> Iterable[tuple[str | None, str | None, Sequence[int]]]:
    if name == "total":
        return [(None, None, sums.read_total(section))]
    return sums.unpack(section)


def _settled(space: list[int], final_at: datetime | None, now: datetime) -> list[int]:
    """Cells turn final by time alone; the stored sum was made before."""
    if final_at is not None and final_at <= now:
        space[_SPACE["provisional_cells"]] = 0
    return space
