"""Closing on a real MongoDB: whatever comes in whatever order, the stored ledger is the one the raw
events say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor

import pytest
from tests.integration.ledger_support import (
    HOUR_NUSD,
    MINUTE,
    Pipeline,
    close_due,
    contents,
    fleet_events,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.cells.store import CellStore
from gpu_token_analytics.documents import Collection, MoneyClass
from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.ledger.document import CellDocument, CellFields, Correction, OpenedCell
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import USAGE


def test_a_fleet_closes_and_the_audit_holds(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    events = fleet_events()
    one.ingest(events)
    one.close()
    report = one.audit()
    assert report.holds, report.findings
    assert report.raw_counts is not None, "nothing was pending, so the totals were compared"
    assert report.raw_counts["requests"] > 500
    assert report.classes_nusd[MoneyClass.ATTRIBUTED] > 0
    assert report.classes_nusd[MoneyClass.UNOBSERVED] > 0, (
        "the GPUs fell silent an hour ago and are still paid for"
    )
    settled = {"$lt": minutes_ago(5)}  # the silent minutes go on with the clock
    before = one.cells(minute=settled)
    named = {*CellDocument.__required_keys__, *CellDocument.__optional_keys__}
    assert {name for cell in before.values() for name in cell} - named == set(), (
        "a field that the type does not name"
    )
    computed = {*OpenedCell.__required_keys__, *CellFields.__required_keys__}
    assert all(set(cell) >= computed for cell in before.values())
    one.restart()
    one.ingest(events, batch=333)
    one.close()
    after = one.cells(minute=settled)
    assert contents(after) == contents(before)
    assert {name: cell["revision"] for name, cell in after.items()} == {
        name: cell["revision"] for name, cell in before.items()
    }


def test_silent_minutes_between_and_after_are_paid_for_as_unobserved(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    first, second = minutes_ago(40), minutes_ago(30)
    one.ingest(
        [sample(1, first, price_per_hour_usd=2.0), sample(2, second, price_per_hour_usd=2.0)]
    )
    one.close()
    cells = sorted(one.cells(gpu="GPU-a").values(), key=lambda cell: cell["minute"])
    whole = [
        cell for cell in cells if cell["minute"] + MINUTE <= one.store.now() and cell["owned_us"]
    ]
    assert [cell["minute"] for cell in whole] == [first + n * MINUTE for n in range(len(whole))], (
        "no minute is missing"
    )
    assert len(whole) >= 40
    silent = [cell for cell in whole if cell["minute"] not in (first, second)]
    until_start, until_end = (
        Fraction(2_000_000_000, 3_600_000_000) * to_us(at)
        for at in (first, whole[-1]["minute"] + MINUTE)
    )
    assert sum(cell["cost_nusd"] for cell in whole) == floor(until_end + Fraction(1, 2)) - floor(
        until_start + Fraction(1, 2)
    )
    assert all(
        cell["classes"][MoneyClass.UNOBSERVED] == cell["cost_nusd"] > 0
        for cell in silent
        if cell["minute"] > first + MINUTE
    )
    assert one.audit().holds
    # A late sample with another price speaks for the silence after it, up to the next sample.
    one.ingest([sample(3, first + 2 * MINUTE, price_per_hour_usd=4.0)])
    one.close()
    assert {
        cell["price"]["nusd_per_hour"]
        for cell in one.cells().values()
        if first + 2 * MINUTE < cell["minute"] < second
    } == {4_000_000_000}
    assert one.audit().holds


def test_recorded_history_ends_with_its_last_event(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    one.declare()
    one.ingest(
        [
            usage(1, minutes_ago(50) + timedelta(seconds=30)),
            usage(2, minutes_ago(40) + timedelta(seconds=30)),
        ]
    )
    one.close()
    assert len([cell for cell in one.cells().values() if cell["owned_us"]]) == 11, (
        "the gap is owned, what follows is not"
    )
    assert one.audit().holds


def test_a_late_event_moves_money_of_a_final_cell_by_a_correction(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    at = minutes_ago(20)
    one.ingest([sample(n, at + timedelta(seconds=10 * n)) for n in range(6)])
    one.close()
    cells = one.store[Collection.LEDGER_CELLS]
    cells.update_many({}, {"$set": {"final_at": one.store.now() - MINUTE}})
    one.close()
    before = cells.find_one({"minute": at})
    assert before is not None
    assert before["state"] == "final"
    one.ingest([usage(1, at + timedelta(seconds=50))])
    one.close()
    after = cells.find_one({"minute": at})
    assert after is not None
    assert (after["state"], after["cost_nusd"]) == ("final", before["cost_nusd"]), "C never changes"
    (correction,) = after["corrections"]
    assert set(correction) <= {*Correction.__required_keys__, *Correction.__optional_keys__}
    assert correction["cost_change_nusd"] == 0 == sum(correction["moved_nusd"].values())
    assert correction["moved_nusd"]["attributed"] == after["classes"]["attributed"] > 0
    assert [line["requests"] for line in correction["lines"]] == [1]
    assert one.store[Collection.CORRECTIONS].count_documents({}) == 1, "the view shows it"
    one.restart()
    one.ingest([usage(1, at + timedelta(seconds=50))])
    one.close()
    again = cells.find_one({"minute": at})
    assert again is not None
    assert len(again["corrections"]) == 1, "a repeated event corrects nothing"


def test_a_retroactive_price_reaches_open_and_final_cells(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    at = minutes_ago(20)
    one.declare()
    one.ingest(
        [usage(1, at + timedelta(seconds=50)), usage(2, at + MINUTE + timedelta(seconds=50))]
    )
    one.close()
    cells = one.store[Collection.LEDGER_CELLS]
    cells.update_many({"minute": at}, {"$set": {"state": "final"}})
    row = {
        "_id": "p1",
        "scope": "host",
        "key": "h1",
        "usd_per_hour": "3.60",
        "mode": "on_demand",
        "valid_to": None,
    }
    one.store[Collection.PRICES].insert_one(
        {**row, "valid_from": at, "created_at": one.store.now(), "pending": True}
    )
    one.close()
    found = {cell["minute"]: cell for cell in one.cells().values() if cell["owned_us"]}
    assert [cell["cost_nusd"] for cell in found.values()] == [60_000_000, 60_000_000]
    change = 60_000_000 - round(HOUR_NUSD / 60)
    assert abs(found[at]["corrections"][0]["cost_change_nusd"] - change) <= 1
    assert "corrections" not in found[at + MINUTE]
    assert one.audit().holds


def test_a_cell_whose_raw_events_have_expired_stays_as_it_is(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(20)
    one.declare()
    one.ingest([usage(1, at + timedelta(seconds=50)), usage(2, at + 5 * MINUTE)])
    one.close()
    before = one.cells(minute=at)
    assert [len(cell["lines"]) for cell in before.values()] == [1]
    one.store[Collection.LEDGER_CELLS].update_many(
        {"minute": at}, {"$set": {"opened_at": minutes_ago(60 * 24 * 40)}}
    )
    one.store[USAGE.collection].delete_one({"event_id": "usage-1"})  # as the TTL index does
    row = {
        "_id": "p1",
        "scope": "default",
        "key": None,
        "usd_per_hour": "3.60",
        "mode": "on_demand",
        "valid_to": None,
    }
    one.store[Collection.PRICES].insert_one(
        {
            **row,
            "valid_from": datetime(1970, 1, 2, tzinfo=UTC),
            "created_at": one.store.now(),
            "pending": True,
        }
    )
    one.ingest([usage(3, at + timedelta(seconds=55))])  # a late event for the same minute
    one.close()
    assert contents(one.cells(minute=at)) == contents(before)
    assert one.metrics.registry.get_sample_value("gpu_tokens_cells_kept_total") == 1
    assert {
        cell["price"]["row"] for cell in one.cells(minute={"$gt": at}).values() if cell["owned_us"]
    } == {"p1"}
    report = one.audit()
    assert report.holds, report.findings
    assert (report.cells_kept, report.raw_counts) == (1, None)


def test_two_closers_at_once_agree(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    one.ingest(fleet_events(120))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            close_due(one.closer())
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    one.close()
    assert one.audit().holds
    assert {cell["revision"] for cell in one.cells().values()} == {1}, "nothing was written twice"


def test_a_crash_before_the_write_leaves_all_of_it_to_the_next(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline()
    one.ingest([sample(1, minutes_ago(40)), sample(2, minutes_ago(30))])
    with monkeypatch.context() as patched:
        patched.setattr(
            CellStore, "write", lambda _self, _writes: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            one.closer().step()
    # it would run out by itself
    one.store[Collection.LEDGER_CELLS].update_many({}, {"$unset": {"lease_until": ""}})
    one.close()
    assert one.audit().holds


def test_mig_slices_and_their_card_sum_to_the_cards_price(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    slices = [("MIG-1", "3g.40gb"), ("MIG-2", "2g.20gb"), ("MIG-3", "1g.10gb")]
    events: list[Event] = [sample(0, at + timedelta(seconds=1), utilization=None)]
    for number, (gpu, profile) in enumerate(slices, start=1):
        events.append(
            sample(
                number,
                at + timedelta(seconds=1),
                gpu_uuid=gpu,
                mig_profile=profile,
                parent_uuid="GPU-a",
                utilization=None,
            )
        )
    events.append(usage(1, at + timedelta(seconds=45), gpu_uuids=["MIG-1"]))
    for order in (events, events[::-1]):
        another = pipeline(
            "-".join(event.event_id for event in order)[:20].replace("-", ""),
            silent_gpu_owned_minutes=0,
        )
        another.ingest(order, batch=1)
        another.close()
        cells = {cell["gpu"]: cell for cell in another.cells(minute=at).values()}
        assert sum(cell["cost_nusd"] for cell in cells.values()) == pytest.approx(
            HOUR_NUSD / 60, abs=1
        )
        whole = sum(cell["cost_nusd"] for cell in cells.values())
        assert [cells[gpu]["cost_nusd"] for gpu, _ in slices] == [
            whole * parts // 7 for parts in (3, 2, 1)
        ]
        assert (
            cells["GPU-a"]["classes"][MoneyClass.COLD_IDLE]
            == cells["GPU-a"]["cost_nusd"]
            >= whole // 7
        )
        assert another.audit().holds
    assert one.cells() == {}


def test_a_card_prices_its_slices(pipeline: Callable[..., Pipeline]) -> None:
    at = minutes_ago(30)
    card = sample(0, at + timedelta(seconds=1), utilization=None, price_per_hour_usd=3.60)
    part = sample(
        1,
        at + timedelta(seconds=1),
        gpu_uuid="MIG-1",
        mig_profile="3g.40gb",
        parent_uuid="GPU-a",
        price_per_hour_usd=9.0,
    )
    for name, order in (("a", [card, part]), ("b", [part, card])):
        one = pipeline(name, silent_gpu_owned_minutes=0)
        for event in order:
            one.ingest([event])
            one.close()
        cells = {cell["gpu"]: cell["cost_nusd"] for cell in one.cells(minute=at).values()}
        assert cells == {"GPU-a": 60_000_000 - 60_000_000 * 3 // 7, "MIG-1": 60_000_000 * 3 // 7}
        assert one.audit().holds


CARD_AT = minutes_ago(40)


@pytest.mark.parametrize(
    ("first", "late"),
    [
        ([sample(1, CARD_AT, source="replay", price_per_hour_usd=2.0)], (5 * MINUTE, None)),
        (
            [
                sample(n, CARD_AT + at, source="replay", price_per_hour_usd=2.0)
                for n, at in enumerate((0 * MINUTE, 10 * MINUTE + timedelta(seconds=50)), start=1)
            ],
            (10 * MINUTE + timedelta(seconds=20), 5.0),
        ),
        (
            [
                sample(
                    1,
                    CARD_AT + 10 * MINUTE + timedelta(seconds=50),
                    source="replay",
                    price_per_hour_usd=2.0,
                )
            ],
            (5 * MINUTE, None),
        ),
    ],
    ids=["no price any more", "another price within a minute", "the first sample ever"],
)
def test_a_late_sample_of_a_card_prices_its_slices_anew(
    pipeline: Callable[..., Pipeline], first: list[Event], late: tuple[timedelta, float | None]
) -> None:
    one = pipeline()
    part = sample(
        8, CARD_AT, gpu_uuid="MIG-1", mig_profile="3g.40gb", parent_uuid="GPU-a", source="replay"
    )
    one.ingest(
        [*first, part, usage(1, CARD_AT + 10 * MINUTE + timedelta(seconds=40), gpu_uuids=["MIG-1"])]
    )
    one.close()
    before = contents(one.cells(gpu="MIG-1"))
    one.ingest([sample(9, CARD_AT + late[0], source="replay", price_per_hour_usd=late[1])])
    one.close()
    assert contents(one.cells(gpu="MIG-1")) != before
    report = one.audit()
    assert report.holds, report.findings


def test_a_request_that_names_two_labels_of_one_gpu_keeps_all_of_its_tokens(
    pipeline: Callable[..., Pipeline],
) -> None:
    """The card moved from slot 0 to slot 1; the placement is learned before the request or after
    it."""
    start = minutes_ago(30)
    end = start + timedelta(seconds=30)
    tokens = {"prompt_tokens": 1001, "completion_tokens": 101}
    events: list[Event] = [
        sample(1, start, gpu_index=0),
        sample(2, start + timedelta(seconds=40), gpu_index=1),
        sample(3, start, gpu_index=2, gpu_uuid="GPU-b"),
        usage(1, end, gpu_uuids=["h1/0", "h1/1"], **tokens),
        usage(2, end, gpu_uuids=["h1/0", "h1/1", "h1/2"], **tokens),
    ]
    seen = []
    for name, order in (("samples", events), ("requests", events[::-1])):
        one = pipeline(name)
        for event in order:
            one.ingest([event])
            one.close()
        report = one.audit()
        assert report.holds, report.findings
        lines = [line for cell in one.cells().values() for line in cell["lines"]]
        assert sum(line["requests"] for line in lines) == 2
        assert sum(line["prompt_tokens"] for line in lines) == 2 * 1001
        seen.append(contents(one.cells(minute=start)))
    assert seen[0] == seen[1]


def test_the_ids_of_two_tenants_are_two_events(pipeline: Callable[..., Pipeline]) -> None:
    """Both are stored and billed, in one batch, in two, and again."""
    one = pipeline()
    end = minutes_ago(30) + timedelta(seconds=30)
    own, other = (
        usage(1, end, event_id="chatcmpl-0001", tenant=tenant, prompt_tokens=tokens)
        for tenant, tokens in (("a", 10), ("b", 20))
    )
    hosts = [
        sample(1, end, event_id="boot-1"),
        sample(1, end, event_id="boot-1", host="h2", gpu_uuid="GPU-b"),
    ]
    one.ingest([own, other, *hosts])
    one.ingest([own])
    one.restart()
    one.ingest([other, *hosts])
    one.close()
    lines = [line for cell in one.cells().values() for line in cell["lines"]]
    assert {line["tenant"]: (line["requests"], line["prompt_tokens"]) for line in lines} == {
        "a": (1, 10),
        "b": (1, 20),
    }
    assert one.store[SAMPLE.collection].count_documents({}) == 2
    report = one.audit()
    assert report.holds, report.findings


def test_raw_events_of_an_earlier_version_are_refused(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    one.store[USAGE.collection].insert_one({"_id": "usage-1"})
    with pytest.raises(StoreRefused, match="MONGODB_DATABASE"):
        ensure_indexes(one.store, one.settings)
