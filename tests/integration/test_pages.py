"""Pages and files of sums whose lines stand in chunks: together one answer, whatever the order; of
one state each, whatever is written meanwhile; read from the chunks in which they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bench.synthetic_cells import Fleet, cells

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.costs import report
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.query import Chunked, CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.costs.report import CostPage, read_page, read_top
from gpu_token_analytics.costs.rows import total_row
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import LinesReplaced
from gpu_token_analytics.mongo import pieces
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups import lines as rollup_lines
from gpu_token_analytics.rollups.spans import HOUR, MINUTE, Step
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import load

START = datetime(2026, 1, 30, 21, tzinfo=UTC)
MINUTES = 4 * 60
END = START + MINUTES * MINUTE
NOW = END + timedelta(days=2)  # everything is final
FLEET = Fleet(gpus=3, models=4, tenants=40)
PAIRS = ("model", "tenant")
PIECE = 5


@pytest.fixture
def make(mongo_uri: str, mongo_database: str) -> Iterator[Callable[[str], Store]]:
    """Databases of the same cells, rolled up; of some lines nobody is the tenant."""
    made: list[tuple[str, Store]] = []

    def store(name: str) -> Store:
        settings = load(mongodb_uri=mongo_uri, mongodb_database=mongo_database + name)
        opened = open_store(settings)
        made.append((settings.mongodb_database, opened))
        ensure_indexes(opened, settings)
        stored = list(cells(FLEET, START, MINUTES, now=NOW))
        for cell in stored:
            cell["lines"] = [
                line | ({"tenant": ""} if line["tenant"] == "tenant-03" else {})
                for line in cell["lines"]
            ]
        opened[Collection.LEDGER_CELLS].insert_many(stored)
        roll(opened)
        return opened

    yield store
    for name, opened in made:
        opened.client.drop_database(name)
        opened.close()


@pytest.fixture
def store(make: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> Store:
    """One whose sums have nearly all lines in chunks of a few."""
    monkeypatch.setattr(rollup_lines, "MAX_INLINE_LINES", 3)
    monkeypatch.setattr(pieces, "MAX_PIECE_ITEMS", PIECE)
    return make("")


def roll(store: Store) -> None:
    """Until nothing is dirty."""
    rollups = Rollups(RollupStore(store.database, store.now))
    while rollups.step_now():
        pass


def correct(store: Store, minutes: int = 1) -> None:
    """Move the money of the busiest lines of the first minutes to other tenants, as the closer
    writes a correction."""
    ledger = store[Collection.LEDGER_CELLS]
    for cell in list(
        ledger.find({"minute": {"$lt": START + minutes * MINUTE}, "lines.1": {"$exists": True}})
    ):
        first, last = cell["lines"][0], cell["lines"][-1]
        moved = first["cost_nusd"] // 2 + 1
        first["cost_nusd"], last["cost_nusd"] = (
            first["cost_nusd"] - moved,
            last["cost_nusd"] + moved,
        )
        update = {"lines": cell["lines"], "rolled": False, "revision": cell["revision"] + 1}
        ledger.update_one({"_id": cell["_id"]}, {"$set": update})
    roll(store)


def page(store: Store, query: CostQuery, limit: int, cursor: str | None = None) -> CostPage:
    return read_page(CostReads(store.database), query, NOW, limit, cursor)


def all_pages(store: Store, query: CostQuery, limit: int) -> list[CostPage]:
    found = [page(store, query, limit)]
    while found[-1].next is not None:
        found.append(page(store, query, limit, found[-1].next))
    return found


def whole(store: Store, query: CostQuery, chunked: Chunked = Chunked.WHOLE) -> list[Row]:
    return list(CostReads(store.database).rows(query, NOW, chunked=chunked))


def figures(rows: list[Row]) -> list[Any]:
    return [(row.bucket, row.start, row.end, row.key, tuple(row.values)) for row in rows]


def money(rows: list[Row]) -> int:
    return sum(row.money_nusd for row in rows)


HOUR_OF_MANY = CostQuery(START, START + HOUR, group_by=PAIRS)
QUESTIONS = {
    "an hour by pairs": HOUR_OF_MANY,
    "by class": replace(HOUR_OF_MANY, group_by=(*PAIRS, "class")),
    "in another order": replace(HOUR_OF_MANY, group_by=("tenant", "model")),
    "by model": replace(HOUR_OF_MANY, group_by=("model",)),
    "by tenant": replace(HOUR_OF_MANY, group_by=("tenant",)),
    "one tenant by model": replace(
        HOUR_OF_MANY, group_by=("model",), tenants=frozenset({"tenant-07"})
    ),
    "a tenant's key": replace(HOUR_OF_MANY, tenant_lock="tenant-07"),
    "two models by tenant": replace(
        HOUR_OF_MANY, group_by=("tenant",), models=frozenset({"model-1", "model-3"})
    ),
    "two models by pairs": replace(HOUR_OF_MANY, models=frozenset({"model-1", "none", "model-3"})),
    "tenants by class": replace(HOUR_OF_MANY, group_by=("tenant", "class")),
    "one class": replace(HOUR_OF_MANY, classes=frozenset({"warm_idle"})),
    "the second half": replace(HOUR_OF_MANY, start=START + 30 * MINUTE),
    "the first half": replace(HOUR_OF_MANY, end=START + 30 * MINUTE),
    "the first half by tenant": replace(
        HOUR_OF_MANY, end=START + 30 * MINUTE, group_by=("tenant",)
    ),
    "several hours as one": replace(HOUR_OF_MANY, end=END),
    "several hours and halves as one": replace(HOUR_OF_MANY, start=START + 30 * MINUTE, end=END),
    "every hour": replace(HOUR_OF_MANY, end=END, step=Step.HOUR),
    "hours and minutes": replace(HOUR_OF_MANY, start=START + 7 * MINUTE, end=END - 11 * MINUTE),
    "minutes by tenant": replace(HOUR_OF_MANY, start=START + 7 * MINUTE, group_by=("tenant",)),
    "by GPU": replace(HOUR_OF_MANY, group_by=("gpu", *PAIRS)),
}


def test_all_pages_together_are_the_one_answer_of_lines_that_are_not_in_chunks(
    make: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = make("-inline")
    with monkeypatch.context() as few:
        few.setattr(rollup_lines, "MAX_INLINE_LINES", 3)
        few.setattr(pieces, "MAX_PIECE_ITEMS", PIECE)
        chunked = make("-chunked")
    assert not inline[Collection.LINE_CHUNKS].count_documents({})
    for name, query in QUESTIONS.items():
        wanted = figures(whole(inline, query))
        assert len(wanted) > 1, name
        for way in Chunked:
            assert figures(whole(chunked, query, way)) == wanted, (name, way)
        by_one = money([CostReads(inline.database).total(query, NOW)])
        for limit in (1 if len(wanted) < 60 else 17, 13, 1000):
            found = all_pages(chunked, query, limit)
            assert figures([row for one in found for row in one.rows]) == wanted, (name, limit)
            assert {money([one.total]) for one in found} == {by_one}, (name, limit)
            assert len({tuple(one.total.values) for one in found}) == 1, (name, limit)
            assert not any(one.changed for one in found), (name, limit)


def test_a_page_reads_the_chunks_in_which_its_groups_are(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[str] = []
    read_some, read = LineChunks.read_some, LineChunks.read

    def counted(self: LineChunks, *args: Any) -> Iterator[Any]:
        for piece in read_some(self, *args):
            chunks.append(piece["_id"])
            yield piece

    def never(self: LineChunks, *args: Any) -> Any:
        raise AssertionError(f"read as a whole: {args}")

    monkeypatch.setattr(LineChunks, "read_some", counted)
    monkeypatch.setattr(LineChunks, "read", never)
    pages = all_pages(store, HOUR_OF_MANY, PIECE)
    assert len(pages) > 20
    assert len(set(chunks)) >= 20
    assert len(chunks) <= 4 * len(pages)
    for query, most in (
        (replace(HOUR_OF_MANY, models=frozenset({"model-2"}), group_by=("tenant",)), 10),
        (QUESTIONS["by tenant"], 0 if _few_tenants(store) else 10),
    ):
        chunks.clear()
        page(store, query, 1000)
        assert len(chunks) <= most
    monkeypatch.setattr(LineChunks, "read", read)


def _few_tenants(store: Store) -> bool:
    hour = store[Collection.ROLLUPS_HOURLY].find_one({"scope": "fleet"})
    assert hour is not None
    return "ref" not in hour["by_tenant"]


def test_what_changes_between_two_pages_is_told_by_the_second(store: Store) -> None:
    before = whole(store, HOUR_OF_MANY)
    first = page(store, HOUR_OF_MANY, 30)
    correct(store)
    second = page(store, HOUR_OF_MANY, 30, first.next)
    after = whole(store, HOUR_OF_MANY)
    assert figures(before) != figures(after)
    assert second.changed
    keys = [row.key for row in (*first.rows, *second.rows)]
    assert keys == [row.key for row in after][: len(keys)], (
        "no group is left out, none is told twice"
    )
    assert figures(second.rows) == figures(after)[30:60], "a page is of one state"
    third = page(store, HOUR_OF_MANY, 30, second.next)
    assert not third.changed
    assert figures(third.rows) == figures(after)[60:90]


@pytest.mark.parametrize("name", ["every hour", "hours and minutes", "several hours as one"])
def test_a_change_is_told_only_where_it_cuts_a_bucket_in_two(store: Store, name: str) -> None:
    query = QUESTIONS[name]
    first = page(store, query, 10)
    correct(store, 40)
    assert page(store, query, 10, first.next).changed
    if query.step is Step.HOUR:
        begun = [row for row in whole(store, query) if row.start == START]
        first = page(store, query, len(begun) + 5)
        correct(store, 40)
        assert not page(store, query, 10, first.next).changed, "it ends in the second hour"


def test_a_page_that_is_replaced_while_it_is_read_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_some = LineChunks.read_some
    times = 0

    def replaced(self: LineChunks, *args: Any) -> Iterator[Any]:
        nonlocal times
        times += 1
        if times in (2, 5):
            correct(store, times)
        yield from read_some(self, *args)

    monkeypatch.setattr(LineChunks, "read_some", replaced)
    found = page(store, HOUR_OF_MANY, 60)
    assert times > 5
    monkeypatch.undo()
    assert figures(found.rows) == figures(whole(store, HOUR_OF_MANY))[:60]
    identity = CostReads(store.database).total(HOUR_OF_MANY, NOW)
    assert found.total.money_nusd == identity.money_nusd


def test_a_file_of_two_states_is_not_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = CostReads(store.database).rows(HOUR_OF_MANY, NOW, chunked=Chunked.FINAL_BY_PIECES)
    next(rows)
    correct(store)
    with pytest.raises(LinesReplaced):
        list(rows)


def test_a_file_of_what_may_change_any_second_is_of_one_state(store: Store) -> None:
    soon = START + 2 * HOUR
    reads = CostReads(store.database)
    before = figures(list(reads.rows(HOUR_OF_MANY, soon)))
    rows = reads.rows(HOUR_OF_MANY, soon, chunked=Chunked.FINAL_BY_PIECES)
    first = next(rows)
    correct(store)
    assert figures([first, *rows]) == before


def test_sums_of_earlier_versions_answer_as_they_are(store: Store) -> None:
    """Without sums by tenant or with those of another state, without the names of chunks."""
    hourly = store[Collection.ROLLUPS_HOURLY]
    names = ("by tenant", "the first half by tenant", "an hour by pairs", "tenants by class")
    wanted = {name: figures(whole(store, QUESTIONS[name])) for name in names}
    reads = Reads(store.database)
    values = reads.values(START, END, None)
    assert len(values.tenants) == FLEET.tenants - 1, "and nobody"
    assert len(values.models) == FLEET.models
    changes: tuple[dict[str, Any], ...] = (
        {"$set": {"by_tenant.of": "another", "by_tenant.values": b"", "by_tenant.tenant": []}},
        {"$unset": {"second_half.by_tenant": ""}},
        {"$unset": {"by_tenant": ""}},
        {"$unset": {"lines.ref.first": "", "by_model.ref.first": ""}},
    )
    for change in changes:
        hourly.update_many({"scope": "fleet"}, change)
        assert reads.values(START, END, None) == values
        for name in names:
            assert figures(whole(store, QUESTIONS[name])) == wanted[name], (name, change)
            pages = all_pages(store, QUESTIONS[name], 20)
            assert figures([row for one in pages for row in one.rows]) == wanted[name], name


@pytest.mark.parametrize("at_once", [5, 4_000])
def test_the_groups_with_most_money_are_found_among_all(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(report, "ROWS_AT_ONCE", at_once)
    for name in ("an hour by pairs", "in another order", "by model", "several hours as one"):
        query = QUESTIONS[name]
        rows = whole(store, query)
        found = read_top(CostReads(store.database), query, NOW, 7)
        dearest = sorted(rows, key=lambda row: -row.money_nusd)[:7]
        assert figures(found.rows) == figures(dearest), name
        assert list(found.total.values) == list(total_row(query, rows).values), name
        assert found.sight.cost_nusd == money(rows), name
        assert found.row_count == len(rows), name
        assert found.next is None


def test_with_buckets_each_has_its_dearest_first_as_far_as_there_is_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_GROUPS", 1)
    query = QUESTIONS["every hour"]
    rows = whole(store, query)
    ranked = sorted(rows, key=lambda row: (row.start, -row.money_nusd))
    begun = sum(row.start == START for row in rows)
    for top in (3, begun, begun + 2, len(rows), len(rows) + 1):
        found = read_top(CostReads(store.database), query, NOW, top)
        assert figures(found.rows) == figures(ranked[:top])
        assert found.total.money_nusd == money(rows), "of all hours"
        assert found.row_count == (len(rows) if top > begun * 3 else None), "if all were read"
    monkeypatch.undo()
    assert read_top(CostReads(store.database), query, NOW, 3).row_count == len(rows)
