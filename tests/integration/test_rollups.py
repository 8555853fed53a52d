"""Rollups over a real mongod: equal to the cells after crashes at every point, with two writers,
and out of order."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from bench.synthetic_cells import Fleet, cells

from gpu_token_analytics.costs.query import ROW, CostQuery
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.mongo import pieces
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups import lines as rollup_lines
from gpu_token_analytics.rollups.spans import Step
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.rollups.sums import cell_lines, cell_space
from gpu_token_analytics.rollups.vectors import (
    WARM,
    ZERO_LINE,
    ZERO_SPACE,
    added,
    read_space,
    read_total,
)
from gpu_token_analytics.settings import load

START = datetime(2026, 1, 30, 21, tzinfo=UTC)
MINUTES = 5 * 60
FLEET = Fleet(gpus=3, gpus_per_host=2, models=3, tenants=3)
END = START + timedelta(minutes=MINUTES)


class Died(Exception):
    """A crash, on purpose."""


@pytest.fixture(params=["inline", "chunks"])
def store(
    mongo_uri: str,
    mongo_database: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Store]:
    """With lines in the documents of sums, and with nearly all of them in chunks."""
    if request.param == "chunks":
        monkeypatch.setattr(rollup_lines, "MAX_INLINE_LINES", 1)
        monkeypatch.setattr(pieces, "MAX_PIECE_ITEMS", 2)
    settings = load(mongodb_uri=mongo_uri, mongodb_database=mongo_database)
    opened = open_store(settings)
    ensure_indexes(opened, settings)
    opened[Collection.LEDGER_CELLS].insert_many(cells(FLEET, START, MINUTES))
    yield opened
    opened.close()


def change(store: Store, rng: random.Random, count: int) -> None:
    """New content for some cells, as the closer writes it: other money, revision + 1, not
    rolled."""
    ledger = store[Collection.LEDGER_CELLS]
    for cell in rng.sample(list(ledger.find()), count):
        moved = rng.randint(0, cell["classes"]["warm_idle"])
        classes = {**cell["classes"]}
        classes["warm_idle"] -= moved
        classes["cold_idle"] += moved
        update: dict[str, Any] = {
            "classes": classes,
            "rolled": False,
            "revision": cell["revision"] + 1,
        }
        ledger.update_one({"_id": cell["_id"], "revision": cell["revision"]}, {"$set": update})


def assert_equal_to_cells(store: Store) -> None:
    """Every stored sum, against the cells and against the sums below it."""
    found = cast("list[CellDocument]", list(store[Collection.LEDGER_CELLS].find()))
    assert all(cell["rolled"] for cell in found)
    for name, length in (
        (Collection.ROLLUPS_HOURLY, timedelta(hours=1)),
        (Collection.ROLLUPS_DAILY, timedelta(days=1)),
    ):
        rollups = list(store[name].find())
        assert {one["scope"] for one in rollups} == {"gpu", "fleet"}
        for rollup in rollups:
            within = [
                cell
                for cell in found
                if rollup["start"] <= cell["minute"] < rollup["start"] + length
                and rollup.get("gpu", cell["gpu"]) == cell["gpu"]
            ]
            space = added((cell_space(cell) for cell in within), ZERO_SPACE)
            holders = rollup.get("places", [rollup])
            assert added((read_space(one["space"]) for one in holders), ZERO_SPACE) == space, (
                rollup["_id"]
            )
            lines = added((vector for cell in within for _, vector in cell_lines(cell)), ZERO_LINE)
            stored = added((read_total(one["total"]) for one in holders), ZERO_LINE)
            assert stored[:WARM] == lines[:WARM], rollup["_id"]
            assert stored[WARM + 1 :] == lines[WARM + 1 :], rollup["_id"]
            if length == timedelta(hours=1):
                half = added(
                    (cell_space(cell) for cell in within if cell["minute"].minute >= 30), ZERO_SPACE
                )
                held = added(
                    (read_space(one["second_half"]["space"]) for one in holders), ZERO_SPACE
                )
                assert held == half, rollup["_id"]


def assert_no_orphans(store: Store) -> None:
    """Every chunk belongs to the document as it is now."""
    chunks = list(store[Collection.LINE_CHUNKS].find({}, {"of": 1, "owner": 1}))
    assert bool(chunks) == (rollup_lines.MAX_INLINE_LINES == 1)
    for chunk in chunks:
        header = store.database[chunk["of"]].find_one({"_id": chunk["owner"]}, {"chunks": 1})
        assert header is not None
        assert chunk["_id"].startswith(header["chunks"] + "|")


def roll_all(store: Store) -> int:
    rollups, steps = Rollups(RollupStore(store.database)), 0
    while rollups.step_now():
        steps += 1
        assert steps < 100, "rolling does not come to an end"
    return steps


def test_rollups_equal_their_cells_and_change_nothing_the_second_time(store: Store) -> None:
    roll_all(store)
    assert_equal_to_cells(store)
    assert_no_orphans(store)
    before = list(store[Collection.ROLLUPS_HOURLY].find().sort("_id")) + list(
        store[Collection.ROLLUPS_DAILY].find()
    )
    store[Collection.LEDGER_CELLS].update_many({}, {"$set": {"rolled": False}})
    roll_all(store)
    assert before == list(store[Collection.ROLLUPS_HOURLY].find().sort("_id")) + list(
        store[Collection.ROLLUPS_DAILY].find()
    )


def test_a_crash_at_any_point_is_made_good(store: Store) -> None:
    rng = random.Random(3)
    points = ("gpu_hours", "fleet_hours", "gpu_days", "fleet_days")
    died = dict.fromkeys(points, 0)
    for round_number in range(24):
        change(store, rng, 15)
        target = points[round_number % len(points)]

        def crash(name: str, target: str = target) -> None:
            if name == target:
                died[target] += 1
                raise Died

        with pytest.raises(Died):
            Rollups(RollupStore(store.database), crash_point=crash).step_now()
        if round_number % 5 == 0:
            roll_all(store)
            assert_equal_to_cells(store)
    assert set(died.values()) == {6}
    roll_all(store)
    assert_equal_to_cells(store)


def test_two_writers_and_a_closer_at_once_end_in_the_right_sums(store: Store) -> None:
    stop = threading.Event()
    failures: list[Exception] = []

    def roll() -> None:
        rollups = Rollups(RollupStore(store.database))
        try:
            while not stop.is_set():
                rollups.step_now()
        except Exception as error:  # noqa: BLE001  the main thread asserts on it
            failures.append(error)

    writers = [threading.Thread(target=roll) for _ in range(2)]
    for writer in writers:
        writer.start()
    rng = random.Random(5)
    for _ in range(30):
        change(store, rng, 20)
    stop.set()
    for writer in writers:
        writer.join()
    assert not failures
    roll_all(store)
    assert_equal_to_cells(store)
    assert_no_orphans(store)


def test_a_writer_with_old_cells_in_hand_does_no_harm(store: Store) -> None:
    """It read an hour, slept, and writes after a newer sum was stored: refused, and its cells are
    not called rolled."""
    roll_all(store)
    slow = RollupStore(store.database)
    ledger = store[Collection.LEDGER_CELLS]
    stale = list(ledger.find({"gpu": "GPU-0000"}))

    class Stale:
        """Answers from what it read before."""

        def find(self, *_args: Any, **_kwargs: Any) -> list[dict[str, Any]]:
            return [cell for cell in stale if cell["minute"] < START + timedelta(hours=1)]

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

    change(store, random.Random(7), 300)
    roll_all(store)
    slow._cells = Stale()  # type: ignore[assignment]
    slow.roll_gpu_hours([("GPU-0000", START)])
    assert_equal_to_cells(store)


def test_two_half_views_of_one_version_leave_the_cells_dirty(store: Store) -> None:
    """Two cells change; each of two writers saw one change only. Equal versions, different sums:
    neither may be the end."""
    roll_all(store)
    ledger = store[Collection.LEDGER_CELLS]
    hour = {"gpu": "GPU-0001", "minute": {"$gte": START, "$lt": START + timedelta(hours=1)}}
    before = {cell["_id"]: cell for cell in ledger.find(hour)}
    first, second = sorted(before)[:2]
    for name in (first, second):
        classes = {**before[name]["classes"]}
        classes["cold_idle"] += classes["warm_idle"]
        classes["warm_idle"] = 0
        ledger.update_one(
            {"_id": name}, {"$set": {"classes": classes, "rolled": False}, "$inc": {"revision": 1}}
        )
    after = {cell["_id"]: cell for cell in ledger.find(hour)}

    for seen in (first, second):
        half = {**before, seen: after[seen]}

        class Half:
            """One of the two changes."""

            def find(
                self, *_args: Any, half: dict[str, Any] = half, **_kwargs: Any
            ) -> list[dict[str, Any]]:
                return list(half.values())

            def __getattr__(self, name: str) -> Any:
                return getattr(ledger, name)

        writer = RollupStore(store.database)
        writer._cells = Half()  # type: ignore[assignment]
        writer.roll_gpu_hours([("GPU-0001", START)])
    assert ledger.count_documents({"rolled": False}) >= 1
    roll_all(store)
    assert_equal_to_cells(store)


def test_months_are_read_from_days_and_hours(store: Store) -> None:
    roll_all(store)
    store[Collection.LEDGER_CELLS].delete_many({"minute": {"$lt": END - timedelta(hours=2)}})
    query = CostQuery(START, END, group_by=("model", "tenant"))
    total = CostReads(store.database).total(query, END)
    # the deleted cells are in the sums that were read
    assert total["cells"] == MINUTES * FLEET.gpus


HALVES = [
    CostQuery(START + timedelta(minutes=30), END - timedelta(minutes=30)),
    CostQuery(
        START + timedelta(minutes=30), END, Step.HOUR, ZoneInfo("Asia/Kolkata"), ("model", "tenant")
    ),
    CostQuery(START, END, Step.HOUR, ZoneInfo("Asia/Kolkata"), ("model",)),
    CostQuery(START, END - timedelta(minutes=30), group_by=("gpu", "class")),
    CostQuery(
        START + timedelta(minutes=17), END - timedelta(minutes=7), group_by=("host", "model")
    ),
    CostQuery(
        START, END - timedelta(minutes=30), group_by=("tenant",), hosts=frozenset(("host-01",))
    ),
    CostQuery(START, END - timedelta(minutes=30), tenant_lock="tenant-01"),
]


def found_rows(store: Store, query: CostQuery) -> dict[Any, tuple[int, ...]]:
    """Rows by bucket and group; when cells turn final is known by the hour only."""
    rows = CostReads(store.database).rows(query, END)
    return {(row.bucket, row.key): tuple(row.values[: ROW["provisional_cells"]]) for row in rows}


@pytest.mark.parametrize("query", HALVES)
def test_half_hours_are_the_sums_of_their_cells(store: Store, query: CostQuery) -> None:
    """Read from the halves that hourly documents hold, from none (an earlier version wrote them),
    from some."""
    roll_all(store)
    hourly = store[Collection.ROLLUPS_HOURLY]
    expected = found_rows(store, query)
    assert any(map(any, expected.values()))
    hourly.update_many(
        {"scope": "gpu", "gpu": "GPU-0001"}, {"$unset": {"places.$[].second_half": 1}}
    )
    assert found_rows(store, query) == expected
    # A fleet hour that an earlier version wrote over ours: the half that is left belongs to another
    # whole.
    hourly.update_many(
        {"scope": "fleet"},
        {"$set": {"second_half.of": "another", "second_half.space.cost_nusd": 1}},
    )
    assert found_rows(store, query) == expected
    hourly.update_many({"scope": "gpu"}, {"$unset": {"places.$[].second_half": 1}})
    hourly.update_many({"scope": "fleet"}, {"$unset": {"second_half": 1}})
    assert found_rows(store, query) == expected


def test_a_fleet_hour_of_which_a_part_has_no_halves_has_none(store: Store) -> None:
    roll_all(store)
    hourly = store[Collection.ROLLUPS_HOURLY]
    hourly.update_many(
        {"scope": "gpu", "gpu": "GPU-0001"}, {"$unset": {"places.$[].second_half": 1}}
    )
    change(store, random.Random(2), 200)
    store[Collection.LEDGER_CELLS].update_many({"gpu": "GPU-0001"}, {"$set": {"rolled": True}})
    roll_all(store)
    fleet_hours = list(hourly.find({"scope": "fleet"}))
    assert fleet_hours
    assert all(hour["second_half"] is None for hour in fleet_hours)


def test_steps_keep_their_pause(store: Store) -> None:
    now = [0.0]
    rollups = Rollups(
        RollupStore(store.database), min_interval_seconds=5, monotonic_seconds=lambda: now[0]
    )
    while rollups.step():
        now[0] += 5
    change(store, random.Random(1), 3)
    assert rollups.step() == 0
    now[0] += 5
    assert rollups.step() > 0
