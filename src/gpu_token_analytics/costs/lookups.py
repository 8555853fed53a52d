"""What the API asks besides costs: GPUs, cells, requests, the values that occur, the state of the
data.

Filters are built here from typed values only; nothing a user sends becomes an operator or a field
name. Every operation is bounded by `timeout_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.cells.lines import first_lines
from gpu_token_analytics.costs.query import CellFilter
from gpu_token_analytics.documents import CellId, Collection, GpuId, Method, MoneyClass
from gpu_token_analytics.ledger.cards import rows_of_cards, shared_uuids
from gpu_token_analytics.ledger.counted import NOBODY
from gpu_token_analytics.ledger.document import (
    COMPUTED_STATES,
    LIVE_FIELDS,
    CellDocument,
    projection,
)
from gpu_token_analytics.ledger.placements import Placement
from gpu_token_analytics.rollups.documents import tenants_seen
from gpu_token_analytics.rollups.lines import complete
from gpu_token_analytics.rollups.spans import DAY, HOUR, ceil, floor, spans
from gpu_token_analytics.wire.names import sample_of
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import USAGE

Document = dict[str, Any]
COMPUTED = {"$in": list(COMPUTED_STATES)}
MAX_IDENTITY_FINDINGS = 100
MAX_SET_ASIDE = 20
MAX_SHOWN_LINES = 1000  # of one cell on a page
MAX_PAGE_LINES = 10_000
# Of sums, only names: of lines, or of sums by model and by tenant.
_OF_LINES: Document = dict.fromkeys(("lines.model", "lines.tenant", "lines.ref"), 1)
_OF_EITHER: Document = dict.fromkeys(
    (
        "seen",
        "by_model.model",
        "by_model.ref",
        "by_tenant.of",
        "by_tenant.tenant",
        "by_tenant.ref",
    ),
    1,
)


@dataclass
class Values:
    """What occurs in a range."""

    models: set[str] = field(default_factory=set)
    tenants: set[str] = field(default_factory=set)
    gpus: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    gpu_names: set[str] = field(default_factory=set)


class Reads:
    """Reads for the API. Any node of a replica set the connection string allows will do: nothing is
    decided by them."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        def collection(name: str) -> MongoCollection[Document]:
            return database[str(name)]

        self._database = database
        self._cells = collection(Collection.LEDGER_CELLS)
        self._hourly = collection(Collection.ROLLUPS_HOURLY)
        self._daily = collection(Collection.ROLLUPS_DAILY)
        self._usage = collection(USAGE.collection)
        self._samples = collection(SAMPLE.collection)
        self._inventory = collection(Collection.INVENTORY)
        self._chunks = LineChunks(database)
        self._timeout_ms = timeout_ms

    def ping(self) -> None:
        """Raises what pymongo raises when MongoDB does not answer."""
        self._database.command("ping", maxTimeMS=self._timeout_ms)

    # -- GPUs --------------------------------------------------------------------------------------

    def gpu_count(self) -> int:
        """How many GPUs are known."""
        return self._inventory.count_documents({"kind": "gpu"}, maxTimeMS=self._timeout_ms)

    def gpus(self) -> list[Document]:
        """The inventory, by host and index."""
        known = {
            row["_id"]: row
            for row in self._inventory.find({"kind": "gpu"}, max_time_ms=self._timeout_ms)
        }
        if any(row.get("shared") for row in known.values()):
            known = self._cards(known)
        return sorted(
            known.values(),
            key=lambda row: (row.get("host") or "", row.get("gpu_index") or 0, row["_id"]),
        )

    def _cards(self, told: Mapping[GpuId, Document]) -> dict[GpuId, Document]:
        """The same with the cards of UUIDs that several have."""
        rows = list(
            self._inventory.find(
                {"kind": {"$in": ["placement", "stay"]}}, max_time_ms=self._timeout_ms
            )
        )
        placements = [Placement.of(row) for row in rows if row["kind"] == "placement"]
        stays = [row for row in rows if row["kind"] == "stay"]
        cards = rows_of_cards(told, placements, stays, shared_uuids(told, placements, stays))
        return {gpu: dict(row) for gpu, row in cards.items()}

    def latest_samples(self, gpus: Iterable[GpuId]) -> dict[GpuId, Document]:
        """The newest sample of each GPU that has one."""
        newest = {
            gpu: self._samples.find_one(
                sample_of(gpu), sort=[("ts_us", DESCENDING)], max_time_ms=self._timeout_ms
            )
            for gpu in gpus
        }
        return {gpu: sample for gpu, sample in newest.items() if sample is not None}

    def recent_cells(
        self, start: datetime, end: datetime, gpus: Sequence[GpuId] = ()
    ) -> list[CellDocument]:
        """Computed cells of a short time, by minute, with what live views need."""
        where: Document = {"minute": {"$gte": start, "$lt": end}, "state": COMPUTED}
        if gpus:
            where["gpu"] = {"$in": list(gpus)}
        cells = self._cells.find(where, projection(LIVE_FIELDS), max_time_ms=self._timeout_ms).sort(
            "minute", ASCENDING
        )
        return cast("list[CellDocument]", list(cells))

    # -- cells -------------------------------------------------------------------------------------

    def cells(
        self, which: CellFilter, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[list[CellDocument], bool]:
        """(cells by minute then GPU, after a position; whether there are more). A page ends early
        when its lines are many.

        Of a cell with more than MAX_SHOWN_LINES lines these are its first.
        """
        where: Document = {"minute": {"$gte": which.start, "$lt": which.end}}
        if which.gpus:
            where["gpu"] = {"$in": sorted(which.gpus)}
        if which.corrected:
            where["corrections.0"] = {"$exists": True}
        if after is not None:
            minute, gpu = after
            where["$or"] = [{"minute": {"$gt": minute}}, {"minute": minute, "gpu": {"$gt": gpu}}]
            where["minute"] = {"$gte": minute, "$lt": which.end}
        order = [("minute", ASCENDING), ("gpu", ASCENDING)]
        page: list[CellDocument] = []
        lines = 0
        with (
            self._cells.find(where, max_time_ms=self._timeout_ms)
            .sort(order)
            .limit(limit + 1)
            .batch_size(50) as cells
        ):
            for cell in cast("Iterable[CellDocument]", cells):
                if len(page) == limit or (page and lines > MAX_PAGE_LINES):
                    return page, True
                first_lines(self._chunks, cell, MAX_SHOWN_LINES)
                lines += len(cell.get("lines", ()))
                page.append(cell)
        return page, False

    def cells_by_id(self, ids: Sequence[CellId]) -> dict[CellId, CellDocument]:
        """Cells without their lines."""
        hidden = {"lines": 0, "corrections": 0}
        cells = self._cells.find({"_id": {"$in": list(ids)}}, hidden, max_time_ms=self._timeout_ms)
        return {cell["_id"]: cast("CellDocument", cell) for cell in cells}

    def cell_count(self, start: datetime, end: datetime) -> int:
        """Cells of a range, computed or not."""
        return self._cells.count_documents(
            {"minute": {"$gte": start, "$lt": end}}, maxTimeMS=self._timeout_ms
        )

    def pending_count(self, start: datetime, end: datetime) -> int:
        """Cells of a range that wait to be computed (again)."""
        where = {"due_at": {"$exists": True}, "minute": {"$gte": start, "$lt": end}}
        return self._cells.count_documents(where, maxTimeMS=self._timeout_ms)

    def due(self) -> tuple[int, datetime | None]:
        """(cells due or in debounce, since when the first is due)."""
        waiting = {"due_at": {"$exists": True}}
        first = self._cells.find_one(
            waiting, {"due_at": 1}, sort=[("due_at", ASCENDING)], max_time_ms=self._timeout_ms
        )
        count = self._cells.count_documents(waiting, maxTimeMS=self._timeout_ms)
        return count, None if first is None else first["due_at"]

    def sums_behind_since(self) -> datetime | None:
        """Since when the oldest cell that the sums do not hold is computed; None: they hold all."""
        order = [("minute", ASCENDING)]
        oldest = self._cells.find_one(
            {"rolled": False}, {"computed_at": 1}, sort=order, max_time_ms=self._timeout_ms
        )
        return None if oldest is None else oldest.get("computed_at")

    def set_aside(self) -> tuple[int, list[Document]]:
        """(how many cells and sums MongoDB refuses for good, the first of them: {of, owner, why,
        since})."""
        rows = self._database[Collection.SET_ASIDE.value]
        first = (
            rows.find(max_time_ms=self._timeout_ms).sort("since", ASCENDING).limit(MAX_SET_ASIDE)
        )
        return rows.count_documents({}, maxTimeMS=self._timeout_ms), list(first)

    def late_count(self, start: datetime, end: datetime, after: timedelta) -> int:
        """Cells of a range whose content changed again more than `after` past the end of their
        minute."""
        late_ms = int((after + timedelta(minutes=1)).total_seconds() * 1000)
        where = {
            "minute": {"$gte": start, "$lt": end},
            "revision": {"$gt": 1},
            "$expr": {"$gt": [{"$subtract": ["$computed_at", "$minute"]}, late_ms]},
        }
        return self._cells.count_documents(where, maxTimeMS=self._timeout_ms)

    def engines(self, start: datetime, end: datetime, limit: int) -> tuple[int, list[Document]]:
        """(how many engines' counters are in the cells of a range, those of which requests explain
        least), summed by the database: {_id, engine, counted, unexplained, more, unplaced}. Of
        cells with very many lines nothing is in here."""
        tokens = ("prompt_tokens", "completion_tokens")
        group: Document = {
            "_id": "$lines.counted.instance",
            "engine": {"$first": "$lines.counted.engine"},
            "counted": {"$sum": {"$add": [f"$lines.counted.{name}" for name in tokens]}},
            "unexplained": {"$sum": {"$add": [f"$lines.{name}" for name in tokens]}},
            "more": {"$sum": {"$add": [f"$lines.counted.more_{name}" for name in tokens]}},
            "unplaced": {
                "$max": {
                    "$cond": [{"$eq": ["$lines.method", Method.UNKNOWN_GPU.value]}, True, False]
                }
            },
        }
        share = {"$cond": [{"$gt": ["$counted", 0]}, {"$divide": ["$unexplained", "$counted"]}, -1]}
        pages: Document = {
            "count": [{"$count": "count"}],
            "first": [
                {"$addFields": {"share": share}},
                {"$sort": {"share": -1, "_id": 1}},
                {"$limit": limit},
            ],
        }
        stages: list[Document] = [
            {"$match": {"minute": {"$gte": start, "$lt": end}, "lines.counted": {"$exists": True}}},
            {
                "$project": {
                    "lines": {
                        "$filter": {"input": "$lines", "cond": {"$gt": ["$$this.counted", None]}}
                    }
                }
            },
            {"$unwind": "$lines"},
            {"$group": group},
            {"$facet": pages},
        ]
        found = next(iter(self._cells.aggregate(stages, maxTimeMS=self._timeout_ms)))
        return (found["count"][0]["count"] if found["count"] else 0), found["first"]

    def identity(self, start: datetime, end: datetime) -> tuple[Document, list[Document]]:
        """(sums over the computed cells of a range, the first cells that break an identity), summed
        by the database.

        Sums: cells, cost_nusd, lines_nusd, each class, default_price_nusd, unknown_gpu_requests and
        -tokens.
        """
        match = {"$match": {"minute": {"$gte": start, "$lt": end}, "state": COMPUTED}}
        lines = {"$ifNull": ["$lines_total.cost_nusd", {"$sum": "$lines.cost_nusd"}]}
        class_sum = {"$sum": {"$map": {"input": {"$objectToArray": "$classes"}, "in": "$$this.v"}}}
        time_sum = {"$sum": {"$map": {"input": {"$objectToArray": "$class_us"}, "in": "$$this.v"}}}
        names = [str(name) for name in MoneyClass]
        total: Document = {"_id": None, "cells": {"$sum": 1}, "cost_nusd": {"$sum": "$cost_nusd"}}
        total |= {"lines_nusd": {"$sum": "$lines_nusd"}} | {
            name: {"$sum": f"$classes.{name}"} for name in names
        }
        # the cell of a GPU that nobody told of
        unknown = {"$eq": [{"$ifNull": ["$price", None]}, None]}

        def of_lines(name: str) -> Document:
            return {"$ifNull": [f"$lines_total.{name}", {"$sum": f"$lines.{name}"}]}

        tokens = {"$add": [of_lines("prompt_tokens"), of_lines("completion_tokens")]}
        total["default_price_nusd"] = {"$sum": {"$cond": ["$default_price", "$cost_nusd", 0]}}
        total["unknown_gpu_requests"] = {"$sum": {"$cond": [unknown, of_lines("requests"), 0]}}
        total["unknown_gpu_tokens"] = {"$sum": {"$cond": [unknown, tokens, 0]}}
        compute = {
            "$addFields": {"lines_nusd": lines, "class_sum": class_sum, "time_sum": time_sum}
        }
        broken = {
            "$match": {
                "$expr": {
                    "$or": [
                        {"$ne": ["$class_sum", "$cost_nusd"]},
                        {"$ne": ["$time_sum", "$owned_us"]},
                        {"$ne": ["$lines_nusd", "$classes.attributed"]},
                    ]
                }
            }
        }
        keep = {
            "$project": dict.fromkeys(
                ("cost_nusd", "owned_us", "class_sum", "time_sum", "lines_nusd", "classes"), 1
            )
        }
        limit = {"$limit": MAX_IDENTITY_FINDINGS}
        stages = [
            match,
            compute,
            {"$facet": {"total": [{"$group": total}], "broken": [broken, limit, keep]}},
        ]
        answer = next(iter(self._cells.aggregate(stages, maxTimeMS=self._timeout_ms)))
        empty = dict.fromkeys((*total.keys() - {"_id"}, *names), 0)
        return (answer["total"] or [empty])[0], answer["broken"]

    # -- requests ----------------------------------------------------------------------------------

    def requests_by_id(self, request_id: str, tenant: str | None, limit: int) -> list[Document]:
        """Usage events of a request id, newest first; only those of `tenant` where one is given."""
        where = {"request_id": request_id, "period": {"$in": self._periods()}} | (
            {} if tenant is None else {"tenant": tenant}
        )
        requests = self._usage.find(where, max_time_ms=self._timeout_ms)
        return list(requests.sort("ts_us", DESCENDING).limit(limit))

    def _periods(self) -> list[int | None]:
        """Those in which requests were stored that are still there; None is of earlier versions,
        which wrote none."""
        stored, only = (
            {"period": {"$exists": True}, "ingested_at": {"$gte": from_us(0)}},
            {"period": 1},
        )
        first, last = (
            self._usage.find_one(
                stored, only, sort=[("ingested_at", side)], max_time_ms=self._timeout_ms
            )
            for side in (ASCENDING, DESCENDING)
        )
        return [
            None,
            *(() if first is None or last is None else range(first["period"], last["period"] + 1)),
        ]

    def requests_of_gpu(
        self, names: Sequence[str], start_us: int, end_us: int, limit: int
    ) -> list[Document]:
        """Usage events that name a GPU and ended in [start, end), newest first."""
        where = {"gpus": {"$in": list(names)}, "ts_us": {"$gte": start_us, "$lt": end_us}}
        requests = self._usage.find(where, max_time_ms=self._timeout_ms)
        return list(requests.sort("ts_us", DESCENDING).limit(limit))

    # -- values that occur -------------------------------------------------------------------------

    def values(self, start: datetime, end: datetime, tenant: str | None) -> Values:
        """What occurs in the UTC hours that meet a range; for a tenant only itself and its
        models."""
        values = Values()
        for span in spans(floor(start, HOUR), ceil(end, HOUR)):
            collection = self._daily if span.end - span.start >= DAY else self._hourly
            where = {"start": {"$gte": span.start, "$lt": span.end}}
            if tenant is not None:
                for document in self._complete(collection, {"scope": "fleet", **where}, _OF_LINES):
                    _add_lines(values, document["lines"], tenant)
                continue
            for document in self._complete(collection, {"scope": "fleet", **where}, _OF_EITHER):
                self._add_names(values, collection, document)
            places = {"gpu": 1, "places.host": 1, "places.gpu_name": 1}
            for document in collection.find(
                {"scope": "gpu", **where}, places, max_time_ms=self._timeout_ms
            ):
                values.gpus.add(document["gpu"])
                values.hosts.update(place["host"] for place in document["places"] if place["host"])
                values.gpu_names.update(
                    place["gpu_name"] for place in document["places"] if place["gpu_name"]
                )
        return values

    def _add_names(
        self, values: Values, collection: MongoCollection[Document], document: Document
    ) -> None:
        if tenants_seen(document) == document["seen"]:
            values.models.update(_names(document["by_model"], "model"))
            values.tenants.update(_names(document["by_tenant"], "tenant"))
            values.tenants.discard(NOBODY)
            return
        # Written by an earlier version of this program.
        for older in self._complete(collection, {"_id": document["_id"]}, _OF_LINES):
            _add_lines(values, older["lines"], None)

    def _complete(
        self, collection: MongoCollection[Document], where: Document, fields: Document
    ) -> Iterator[Document]:
        documents = collection.find(where, fields, max_time_ms=self._timeout_ms).batch_size(24)

        def read_one(name: Any) -> Document | None:
            return collection.find_one({"_id": name}, fields, max_time_ms=self._timeout_ms)

        return complete(self._chunks, collection, documents, read_one, ("model", "tenant"))


def _names(section: Mapping[str, Any], of: str) -> Iterable[str]:
    """The names of one kind in a section that has been read."""
    for piece in section.get("pieces", (section,)):
        yield from piece[of]


def _add_lines(values: Values, lines: Mapping[str, Any], tenant: str | None) -> None:
    for piece in lines.get("pieces", ()):
        _add_lines(values, piece, tenant)
    if "pieces" in lines:
        return
    for model, owner in zip(lines["model"], lines["tenant"], strict=True):
        if tenant is None or owner == tenant:
            values.models.add(model)
            values.tenants |= {owner} - {NOBODY}
