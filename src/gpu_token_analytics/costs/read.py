"""Money, tokens and energy of a range, by any grouping: what /v1/costs, exports and reports are
made of.

Rows come out in order of bucket, then group (null last), one bucket in memory at a time; where its
lines stand in chunks, those of a few chunks (stretches.py). Whatever the grouping, the sums of all
rows are the sums of the cells: attributed lines + idle = cost, to the nano-dollar.

    grouping or filter by gpu, host, gpu_name   GPU documents; else fleet documents
    no model, no tenant                         `total`; one of them: `by_model`, `by_tenant`; else
                                                `lines`
    half hours                                  the second half an hourly document holds, or the
                                                whole less it
    minutes                                     ledger_cells (cells.py)

Question and rows: query.py. How pieces become rows, and the tenant lock: collect.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter, sub
from typing import Any

from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.cells.lines import complete_cells
from gpu_token_analytics.costs.cells import CELL_FIELDS, cell_pieces
from gpu_token_analytics.costs.collect import Collector
from gpu_token_analytics.costs.query import (
    FLEET,
    ROW_COLUMNS,
    Chunked,
    CostQuery,
    Order,
    Piece,
    Place,
    Row,
    Sight,
    settled,
)
from gpu_token_analytics.costs.stretches import Difference, StoredLines
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.ledger.document import COMPUTED_STATES
from gpu_token_analytics.rollups.documents import PLACE_FIELDS, tenants_seen
from gpu_token_analytics.rollups.lines import complete
from gpu_token_analytics.rollups.packed import unpack
from gpu_token_analytics.rollups.spans import HALF_HOUR, HOUR, Grain, Span, ceil, floor
from gpu_token_analytics.rollups.vectors import (
    LineKey,
    lines_less,
    read_space,
    read_total,
    weight_of,
)
from gpu_token_analytics.rollups.warm import WarmShares

Document = dict[str, Any]

# A batch is decoded as a whole: the driver's 16 MB would be 150 MB of objects, and a page often
# needs its beginning only.
BATCH_DOCUMENTS = 1_000
BATCH_FLEET_DOCUMENTS = 100


class CostReads:
    """Reads costs. `timeout_ms` bounds each database operation."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._cells: MongoCollection[Document] = database[Collection.LEDGER_CELLS]
        self._hourly: MongoCollection[Document] = database[Collection.ROLLUPS_HOURLY]
        self._daily: MongoCollection[Document] = database[Collection.ROLLUPS_DAILY]
        self._chunks = LineChunks(database)
        self._timeout_ms = timeout_ms

    def rows(
        self,
        query: CostQuery,
        now: datetime,
        sight: Sight | None = None,
        chunked: Chunked = Chunked.WHOLE,
        low: Order | None = None,
    ) -> Iterator[Row]:
        """The rows in order. `now` tells which stored figures can still change. low: from where on
        the first bucket's are needed; some before it may come too.

        Raises LinesReplaced unless `chunked` is WHOLE: what was read is then of two states.
        """
        pieces = (
            piece for span in query.spans for piece in self._pieces(query, span, now, chunked)
        )
        return Collector(query, sight or Sight(), low).rows(pieces)

    def total(
        self,
        query: CostQuery,
        now: datetime,
        sight: Sight | None = None,
        chunked: Chunked = Chunked.WHOLE,
    ) -> Row:
        """The whole selection as one row (of zeros when there is nothing)."""
        zero = Row(None, query.start, query.end, (), [0] * len(ROW_COLUMNS))
        return next(self.rows(query.whole(), now, sight, chunked), zero)

    def not_rolled(self, start: datetime, end: datetime) -> int:
        """Cells of the range whose newest content the rollups do not hold yet."""
        where = {"rolled": False, "minute": {"$gte": start, "$lt": end}}
        return self._cells.count_documents(where, maxTimeMS=self._timeout_ms)

    def _pieces(
        self, query: CostQuery, span: Span, now: datetime, chunked: Chunked
    ) -> Iterator[Piece]:
        if span.grain is Grain.MINUTES:
            return self._cell_pieces(query, span, now)
        if span.grain is Grain.HALF_HOURS:
            return self._half_pieces(query, span, now, chunked)
        collection = self._daily if span.grain is Grain.DAYS else self._hourly
        if query.by_place:
            return self._gpu_pieces(collection, query, span, now)
        return self._fleet_pieces(collection, query, span, now, chunked)

    def _fleet_pieces(
        self,
        collection: MongoCollection[Document],
        query: CostQuery,
        span: Span,
        now: datetime,
        chunked: Chunked,
    ) -> Iterator[Piece]:
        with closing(self._find_fleet(collection, query, span, now, chunked)) as documents:
            for document in documents:
                space = settled(read_space(document["space"]), document["final_at"], now)
                yield self._piece(document, document["start"], FLEET, space, document, query)

    def _piece(
        self,
        document: Document,
        start: datetime,
        place: Place,
        space: list[int],
        sums: Document,
        query: CostQuery,
    ) -> Piece:
        """A piece of sums of a document."""
        state, section = _state(document), sums[query.section]
        if "ref" not in section:
            return Piece(start, place, space, _read_section(section, query.section), state)
        stretch = StoredLines(self._chunks, section)
        return Piece(start, place, space, (), state, stretch, read_total(sums["total"]))

    def _gpu_pieces(
        self, collection: MongoCollection[Document], query: CostQuery, span: Span, now: datetime
    ) -> Iterator[Piece]:
        with closing(self._find_gpus(collection, query, span, ("space", query.section))) as found:
            for document in found:
                for place in document["places"]:
                    space = settled(read_space(place["space"]), document["final_at"], now)
                    yield self._piece(
                        document, document["start"], _place(document, place), space, place, query
                    )

    def _half_pieces(
        self, query: CostQuery, span: Span, now: datetime, chunked: Chunked
    ) -> Iterator[Piece]:
        """Half hours, from the documents of the hours they lie in."""
        hours = Span(Grain.HOURS, floor(span.start, HOUR), ceil(span.end, HOUR))
        fields = ("space", query.section, "second_half.space", f"second_half.{query.section}")
        chosen = (
            self._find_gpus(self._hourly, query, hours, fields)
            if query.by_place
            else self._find_fleet(self._hourly, query, hours, now, chunked, halves=True)
        )
        with closing(chosen):
            for hour, together in groupby(chosen, key=itemgetter("start")):
                documents = list(together)
                for start in (hour, hour + HALF_HOUR):
                    if span.start <= start < span.end:
                        for document in documents:
                            yield from self._half(query, document, start, now)

    def _half(
        self, query: CostQuery, document: Document, start: datetime, now: datetime
    ) -> Iterator[Piece]:
        """The half of one hourly document that begins at `start`."""
        places: Sequence[Document] = document.get("places", (document,))
        halves = [place.get("second_half") for place in places]
        # A fleet's half says of which whole (`of`); a GPU's stands beside its whole, where both
        # fields are missing.
        seen = document["seen"] if "places" not in document else None
        if any(half is None or half.get("of") != seen for half in halves):
            # Written by an earlier version of this program.
            gpus = frozenset((document["gpu"],)) if "gpu" in document else query.gpus
            yield from self._cell_pieces(
                replace(query, gpus=gpus), Span(Grain.MINUTES, start, start + HALF_HOUR), now
            )
            return
        for place, half in zip(places, halves, strict=True):
            assert half is not None
            at, space = _place(document, place), read_space(half["space"])
            if start > document["start"]:
                space = settled(space, document["final_at"], now)
                yield self._piece(document, start, at, space, half, query)
                continue
            space = list(map(sub, read_space(place["space"]), space))
            yield self._first_half(
                document, start, at, settled(space, document["final_at"], now), (place, half), query
            )

    def _first_half(
        self,
        document: Document,
        start: datetime,
        at: Place,
        space: list[int],
        sums: tuple[Document, Document],
        query: CostQuery,
    ) -> Piece:
        """A piece of the whole less its second half."""
        whole, half = sums
        state, name = _state(document), query.section
        if "ref" not in whole[name] and "ref" not in half[name]:
            lines = lines_less(_read_section(whole[name], name), _read_section(half[name], name))
            return Piece(start, at, space, lines, state)
        stretch = Difference(
            StoredLines(self._chunks, whole[name]), StoredLines(self._chunks, half[name])
        )
        total = list(map(sub, read_total(whole["total"]), read_total(half["total"])))
        return Piece(start, at, space, (), state, stretch, total)

    def _find_fleet(
        self,
        collection: MongoCollection[Document],
        query: CostQuery,
        span: Span,
        now: datetime,
        chunked: Chunked,
        *,
        halves: bool = False,
    ) -> Generator[Document, None, None]:
        where = {"scope": "fleet", "start": {"$gte": span.start, "$lt": span.end}}

        def shown(section: str) -> Document:
            names = ["space", "total", section]
            sums = [*names, *(f"second_half.{name}" for name in (*names, "of") if halves)]
            return dict.fromkeys(("start", "final_at", "seen", *sums), 1)

        def stays(document: Document) -> bool:
            if chunked is Chunked.FINAL_BY_PIECES:
                return document["final_at"] is not None and document["final_at"] <= now
            return chunked is Chunked.BY_PIECES

        section = query.section
        for document in self._find(collection, where, shown(section), BATCH_FLEET_DOCUMENTS, stays):
            if section != "by_tenant" or _knows_tenants(document, halves=halves):
                yield document
                continue
            # Written by an earlier version of this program: what it has are lines.
            one = {"_id": document["_id"]}
            for older in self._find(collection, one, shown("lines"), BATCH_FLEET_DOCUMENTS):
                for sums in (older, older.get("second_half") or {}):
                    sums["by_tenant"] = sums.pop("lines", {"tenant": [], "values": b""})
                yield older

    def _find_gpus(
        self,
        collection: MongoCollection[Document],
        query: CostQuery,
        span: Span,
        fields: Iterable[str],
    ) -> Generator[Document, None, None]:
        shown: Document = dict.fromkeys(("start", "final_at", "seen", "gpu"), 1)
        shown |= {f"places.{name}": 1 for name in (*PLACE_FIELDS, *fields)}
        where: Document = {
            "scope": "gpu",
            "start": {"$gte": span.start, "$lt": span.end},
            **_in("gpu", query.gpus),
        }
        where |= _in("places.host", query.hosts) | _in("places.gpu_name", query.gpu_names)
        return self._find(collection, where, shown, BATCH_DOCUMENTS)

    def _find(
        self,
        collection: MongoCollection[Document],
        where: Document,
        shown: Document,
        batch: int,
        stays: Callable[[Document], bool] = lambda _: False,
    ) -> Generator[Document, None, None]:
        """Documents by start, with those of their lines that are shown. stays: of which those that
        are in chunks are left there."""
        documents = collection.find(where, shown, max_time_ms=self._timeout_ms).sort("start", 1)

        def read_one(name: Any) -> Document | None:
            return collection.find_one({"_id": name}, shown, max_time_ms=self._timeout_ms)

        with documents.batch_size(batch):
            yield from complete(self._chunks, collection, documents, read_one, stays=stays)

    def _cell_pieces(self, query: CostQuery, span: Span, now: datetime) -> Iterator[Piece]:
        where: Document = {
            "minute": {"$gte": span.start, "$lt": span.end},
            "state": {"$in": list(COMPUTED_STATES)},
        }
        where |= (
            _in("gpu", query.gpus) | _in("host", query.hosts) | _in("gpu_name", query.gpu_names)
        )
        cursor = self._cells.find(where, CELL_FIELDS, max_time_ms=self._timeout_ms).sort(
            "minute", 1
        )
        shares = _SharesOfHour(self._shares_of_hour, query.gpus)
        with cursor.batch_size(BATCH_DOCUMENTS) as stored:
            cells = complete_cells(self._chunks, self._cells, stored, CELL_FIELDS)
            yield from cell_pieces(query, span, cells, shares, now)

    def _shares_of_hour(
        self, hour: datetime, gpus: frozenset[str]
    ) -> Iterator[tuple[str, WarmShares]]:
        where: Document = {"scope": "gpu", "start": hour, **_in("gpu", gpus)}
        for document in self._find(
            self._hourly, where, {"gpu": 1, "places.lines": 1}, BATCH_DOCUMENTS
        ):
            attributed: dict[LineKey, int] = {}
            for place in document["places"]:
                for model, tenant, vector in unpack(place["lines"]):
                    key = (model or "", tenant or "")
                    attributed[key] = attributed.get(key, 0) + weight_of(vector)
            yield document["gpu"], WarmShares(attributed)


class _SharesOfHour:
    """The weights by which warm idle money is shared: those of a GPU's whole hour, from the hourly
    documents."""

    def __init__(
        self,
        read: Callable[[datetime, frozenset[str]], Iterable[tuple[str, WarmShares]]],
        gpus: frozenset[str],
    ) -> None:
        self._read = read
        self._gpus = gpus
        self._hour: datetime | None = None
        self._of_gpu: dict[str, WarmShares] = {}

    def __call__(self, hour: datetime) -> Mapping[str, WarmShares]:
        """By GPU. Asked in order of time: one hour is held."""
        if hour != self._hour:
            self._hour, self._of_gpu = hour, dict(self._read(hour, self._gpus))
        return self._of_gpu


def _place(document: Mapping[str, Any], place: Mapping[str, Any]) -> Place:
    """Where an entry of a document's `places` is; a fleet document is its own entry."""
    if "gpu" not in document:
        return FLEET
    return document["gpu"], place["host"], place["gpu_name"], place.get("price_mode")


def _state(document: Mapping[str, Any]) -> int:
    """What tells a document from what it was before a change."""
    return int(document["seen"][:16], 16)


def _knows_tenants(document: Mapping[str, Any], *, halves: bool) -> bool:
    """Whether the sums by tenant are there, and of the rest of the document. Without a half that is
    of it, there is nothing to be read from (_half)."""
    sums = [document]
    if halves and (document.get("second_half") or {}).get("of") == document["seen"]:
        sums.append(document["second_half"])
    return all(tenants_seen(one) == document["seen"] for one in sums)


def _in(name: str, values: frozenset[str]) -> Document:
    return {name: {"$in": sorted(values)}} if values else {}


def _read_section(
    section: Mapping[str, Any], name: str
) -> Iterable[tuple[str | None, str | None, Sequence[int]]]:
    if name == "total":
        return [(None, None, read_total(section))]
    return unpack(section)
