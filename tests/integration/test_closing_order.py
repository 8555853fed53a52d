"""Closing in whatever order events come, and whatever they teach late: the ledger is the one of the
straight order."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

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

from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.wire.kind import Event


@pytest.mark.parametrize("seed", [1, 2])
def test_order_duplicates_batches_and_restarts_change_nothing(
    pipeline: Callable[..., Pipeline], seed: int
) -> None:
    events = fleet_events(120)
    straight, wild = pipeline("a"), pipeline("b")
    straight.ingest(events)
    straight.close()
    chaos = random.Random(seed)
    mixed = events + chaos.sample(events, len(events) // 5)
    chaos.shuffle(mixed)
    while mixed:
        size = chaos.randrange(1, 400)
        part, mixed = mixed[:size], mixed[size:]
        wild.ingest(part, batch=chaos.randrange(1, 200))
        if chaos.random() < 0.3:
            wild.closer().step()
        if chaos.random() < 0.2:
            wild.closer().housekeep()
        if chaos.random() < 0.2:
            wild.restart()
    wild.close()
    settled = {"$lt": minutes_ago(20)}  # the silent minutes go on with the clock
    assert contents(wild.cells(minute=settled)) == contents(straight.cells(minute=settled))
    assert wild.audit().holds


def test_a_label_becomes_the_uuid_that_samples_teach_later(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([usage(1, at + timedelta(seconds=40), gpu_uuids=[], gpu_index=0)])
    one.close()
    assert [cell["gpu"] for cell in one.cells().values() if cell["lines"]] == ["h1/0"]
    assert not any(cell["owned_us"] or cell["cost_nusd"] for cell in one.cells().values()), (
        "nobody told of a GPU yet"
    )
    one.ingest([sample(1, at + timedelta(seconds=5))])
    one.close()
    owned = [cell for cell in one.cells().values() if cell["owned_us"]]
    assert {cell["gpu"] for cell in owned} == {"GPU-a"}
    assert sum(line["requests"] for cell in owned for line in cell["lines"]) == 1
    assert one.audit().holds


def test_silence_of_a_label_goes_where_its_requests_go(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    early, late = minutes_ago(50), minutes_ago(40)
    one.ingest(
        [
            usage(n, at + timedelta(seconds=40), gpu_uuids=[], gpu_index=0)
            for n, at in enumerate((early, late))
        ]
    )
    one.close()
    assert not any(cell["owned_us"] for cell in one.cells().values()), (
        "of a GPU that nobody told of nobody owns the silence"
    )
    one.ingest([sample(1, early + timedelta(seconds=5), source="replay")])
    one.close()
    owned = [cell["gpu"] for cell in one.cells().values() if cell["owned_us"]]
    assert owned == ["GPU-a"] * 11
    assert one.audit().holds


@pytest.mark.parametrize(
    "late_by", [-10, 10], ids=["a sample before", "the first sample ever, after"]
)
def test_a_late_sample_names_and_prices_the_minutes_it_speaks_for(
    pipeline: Callable[..., Pipeline], late_by: int
) -> None:
    one = pipeline(silent_gpu_owned_minutes=2)
    at = minutes_ago(40)
    one.ingest([usage(n, at + n * 5 * MINUTE + timedelta(seconds=40)) for n in range(2)])
    one.close()
    assert {cell["gpu_name"] for cell in one.cells().values()} == {None}
    one.ingest(
        [sample(1, at + late_by * MINUTE, source="replay", host="h2", price_per_hour_usd=2.0)]
    )
    one.close()
    busy = [cell for cell in one.cells().values() if cell["lines"]]
    assert {(cell["host"], cell["gpu_name"]) for cell in busy} == {("h2", "H100")}
    paid = 2_000_000_000 if late_by < 0 else HOUR_NUSD  # a price holds from its first sample on
    assert {cell["price"]["nusd_per_hour"] for cell in busy} == {paid}
    assert one.audit().holds


def test_a_sample_older_than_the_first_one_names_what_was_before_both(
    pipeline: Callable[..., Pipeline],
) -> None:
    """The GPU is known by then: nothing but the sample itself tells of it."""
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(40)
    one.ingest([usage(1, at + timedelta(seconds=40)), sample(1, at + 20 * MINUTE, source="replay")])
    one.close()
    one.ingest([sample(2, at + 10 * MINUTE, source="replay", host="h2")])
    one.close()
    (busy,) = (cell for cell in one.cells().values() if cell["lines"])
    assert busy["host"] == "h2"
    assert one.audit().holds


def test_a_late_first_sample_without_a_price_ends_what_the_next_one_said_of_its_whole_minute(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=2)
    at = minutes_ago(40)
    one.ingest(
        [
            usage(1, at + timedelta(seconds=40)),
            sample(1, at + timedelta(minutes=5, seconds=30), price_per_hour_usd=2.0),
        ]
    )
    one.close()
    priced = "GPU-a|" + f"{at + 5 * MINUTE:%Y-%m-%dT%H:%MZ}"
    assert one.cells()[priced]["price"]["row"] == "sample"
    one.ingest([sample(2, at + timedelta(seconds=30))])
    one.close()
    assert one.cells()[priced]["price"]["row"] == "settings-0", "up to its sample"
    assert one.audit().holds


def test_a_slice_learned_of_late_is_priced_as_a_slice_from_its_first_request_on(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(40)
    one.ingest([usage(1, at + timedelta(seconds=40), gpu_uuids=["MIG-1"])])
    one.close()
    part = sample(
        1,
        at + 20 * MINUTE,
        gpu_uuid="MIG-1",
        mig_profile="3g.40gb",
        parent_uuid="GPU-a",
        source="replay",
    )
    one.ingest([part])
    one.close()
    cells = {cell["gpu"]: cell["cost_nusd"] for cell in one.cells(minute=at).values()}
    assert cells["MIG-1"] == round(HOUR_NUSD / 60) * 3 // 7
    assert one.audit().holds


def sparse_events(dice: random.Random) -> list[Event]:
    """Few events over an hour: labels that change their GPU, prices, slices, long silences."""
    found: list[Event] = []
    for number in range(40):
        at = minutes_ago(120) + timedelta(seconds=dice.randrange(3600))
        gpu, index = dice.choice([("GPU-a", 0), ("GPU-b", 0), ("GPU-c", 1)])
        if dice.random() < 0.6:
            named: dict[str, Any] = (
                {"gpu_uuids": [gpu]}
                if dice.random() < 0.5
                else {"gpu_uuids": [], "gpu_index": index}
            )
            if dice.random() < 0.2:
                named = {"gpu_uuids": ["MIG-1"]}
            found.append(usage(number, at, dice.choice((0.0, 5.0, 100.0)), **named))
            continue
        values: dict[str, Any] = {
            "gpu_uuid": gpu,
            "gpu_index": index,
            "source": "replay",
            "name": f"name of {gpu}",
        }
        values["mem_used_mb"] = dice.choice((None, None, 4.0))
        if gpu == "GPU-c":
            values["price_per_hour_usd"] = dice.choice((None, 1.0, 2.0))
            if dice.random() < 0.5:
                values |= {
                    "gpu_uuid": "MIG-1",
                    "mig_profile": "3g.40gb",
                    "parent_uuid": "GPU-c",
                    "price_per_hour_usd": None,
                }
        found.append(sample(number, at, **values))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_sparse_events_in_any_order_give_one_ledger(
    pipeline: Callable[..., Pipeline], seed: int
) -> None:
    dice = random.Random(seed)
    events = sparse_events(dice)
    straight, wild = (
        pipeline("a", silent_gpu_owned_minutes=10),
        pipeline("b", silent_gpu_owned_minutes=10),
    )
    straight.ingest(events)
    straight.close()
    for event in dice.sample(events, len(events)):
        wild.ingest([event])
        if dice.random() < 0.4:
            wild.closer().step()
        if dice.random() < 0.2:
            wild.closer().housekeep()
    wild.close()
    for one in (straight, wild):
        report = one.audit()
        assert report.holds, report.findings
    assert contents(wild.cells()) == contents(straight.cells())


@pytest.mark.parametrize("seed", range(int(os.environ.get("CLOSING_SEEDS", "4"))))
def test_sparse_events_while_two_closers_are_at_work(
    pipeline: Callable[..., Pipeline], seed: int
) -> None:
    dice = random.Random(1000 + seed)
    events = sparse_events(dice)
    owned = dice.choice((0, 2, 10, 1440))
    straight, wild = (pipeline(name, silent_gpu_owned_minutes=owned) for name in ("a", "b"))
    straight.ingest(events)
    straight.close()
    stop, failures = threading.Event(), []

    def work(own_dice: random.Random) -> None:
        try:
            closer = wild.closer()
            while not stop.is_set():
                closer.step()
                if own_dice.random() < 0.3:
                    closer.housekeep()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(random.Random(seed * 10 + number),))
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    mixed = dice.sample(events, len(events))
    while mixed:
        size = dice.randrange(1, 6)
        wild.ingest(mixed[:size])
        mixed = mixed[size:]
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    wild.close()
    report = wild.audit()
    assert report.holds, report.findings
    assert contents(wild.cells()) == contents(straight.cells())


@pytest.mark.parametrize("seed", range(int(os.environ.get("CLOSING_SEEDS", "4"))))
def test_sparse_events_that_two_processes_store(
    pipeline: Callable[..., Pipeline], seed: int
) -> None:
    """Each remembers what it stored. Some events come to both, and sometimes one dies before it has
    marked what it stored."""
    dice = random.Random(2000 + seed)
    events = sparse_events(dice)
    owned = dice.choice((0, 2, 10, 1440))
    straight = pipeline("a", silent_gpu_owned_minutes=owned)
    both = [pipeline("b", silent_gpu_owned_minutes=owned) for _ in range(2)]
    straight.ingest(events)
    straight.close()
    mixed = dice.sample(events, len(events))
    while mixed:
        size = dice.randrange(1, 6)
        part, mixed = mixed[:size], mixed[size:]
        one, other = dice.sample(both, 2)
        if dice.random() < 0.2:
            one.store_only(part)
            one.restart()
            mixed += part  # read again, by either
        else:
            one.ingest(part, batch=dice.randrange(1, 6))
        if dice.random() < 0.2:
            other.ingest(part)
        if dice.random() < 0.4:
            dice.choice(both).closer().step()
        if dice.random() < 0.2:
            dice.choice(both).closer().housekeep()
    for one in both:
        one.close()
    report = both[0].audit()
    assert report.holds, report.findings
    assert contents(both[0].cells()) == contents(straight.cells())


def test_a_batch_that_stands_still_after_its_mark_was_left_out_is_in_the_cell(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark before is still ahead, so none is made; then the process is stopped until that cell
    is due and another thread computes it, before the batch is among what is remembered."""
    one = pipeline(close_debounce_seconds=4, silent_gpu_owned_minutes=0)
    start = minutes_ago(5)
    one.ingest([sample(1, start)])
    while one.ledger.cells.count_due():
        one.close()  # the GPU is known: nothing but its events marks its next minutes
        time.sleep(0.05)
    one.ingest([usage(1, start + timedelta(seconds=150))])
    add = RecentEvents.add

    def late(self: RecentEvents, *args: Any, **given: Any) -> None:
        # a condition, not a pause: the cells become due by the server's clock
        while not one.ledger.cells.count_overdue():
            time.sleep(0.05)
        close_due(one.closer())
        add(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(RecentEvents, "add", late)
        one.ingest([usage(2, start + timedelta(seconds=160))])
    while one.ledger.cells.count_due():
        close_due(one.closer())
        time.sleep(0.05)
    lines = [line for cell in one.cells().values() for line in cell["lines"]]
    assert sum(line["requests"] for line in lines) == 2
    assert one.audit().holds
