"""Names without end: no document grows with them, nobody else's costs change, and readers see whole
cells and sums."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.cells import lines as cell_lines
from gpu_token_analytics.cells.line_chunks import ORPHAN_AFTER, LineChunks
from gpu_token_analytics.cells.lines import MAX_CORRECTIONS, bounded_corrections
from gpu_token_analytics.costs import lookups as reads
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.query import CellFilter, CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import Collection, cell_id
from gpu_token_analytics.ledger.document import Correction, is_computed
from gpu_token_analytics.mongo import pieces
from gpu_token_analytics.rollups import lines as rollup_lines
from gpu_token_analytics.rollups.spans import HOUR, floor
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import USAGE

ROOT = Path(__file__).parent.parent.parent
SHARED = Path(os.environ.get("GPU_TOKENS_SHARED_DATA", ROOT.parent / "shared" / "data"))
MANY_NAMES = SHARED / "cases" / "make_many_names.py"
LARGEST_BYTES = 2 * 1024 * 1024


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few lines are many."""
    monkeypatch.setattr(cell_lines, "_FEW_LINES", 1)
    monkeypatch.setattr(cell_lines, "MAX_INLINE_LINES", 3)
    monkeypatch.setattr(rollup_lines, "MAX_INLINE_LINES", 3)
    monkeypatch.setattr(pieces, "MAX_PIECE_ITEMS", 4)


def roll_all(one: Pipeline) -> None:
    rollups = Rollups(RollupStore(one.store.database, one.store.now))
    while rollups.step_now():
        pass


def rows(one: Pipeline, start: datetime, end: datetime, *group_by: str) -> dict[Any, Row]:
    query = CostQuery(start, end, group_by=group_by)
    return {row.key: row for row in CostReads(one.store.database).rows(query, one.store.now())}


def largest_bytes(one: Pipeline, *names: Collection) -> int:
    return max(len(bson.encode(found)) for name in names for found in one.store[name].find())


def orphans(one: Pipeline) -> list[Any]:
    """Chunks that do not belong to a document as it is now."""
    found = []
    for chunk in one.store[Collection.LINE_CHUNKS].find({}, {"of": 1, "owner": 1}):
        header = (
            one.store.database[chunk["of"]].find_one({"_id": chunk["owner"]}, {"chunks": 1}) or {}
        )
        if not chunk["_id"].startswith(header.get("chunks", "none") + "|"):
            found.append(chunk)
    return found


def names_events(minute: datetime, names: int, first: int = 0, gpu: str = "GPU-a") -> list[Event]:
    """A sample and one request of each name, all active in a minute."""
    events: list[Event] = [sample(first, minute, gpu_uuid=gpu)]
    for number in range(first, first + names):
        at = minute + timedelta(seconds=50)
        events.append(
            usage(number, at, 40.0, model=f"m{number % 7}", tenant=f"t{number}", gpu_uuids=[gpu])
        )
    return events


@pytest.mark.skipif(
    not MANY_NAMES.is_file(), reason=f"{MANY_NAMES} is not there (GPU_TOKENS_SHARED_DATA)"
)
def test_six_thousand_long_names_in_half_an_hour(pipeline: Callable[..., Pipeline]) -> None:
    """The fleet's hour and day hold them all, exactly, and no document came near what MongoDB
    takes."""
    printed = subprocess.run([sys.executable, MANY_NAMES], capture_output=True, check=True).stdout
    received = datetime(2026, 11, 29, 6, tzinfo=UTC)
    events = [decode(line, received) for line in printed.splitlines()]
    hour = floor(events[0].ts, HOUR)
    other = hour + 45 * MINUTE
    one = pipeline()
    one.ingest(
        [*(sample(n, hour + 30 * MINUTE, gpu_uuid=f"GPU-{n}", gpu_index=n) for n in range(4))]
    )
    one.ingest([*events, *names_events(other, 1, 90_000, "GPU-other")])
    one.close()
    roll_all(one)
    assert largest_bytes(one, *COLLECTIONS) < LARGEST_BYTES
    by_model = rows(one, hour, hour + HOUR, "model")
    assert len(by_model) == 6000 + 2, "and the neighbour's, and money that no model caused"
    cells = one.cells(minute={"$gte": hour, "$lt": hour + HOUR})
    assert sum(row.money_nusd for row in by_model.values()) == sum(
        cell["cost_nusd"] for cell in cells.values()
    )
    assert sum(row["requests"] for row in by_model.values()) == 6001
    assert sum(row["prompt_tokens"] for row in by_model.values()) == 6000 * 100 + 1000
    tenant = rows(one, hour, hour + HOUR, "tenant")[("t90000",)]
    attributed = cells[cell_id("GPU-other", to_us(other))]["classes"]["attributed"]
    assert (tenant["cost_nusd"], tenant["requests"]) == (attributed, 1)
    day = floor(hour, timedelta(days=1))
    assert {
        key: row["cost_nusd"]
        for key, row in rows(one, day, day + timedelta(days=1), "model").items()
    } == {key: row["cost_nusd"] for key, row in by_model.items()}
    assert one.audit().holds
    assert not orphans(one)


COLLECTIONS = (
    Collection.LEDGER_CELLS,
    Collection.ROLLUPS_HOURLY,
    Collection.ROLLUPS_DAILY,
    Collection.LINE_CHUNKS,
)


def test_a_command_of_many_cells_of_many_tenants_is_split(
    pipeline: Callable[..., Pipeline],
) -> None:
    """More than MongoDB takes in one command, in one group of cells closed together."""
    one = pipeline()
    start = minutes_ago(100)
    long = "\u6a21" * 200
    events: list[Event] = []
    for minute in range(60):
        at = start + minute * MINUTE
        events += [
            usage(minute * 1000 + n, at + 30 * MINUTE / 60, 5.0, model=f"{n}{long}")
            for n in range(250)
        ]
    one.ingest([sample(1, start), *events])
    one.close()
    roll_all(one)
    found = rows(one, start, start + 61 * MINUTE, "model")
    assert sum(row["requests"] for row in found.values()) == 60 * 250
    assert one.audit().holds


@pytest.mark.usefixtures("small")
def test_what_is_in_chunks_reads_as_if_it_were_not(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = pipeline()
    start = minutes_ago(130).replace(minute=0)
    events = [
        event
        for n in range(4)
        for event in names_events(start + 20 * n * MINUTE, 9 + n, 100 * n, f"GPU-{n % 2}")
    ]
    chunked.ingest(events)
    chunked.close()
    roll_all(chunked)
    monkeypatch.undo()
    inline = pipeline("-inline")
    inline.ingest(events)
    inline.close()
    roll_all(inline)
    assert not inline.store[Collection.LINE_CHUNKS].count_documents({})
    assert chunked.store[Collection.LINE_CHUNKS].count_documents({}) > 20
    for low, high in ((0, 120), (0, 90), (30, 120), (17, 101)):
        for group_by in (
            (),
            ("model",),
            ("model", "tenant"),
            ("gpu", "model"),
            ("tenant", "class"),
        ):
            shown = [
                {
                    key: row.values
                    for key, row in rows(
                        one, start + low * MINUTE, start + high * MINUTE, *group_by
                    ).items()
                }
                for one in (chunked, inline)
            ]
            assert shown[0] == shown[1], (low, high, group_by)
            assert any(any(values) for values in shown[0].values())
    lines = [
        {
            cell["_id"]: cell["lines"]
            for cell in one.ledger.cells.cells_of("GPU-0", None, None)
            if is_computed(cell)
        }
        for one in (chunked, inline)
    ]
    assert lines[0] == lines[1]
    values = [
        Reads(one.store.database).values(start, start + 2 * HOUR, None) for one in (chunked, inline)
    ]
    assert values[0] == values[1]
    sums, broken = Reads(chunked.store.database).identity(start, start + 2 * HOUR)
    assert not broken
    assert sums["lines_nusd"] == sums["attributed"] > 0
    assert chunked.audit().holds


@pytest.mark.usefixtures("small")
def test_a_cell_grows_shrinks_and_is_corrected_and_leaves_nothing_behind(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(finality_hours=1)
    minute = minutes_ago(30)
    one.ingest(names_events(minute, 2))
    one.close()
    name = cell_id("GPU-a", to_us(minute))
    assert len(one.cells()[name]["lines"]) == 2
    for count in (12, 30):
        one.ingest(names_events(minute, count)[1:])
        one.close()
        cell = one.cells()[name]
        assert "lines" not in cell
        assert cell["line_ref"]["lines"] == count
        assert cell["lines_total"]["cost_nusd"] == cell["classes"]["attributed"]
        roll_all(one)
        assert not orphans(one)
        assert one.audit().holds
    one.store[Collection.LEDGER_CELLS].update_one({"_id": name}, {"$set": {"state": "final"}})
    one.ingest(names_events(minute, 31)[-1:])
    one.close()
    (correction,) = one.cells()[name]["corrections"]
    assert len(correction["lines"]) == 20
    assert correction["lines_left_out"] == 11
    one.store[USAGE.collection].delete_many({"tenant": {"$nin": ["t1", "t2"]}})
    one.ledger.cells.mark_existing([name])
    one.close()
    cell = one.cells()[name]
    assert len(cell["lines"]) == 2
    assert not {"chunks", "line_ref", "lines_total", "top_models"} & cell.keys()
    roll_all(one)
    assert not [chunk for chunk in orphans(one) if chunk["of"] == "ledger_cells"]


@pytest.mark.usefixtures("small")
def test_readers_see_whole_cells_and_sums_while_they_are_written(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    minute = minutes_ago(30)
    hour = floor(minute, HOUR)
    one.ingest(names_events(minute, 10))
    one.close()
    roll_all(one)
    stop = threading.Event()
    failures: list[BaseException] = []
    looks: Counter[str] = Counter()

    def read() -> None:
        try:
            while not stop.is_set():
                for cell in one.ledger.cells.cells_of("GPU-a", minute, minute + MINUTE):
                    assert (
                        sum(line["cost_nusd"] or 0 for line in cell["lines"])
                        == cell["classes"]["attributed"]
                    )
                    looks["cells"] += 1
                found = rows(one, hour, hour + HOUR, "tenant").values()
                assert sum(row["cost_nusd"] for row in found) in whole
                looks["sums"] += 1
        except BaseException as error:  # noqa: BLE001  the main thread asserts on it
            failures.append(error)

    whole = {sum(row["cost_nusd"] for row in rows(one, hour, hour + HOUR, "tenant").values())}
    reader = threading.Thread(target=read)
    reader.start()
    for count in range(11, 41):
        one.ingest(names_events(minute, count)[-1:])
        one.close()
        roll_all(one)
    stop.set()
    reader.join()
    assert not failures
    assert min(looks["cells"], looks["sums"]) > 10
    assert not orphans(one)


@pytest.mark.usefixtures("small")
def test_a_reader_that_misses_chunks_reads_the_document_again(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a cell, or a sum, in hand whose chunks are replaced before it reads them."""
    one = pipeline()
    minute = minutes_ago(30)
    hour = floor(minute, HOUR)
    one.ingest(names_events(minute, 10))
    one.close()
    roll_all(one)
    read = LineChunks.read
    count = 10

    def replaced_before(*args: Any) -> Any:
        nonlocal count
        monkeypatch.setattr(LineChunks, "read", read)
        count += 1
        one.ingest(names_events(minute, count)[-1:])
        one.close()
        roll_all(one)
        return read(*args)

    monkeypatch.setattr(LineChunks, "read", replaced_before)
    (cell,) = one.ledger.cells.cells_of("GPU-a", minute, minute + MINUTE)
    assert (count, len(cell["lines"])) == (11, 11)
    assert sum(line["cost_nusd"] or 0 for line in cell["lines"]) == cell["classes"]["attributed"]
    monkeypatch.setattr(LineChunks, "read", replaced_before)
    found = rows(one, hour, hour + HOUR, "tenant")
    assert (count, sum(row["requests"] for row in found.values())) == (12, 12)


@pytest.mark.usefixtures("small")
def test_a_crash_between_chunks_and_cell_leaves_what_is_swept_up(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        """A crash, on purpose."""

    def die(*_args: object) -> None:
        raise Died

    one = pipeline()
    minute = minutes_ago(30)
    one.ingest(names_events(minute, 9))
    with monkeypatch.context() as patch:
        patch.setattr("gpu_token_analytics.cells.store.update_many", die)
        with pytest.raises(Died):
            one.close()
    assert len(orphans(one)) == 3
    one.store[Collection.LEDGER_CELLS].update_many({}, {"$unset": {"lease": "", "lease_until": ""}})
    one.close()
    roll_all(one)
    with monkeypatch.context() as patch:
        patch.setattr("gpu_token_analytics.rollups.store.swap", die)
        one.ingest(names_events(minute, 10)[-1:])
        one.close()
        with pytest.raises(Died):
            roll_all(one)
    left = orphans(one)
    assert len(left) > 3
    sweeper = LineChunks(one.store.database, one.store.now)
    assert sweeper.sweep() == 0, "they may be about to be referred to"
    later = LineChunks(one.store.database, lambda: one.store.now() + ORPHAN_AFTER + MINUTE)
    assert later.sweep() == 2
    assert not orphans(one)
    assert later.sweep() == 0
    roll_all(one)
    assert one.audit().holds


def test_a_page_of_cells_is_bounded_by_its_lines(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MAX_SHOWN_LINES", 5)
    monkeypatch.setattr(reads, "MAX_PAGE_LINES", 8)
    monkeypatch.setattr(cell_lines, "_FEW_LINES", 1)
    monkeypatch.setattr(cell_lines, "MAX_INLINE_LINES", 3)
    one = pipeline()
    start = minutes_ago(30)
    for n in range(4):
        one.ingest(names_events(start + n * MINUTE, 9, 100 * n))
    one.close()
    seen: list[str] = []
    after = None
    while True:
        page, more = Reads(one.store.database).cells(
            CellFilter(start, start + 4 * MINUTE), after, 100
        )
        seen += [cell["_id"] for cell in page]
        assert all(len(cell["lines"]) == 5 for cell in page)
        assert len(page) == 2
        if not more:
            break
        after = page[-1]["minute"], page[-1]["gpu"]
    assert seen == [cell_id("GPU-a", to_us(start + n * MINUTE)) for n in range(4)]


def test_what_was_refused_for_good_is_set_aside_and_everything_else_goes_on(
    pipeline: Callable[..., Pipeline],
) -> None:
    """An operator's validator refuses one GPU's cells, then the sums of another: as large documents
    once were."""
    one = pipeline()
    minute = minutes_ago(90)
    hour = floor(minute, HOUR)
    database = one.store.database
    database.command(
        "collMod", "ledger_cells", validator={"$nor": [{"gpu": "GPU-bad", "cost_nusd": {"$gt": 0}}]}
    )
    events = [
        event
        for gpu in ("GPU-bad", "GPU-good", "GPU-worse")
        for event in names_events(minute, 2, hash(gpu) % 10**6, gpu)
    ]
    one.ingest(events)
    one.close()
    assert one.cells()[cell_id("GPU-good", to_us(minute))]["revision"] == 1
    bad = {name: cell for name, cell in one.cells(gpu="GPU-bad").items() if cell["revision"] == 0}
    assert bad
    assert not any("due_at" in cell for cell in bad.values())
    aside = one.ledger.cells.aside
    assert {row["owner"] for row in aside.rows()} == set(bad)
    assert "code 121" in aside.rows()[0]["why"]
    assert one.metrics.registry.get_sample_value("gpu_tokens_documents_set_aside") == len(bad)
    database.command("collMod", "rollups_hourly", validator={"gpu": {"$ne": "GPU-worse"}})
    roll_all(one)
    found = rows(one, hour, hour + HOUR, "gpu")
    assert found[("GPU-good",)].money_nusd > 0
    assert ("GPU-worse",) not in found
    # One document of the sums for each hour since: one or two or three, by the minute this runs at.
    sums = [row["owner"] for row in aside.rows() if row["of"] == "rollups_hourly"]
    assert sums
    assert all("|GPU-worse|" in owner for owner in sums)
    assert {row["owner"] for row in aside.rows() if row["of"] == "ledger_cells"} == set(bad)
    report = one.audit()
    assert not report.holds, "what is set aside is not right, and is said"
    assert report.set_aside == len(bad) + len(sums)
    # It is tried again when something changes, and every hour.
    database.command("collMod", "ledger_cells", validator={})
    database.command("collMod", "rollups_hourly", validator={})
    one.ingest(names_events(minute, 1, 500, "GPU-bad")[-1:])
    one.store[Collection.SET_ASIDE].update_many(
        {}, {"$set": {"at": one.store.now() - timedelta(hours=2)}}
    )
    one.close()
    roll_all(one)
    assert aside.rows() == []
    assert one.audit().holds
    assert rows(one, hour, hour + HOUR, "gpu")[("GPU-worse",)].money_nusd > 0


def test_corrections_of_a_cell_are_bounded() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    line = {"model": "x" * 256, "tenant": "y" * 256, "method": "sweep", "cost_nusd": 1}
    corrections: list[Correction] = []
    for number in range(500):
        moved = {"attributed": number, "warm_idle": -number}
        one: Correction = {
            "revision": number,
            "at": at,
            "moved_nusd": moved,
            "cost_change_nusd": 1,
            "lines": [line] * 20,
        }
        corrections = bounded_corrections([*corrections, one])
        assert len(corrections) <= MAX_CORRECTIONS
        assert len(bson.encode({"corrections": corrections})) < 300_000
    assert sum(one["cost_change_nusd"] for one in corrections) == 500
    assert sum(one["moved_nusd"].get("attributed", 0) for one in corrections) == sum(range(500))
    assert corrections[0]["corrections"] == 500 - len(corrections) + 1
    assert corrections[-1]["lines"] == [line] * 20
