"""Every outcome a driver can have, on a real mongod that is told to fail; and what then is in the
store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench.synthetic_cells import Fleet
from bench.synthetic_cells import cells as synthetic_cells
from pymongo import MongoClient  # the failing server is set up past the store
from tests.oracle.raw_documents import encoded_documents

from gpu_token_analytics.books.gpu_names import GpuNames
from gpu_token_analytics.books.inventory import upsert_inventory
from gpu_token_analytics.books.sightings import GpuDescription, Sighting
from gpu_token_analytics.cells.changes import ChangeMarks
from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.cells.store import CellStore, CellWrite
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.documents import Collection, cell_id
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused, StoreUnreachable
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.shared import NOTHING_SHARED
from gpu_token_analytics.mongo import client as store_client
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.commands import update_many
from gpu_token_analytics.mongo.indexes import INDEXES, VIEWS, ensure_indexes
from gpu_token_analytics.raw.insert import InsertOutcome, insert_raw
from gpu_token_analytics.raw.read import latest_samples
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import USAGE

MINUTE_US = 60_000_000


class FaultyMongod(EmbeddedMongod):
    """A mongod that takes `failCommand`."""

    def _command(self, binary: Path) -> list[str]:
        return [*super()._command(binary), "--setParameter", "enableTestCommands=1"]


@pytest.fixture(scope="module", params=[None, "rs0"], ids=["standalone", "replica-set"])
def faulty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedMongod]:
    with FaultyMongod(tmp_path_factory.mktemp("faulty"), replica_set=request.param) as server:
        yield server


@pytest.fixture
def settings(faulty: EmbeddedMongod, request: pytest.FixtureRequest) -> Settings:
    return load(mongodb_uri=faulty.uri, mongodb_database="faulty", mongodb_timeout_ms=2000)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings)
    found.client.drop_database(settings.mongodb_database)
    ensure_indexes(found, settings)
    yield found
    found.close()


@contextmanager
def failing(store: Store, command: str, times: int | str = 1, **how: Any) -> Iterator[None]:
    """The next `times` such commands fail like this."""
    mode = {"times": times} if isinstance(times, int) else times
    # A connection of its own: the store's takes a server that says "not primary" off its list for a
    # while.
    host, port = store.client.address or ("", 0)
    control: MongoClient[dict[str, Any]]
    with MongoClient(host, port, directConnection=True) as control:
        control.admin.command(
            "configureFailPoint", "failCommand", mode=mode, data={"failCommands": [command], **how}
        )
        try:
            yield
        finally:
            control.admin.command("configureFailPoint", "failCommand", mode="off")


def until_done(action: Callable[[], InsertOutcome]) -> InsertOutcome:
    """Repeat as the processor does: until there is an outcome."""
    for _ in range(20):
        try:
            return action()
        except (StoreUnreachable, StoreOutcomeUnknown):
            time.sleep(0.2)
    raise AssertionError("it never went through")


def raw(name: str, h: bytes = b"h", **fields: Any) -> dict[str, Any]:
    return {"_id": name, "h": h, **fields}


def raws(count: int) -> list[dict[str, Any]]:
    return [raw(f"e{number}") for number in range(count)]


def insert(
    store: Store, documents: list[dict[str, Any]], *, ask_first: bool = False
) -> InsertOutcome:
    return insert_raw(store, USAGE, encoded_documents(documents), ask_first=ask_first)


def ids(store: Store) -> set[str]:
    return {found["_id"] for found in store[USAGE.collection].find({}, {"_id": 1})}


@pytest.mark.parametrize("ask_first", [False, True])
def test_new_known_and_conflicting(store: Store, ask_first: bool) -> None:
    first = insert(store, raws(5), ask_first=ask_first)
    assert (first.inserted, first.duplicates) == (5, 0)
    batch = [raw("new"), *raws(5), raw("e3", b"other"), raw("new"), raw("new", b"other")]
    second = insert(store, batch, ask_first=ask_first)
    assert (second.inserted, second.duplicates) == (1, 6)
    assert set(second.conflicts) == {6, 8}
    assert (
        "'e3' is stored with another payload (hash 68, this one 6f74686572)" in second.conflicts[6]
    )
    assert not second.refused
    assert store[USAGE.collection].find_one({"_id": "e3"}, {"_id": 0}) == {"h": b"h"}, (
        "the first one stays"
    )


def test_a_document_that_will_never_be_accepted_is_singled_out(store: Store) -> None:
    store.database.command("collMod", USAGE.collection, validator={"n": {"$ne": "bad"}})
    outcome = insert(store, [raw("a"), raw("b", n="bad"), raw("c"), raw("a")])
    assert set(outcome.refused) == {1}
    assert (outcome.inserted, outcome.duplicates) == (2, 1)
    assert ids(store) == {"a", "c"}


def test_an_unknown_durability_is_no_success_even_among_duplicates(store: Store) -> None:
    insert(store, raws(3))
    error = {"code": 64, "errmsg": "waiting for replication timed out"}
    with (
        failing(store, "insert", writeConcernError=error),
        pytest.raises(StoreOutcomeUnknown, match="not known to be durable"),
    ):
        insert(store, raws(6))
    assert insert(store, raws(6)).duplicates == 6, "they were applied; now they are known to be"


@pytest.mark.parametrize(
    "how", [{"closeConnection": True}, {"errorCode": 10107}, {"errorCode": 91}]
)
def test_no_answer_and_no_primary_mean_repeat(store: Store, how: dict[str, Any]) -> None:
    with failing(store, "insert", times=4, **how), pytest.raises(StoreUnreachable):
        insert(store, raws(10))
    outcome = until_done(lambda: insert(store, raws(10)))
    assert outcome.inserted + outcome.duplicates == 10
    assert len(ids(store)) == 10


@pytest.mark.parametrize("code", [13, 14031, 20])
def test_what_repeating_does_not_repair_stops(store: Store, code: int) -> None:
    with failing(store, "insert", errorCode=code), pytest.raises(StoreRefused):
        insert(store, raws(3))
    assert not ids(store)


def test_a_lookup_that_fails_is_repeated_too(store: Store) -> None:
    insert(store, raws(3))
    with failing(store, "find", times=4, closeConnection=True), pytest.raises(StoreUnreachable):
        insert(store, raws(3))


def test_large_batches_go_in_parts(store: Store) -> None:
    batch = [raw(f"x{number}", text="y" * 60_000) for number in range(300)]
    assert insert(store, batch).inserted == 300
    again = insert(store, [*batch[:-1], raw("x299", b"other"), raw("last")])
    assert (again.inserted, again.duplicates, set(again.conflicts)) == (1, 299, {299})


# -- marks -----------------------------------------------------------------------------------------


def cells(store: Store) -> dict[str, dict[str, Any]]:
    return {cell["_id"]: cell for cell in store[Collection.LEDGER_CELLS].find()}


def test_a_mark_opens_a_cell_and_is_left_out_while_it_is_ahead(store: Store) -> None:
    marker = CellMarker(store, 10.0)
    assert marker.mark([("g", 0), ("g", MINUTE_US), ("g", 0)]) == [("g", 0), ("g", MINUTE_US)], (
        "each once"
    )
    assert marker.mark([("g", 0), ("g", MINUTE_US), ("h", 0)]) == [("h", 0)]
    cell = cells(store)[cell_id("g", 0)]
    assert (cell["gen"], cell["done_gen"], cell["state"], cell["rolled"]) == (1, 0, "pending", True)
    assert cell["minute"] == from_us(0)
    assert timedelta(seconds=8) < cell["due_at"] - store.now() <= timedelta(seconds=10)
    assert CellMarker(store, 10.0).mark([("g", 0)]), "another process knows nothing of it"
    assert cells(store)[cell_id("g", 0)]["gen"] == 2


def test_a_mark_counts_only_until_the_cell_is_really_due(store: Store) -> None:
    """Another process marked it long before: it is due in two seconds, not in the ten that this
    mark asked for."""
    early = store.now() + timedelta(milliseconds=500)
    CellMarker(store, 10.0).mark([("g", 0)])
    store[Collection.LEDGER_CELLS].update_one({}, {"$set": {"due_at": early}})
    marker = CellMarker(store, 10.0)
    marker.mark([("g", 0)])
    assert cells(store)[cell_id("g", 0)]["due_at"] == early.replace(
        microsecond=early.microsecond // 1000 * 1000
    ), "not later"
    assert marker.mark([("g", 0)]), (
        "it may be computed any moment: a mark left out now would be lost"
    )


UNSURE = {"code": 64, "errmsg": "waiting for replication timed out"}
HOUR = datetime(2026, 1, 30, 21, tzinfo=UTC)


PRICE = {"scope": "gpu", "key": "g", "valid_from": HOUR, "valid_to": None}
LEDGER_WRITES: dict[str, Callable[[CellStore, ChangeMarks, RollupStore], object]] = {
    "open": lambda _, changes, __: changes.open("g", [0, MINUTE_US]),
    "mark_existing": lambda cells, _, __: cells.mark_existing([cell_id("g", 0)]),
    "mark": lambda _, changes, __: changes.mark([Change("g", ChangeKind.SILENT, 0, MINUTE_US)]),
    "mark_priced": lambda _, changes, __: changes.mark_priced(PRICE, NOTHING_SHARED, HOUR),
    "mark_computed_before": lambda _, changes, __: changes.mark_computed_before(["g"], HOUR),
    "write": lambda cells, _, __: cells.write(
        [CellWrite(cell_id("g", 0), 1, 0, {"computed_at": HOUR})]
    ),
    "roll_gpu_hours": lambda _, __, rollups: rollups.roll_gpu_hours([("GPU-0000", HOUR)]),
    "roll_fleet_hours": lambda _, __, rollups: rollups.roll_fleet_hours([HOUR]),
    "mark_rolled": lambda _, __, rollups: rollups.mark_rolled([{"_id": "x", "version": 1}]),
}


@pytest.mark.parametrize("name", LEDGER_WRITES)
def test_a_ledger_write_of_unknown_durability_is_no_success(store: Store, name: str) -> None:
    """An answer that holds nothing but a write concern's error: applied, and not known to last."""
    store[Collection.LEDGER_CELLS].insert_many(synthetic_cells(Fleet(gpus=1), HOUR, 60))
    stores = CellStore(store, 0.0), ChangeMarks(store, 0.0), RollupStore(store.database)
    with failing(store, "update", writeConcernError=UNSURE), pytest.raises(StoreOutcomeUnknown):
        LEDGER_WRITES[name](*stores)
    LEDGER_WRITES[name](*stores)


def test_updates_are_split_by_bytes_and_one_that_is_too_large_is_singled_out(store: Store) -> None:
    sizes = [9_000_000, 9_000_000, 17_000_000, 1_000, 9_000_000]
    statements = [
        {"q": {"_id": n}, "u": {"$set": {"text": "x" * size}}, "upsert": True}
        for n, size in enumerate(sizes)
    ]
    outcome = update_many(store[Collection.ROLLUPS_DAILY], statements)
    assert (outcome.upserted, list(outcome.refused)) == (4, [2])
    assert "17,000," in outcome.refused[2]
    store.database.command(
        "collMod", Collection.ROLLUPS_DAILY.value, validator={"n": {"$ne": "bad"}}
    )
    outcome = update_many(
        store[Collection.ROLLUPS_DAILY],
        [
            {"q": {"_id": f"n{n}"}, "u": {"$set": {"n": value}}, "upsert": True}
            for n, value in enumerate(("a", "bad", 2**70, "b"))
        ],
    )
    assert (outcome.upserted, sorted(outcome.refused)) == (2, [1, 2])


def test_a_mark_after_the_cell_was_computed_makes_it_due_again(store: Store) -> None:
    marker = CellMarker(store, 10.0)
    marker.mark([("g", 0)])
    store[Collection.LEDGER_CELLS].update_one(
        {}, {"$set": {"done_gen": 1}, "$unset": {"due_at": ""}}
    )
    again = CellMarker(store, 10.0)
    again.mark([("g", 0)])
    cell = cells(store)[cell_id("g", 0)]
    assert cell["gen"] == 2
    assert "due_at" in cell


def test_without_a_debounce_every_mark_is_written(store: Store) -> None:
    marker = CellMarker(store, 0.0)
    assert [len(marker.mark([("g", 0)])) for _ in range(3)] == [1, 1, 1]
    assert cells(store)[cell_id("g", 0)]["gen"] == 3


def test_racing_marks_all_count(store: Store) -> None:
    """Upserts of one new cell by several processes collide; none may be lost, none may fail."""
    wanted = [(f"g{number}", 0) for number in range(40)]
    errors: list[BaseException] = []

    def mark() -> None:
        try:
            CellMarker(store, 10.0).mark(wanted)
        except BaseException as error:  # noqa: BLE001  # shown below
            errors.append(error)

    threads = [threading.Thread(target=mark) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {cell["gen"] for cell in cells(store).values()} == {6}
    assert len(cells(store)) == 40


def test_marks_forgotten_are_only_written_again(store: Store) -> None:
    marker = CellMarker(store, 10.0, remembered=10)
    for number in range(5):
        marker.mark([(f"g{number}-{n}", 0) for n in range(8)])
    assert len(marker._due) <= 10
    assert len(cells(store)) == 40


# -- inventory -------------------------------------------------------------------------------------


def seen(gpu: str, first: int, last: int, **fields: Any) -> Sighting:
    given: dict[str, Any] = {
        "gpu": gpu,
        "has_uuid": True,
        "host": "vm1",
        "gpu_index": 0,
        "name": "A100",
        "mig_profile": None,
        "parent_uuid": None,
        "source": "nvml",
        "live": True,
    }
    return Sighting(GpuDescription(**{**given, **fields}), first, last)


def test_the_inventory_is_the_same_in_any_order(store: Store) -> None:
    sightings = [
        seen("g", 10, 20),
        seen("g", 30, 40, host="vm2", name="H100"),
        seen("g", 5, 6, name="A10", live=False, source="replay"),
        seen("other", 50, 50),
    ]
    found = []
    for order in (sightings, sightings[::-1], [*sightings[2:], *sightings[:2], *sightings]):
        store[Collection.INVENTORY].delete_many({})
        upsert_inventory(store, order[:2])
        upsert_inventory(store, order[2:])
        upsert_inventory(store, order)
        found.append({row["_id"]: row for row in store[Collection.INVENTORY].find()})
        for row in found[-1].values():
            row.pop("pending", None)
            row.pop("changed_at", None)
    assert found[0] == found[1] == found[2]
    gpu = found[0]["g"]
    assert (gpu["first_us"], gpu["last_us"], gpu["host"], gpu["name"], gpu["live"]) == (
        5,
        40,
        "vm2",
        "H100",
        True,
    )
    assert found[0]["placement|vm1/0|g"]["last_us"] == 20


def test_a_gpu_is_pending_when_the_ledger_depends_on_what_changed(store: Store) -> None:
    ledger = LedgerStore(store)

    def pending() -> set[str]:
        rows = ledger.books.pending_gpus()
        for row in rows:
            # Our reading of the server's clock is behind by half a round trip, which a busy machine
            # makes long.
            assert row["changed_at"] <= store.now() + timedelta(seconds=5)
            ledger.books.clear_pending_gpus([row])
        return {row["_id"] for row in rows}

    upsert_inventory(store, [seen("a", 0, 10, live=False, source="replay"), seen("b", 0, 10)])
    assert pending() == {"a", "b"}, "they are new"
    upsert_inventory(
        store,
        [
            seen("a", 11, 20, live=False, source="replay"),
            seen("b", 11, 20, host="vm2", gpu_index=3),
        ],
    )
    assert pending() == set(), "cells take host and index from samples"
    upsert_inventory(store, [seen("a", 11, 30), seen("b", 11, 30, name="H100")])
    assert pending() == {"a", "b"}, "a became live, b has another name"
    upsert_inventory(
        store, [seen("b", 31, 40, name="H100", mig_profile="1g.10gb", parent_uuid="a")]
    )
    (stale,) = ledger.books.pending_gpus()
    upsert_inventory(
        store, [seen("b", 41, 50, name="H100", mig_profile="2g.20gb", parent_uuid="a")]
    )
    ledger.books.clear_pending_gpus([stale])
    assert pending() == {"b"}, "it changed again after it was read"
    upsert_inventory(store, [seen("b", 0, 5, name="A10")])
    assert pending() == set(), "a late sample does not turn a description back"


def test_placements_are_pending_when_they_can_change_a_meaning(store: Store) -> None:
    def pending() -> set[str]:
        rows = {
            row["gpu"]
            for row in store[Collection.INVENTORY].find({"kind": "placement", "pending": True})
        }
        store[Collection.INVENTORY].update_many({"kind": "placement"}, {"$set": {"pending": False}})
        return rows

    upsert_inventory(store, [seen("a", 0, 10)])
    assert pending() == {"a"}
    upsert_inventory(store, [seen("a", 11, 20)])
    assert pending() == set(), "nobody else had this label"
    upsert_inventory(store, [seen("b", 40, 50)])
    assert pending() == {"b"}
    upsert_inventory(store, [seen("b", 51, 60)])
    assert pending() == set()
    upsert_inventory(store, [seen("a", 30, 30)])
    assert pending() == {"a"}, "it grew towards the other one"
    placements = GpuNames(store).resolve({"vm1/0": "default", "vm9/9": "default"})
    assert [placements.resolve("vm1/0", at) for at in (0, 30, 34, 36, 99)] == [
        "a",
        "a",
        "a",
        "b",
        "b",
    ]
    assert placements.resolve("vm9/9", 0) == "vm9/9"


def test_the_latest_sample_of_each_gpu_is_read_through_the_index(store: Store) -> None:
    store[SAMPLE.collection].insert_many(
        {"_id": f"{gpu}-{at}", "gpu": gpu, "ts_us": at}
        for gpu in ("g1", "g2", "g3")
        for at in range(200)
    )
    assert [(row["gpu"], row["ts_us"]) for row in latest_samples(store)] == [
        ("g1", 199),
        ("g2", 199),
        ("g3", 199),
    ]
    pipeline = [
        {"$sort": {"gpu": -1, "ts_us": -1}},
        {"$group": {"_id": "$gpu", "sample": {"$first": "$$ROOT"}}},
    ]
    plan = store.database.command(
        "explain",
        {"aggregate": SAMPLE.collection, "pipeline": pipeline, "cursor": {}},
        verbosity="queryPlanner",
    )
    assert "DISTINCT_SCAN" in str(plan), "one index entry per GPU, not one per sample"


# -- indexes and connection ------------------------------------------------------------------------


def test_indexes_are_created_once_and_retention_follows_its_setting(
    store: Store, settings: Settings
) -> None:
    ensure_indexes(store, settings)
    for index in INDEXES:
        assert index.name in store[index.collection].index_information(), index
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    ensure_indexes(store, Settings(**{**given, "raw_retention_days": 90}))
    for name in (USAGE.collection, SAMPLE.collection):
        assert store[name].index_information()["ingested_at_1"]["expireAfterSeconds"] == 90 * 86_400


def test_raw_events_and_their_indexes_are_compressed(store: Store) -> None:
    for name in (USAGE.collection, SAMPLE.collection):
        stats = store.database.command({"collStats": name, "indexDetails": True})
        assert "block_compressor=zstd" in stats["wiredTiger"]["creationString"]
        assert "leaf_page_max=128KB" in stats["wiredTiger"]["creationString"]
        for index, details in stats["indexDetails"].items():
            assert "block_compressor=zstd" in details["creationString"], index


def test_a_server_that_knows_no_compression_makes_collections_as_it_likes(
    store: Store, settings: Settings
) -> None:
    store[USAGE.collection].drop()
    with failing(store, "create", errorCode=72):  # InvalidOptions
        ensure_indexes(store, settings)
    assert "gpus_1_ts_us_1" in store[USAGE.collection].index_information()
    assert insert(store, raws(3)).inserted == 3


def test_requests_of_an_earlier_version_are_found_by_their_id(
    store: Store, settings: Settings
) -> None:
    """They have no period, and had an index of their ids alone."""
    usage = store[USAGE.collection]
    usage.drop()
    usage.create_index([("request_id", 1)])
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    usage.insert_one(
        {"_id": b"old", "request_id": "r1", "tenant": "t", "ts_us": 1, "ingested_at": at}
    )
    ensure_indexes(store, settings)
    assert "request_id_1" not in usage.index_information()
    periods = [
        (at + timedelta(days=days) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=5)
        for days in (1, 2, 29)
    ]
    usage.insert_many(
        {
            "_id": f"new-{period}".encode(),
            "request_id": "r1",
            "tenant": "t",
            "ts_us": 2,
            "period": period,
            "ingested_at": from_us(period * 5 * MINUTE_US),
        }
        for period in periods
    )
    usage.insert_many(
        {
            "_id": f"other-{period}".encode(),
            "request_id": f"r{period}",
            "ts_us": 2,
            "period": period,
        }
        for period in periods
    )
    reads = Reads(store.database)
    assert {row["_id"] for row in reads.requests_by_id("r1", "t", 20)} == {
        b"old",
        *(f"new-{period}".encode() for period in periods),
    }
    assert reads.requests_by_id("r2", None, 20) == []
    store.database.command("profile", 2)
    reads.requests_by_id("r1", None, 20)
    store.database.command("profile", 0)
    (asked,) = store.database["system.profile"].find({"op": "query", "nreturned": 4})
    assert asked["planSummary"] == 'IXSCAN { period: 1, request_id: "hashed" }'
    assert asked["docsExamined"] == 4


def test_an_index_somebody_made_otherwise_is_named(store: Store, settings: Settings) -> None:
    cells = store[Collection.LEDGER_CELLS]
    cells.drop_index("gpu_1_minute_1")
    cells.create_index([("gpu", 1), ("minute", 1)])
    with pytest.raises(StoreRefused, match=r"dropIndex\('gpu_1_minute_1'\)"):
        ensure_indexes(store, settings)


def test_corrections_are_a_view_of_cells(store: Store, settings: Settings) -> None:
    store[Collection.LEDGER_CELLS].insert_many(
        [
            {
                "_id": "a",
                "gpu": "a",
                "minute": 1,
                "corrections": [{"revision": 2}, {"revision": 3}],
            },
            {"_id": "b", "gpu": "b"},
        ]
    )
    found = [row["corrections"]["revision"] for row in store[Collection.CORRECTIONS].find()]
    assert found == [2, 3]
    source, _ = VIEWS[Collection.CORRECTIONS]
    store.database.command(
        "collMod", Collection.CORRECTIONS.value, viewOn=source.value, pipeline=[{"$limit": 1}]
    )
    ensure_indexes(store, settings)
    assert len(list(store[Collection.CORRECTIONS].find())) == 2, (
        "an older view is brought up to date"
    )


def test_the_servers_clock(store: Store) -> None:
    assert abs(store.now() - datetime.now(UTC)) < timedelta(seconds=1)
    assert store.now() <= store.now()


def test_a_server_that_is_too_old_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_client, "OLDEST_VERSION", (99, 0))
    with pytest.raises(StoreRefused, match=r"is 6\.\d+\.\d+; 99.0 or newer is needed"):
        open_store(settings)


def test_wrong_credentials_no_rights_and_no_server_each_say_so(tmp_path: Path) -> None:
    with EmbeddedMongod(tmp_path / "mongod", auth=("admin", "s3cret-word")) as server:
        good = open_store(load(mongodb_uri=server.uri))
        good.client.admin.command(
            "createUser", "reader", pwd="reader-word", roles=[{"role": "read", "db": "gpu_tokens"}]
        )
        good.close()
        for uri, message in (
            (
                server.uri.replace("s3cret-word", "wrong-word"),
                "refused the login: check user, password and authSource",
            ),
            (
                f"mongodb://127.0.0.1:{server.port}/",
                "does not allow to connect: give the user of MONGODB_URI the rights",
            ),
        ):
            with pytest.raises(StoreRefused, match=message) as refused:
                open_store(load(mongodb_uri=uri))
            assert "word" not in str(refused.value).replace("password", ""), (
                "no password in a message"
            )
        reader = load(
            mongodb_uri=f"mongodb://reader:reader-word@127.0.0.1:{server.port}/?authSource=admin"
        )
        read_only = open_store(reader)
        try:
            with pytest.raises(StoreRefused, match="give the user of MONGODB_URI the rights"):
                ensure_indexes(read_only, reader)
        finally:
            read_only.close()
    with pytest.raises(StoreUnreachable, match="check MONGODB_URI"):
        open_store(load(mongodb_uri="mongodb://127.0.0.1:9/", mongodb_timeout_ms=300))
