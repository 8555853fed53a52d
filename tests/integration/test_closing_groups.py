"""Closing many GPUs together: a few commands for all of them, and the ledger each would have
alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import (
    HOUR_NUSD,
    MINUTE,
    Commands,
    Pipeline,
    close_due,
    contents,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.closing import closer as closing
from gpu_token_analytics.closing.runs import runs_of
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.raw.read import RawReads, UsageTime
from gpu_token_analytics.wire.identity import raw_id
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

START = minutes_ago(60)


def fleet_minutes(gpus: int, first: int, count: int) -> list[Event]:
    """A sample every 15 seconds and five requests a minute on each GPU, ordered by time."""
    found: list[Event] = []
    for minute in range(first, first + count):
        for gpu in range(gpus):
            named, host, number = (
                {"gpu_uuids": [f"GPU-{gpu}"]},
                f"h{gpu // 8}",
                (minute * gpus + gpu) * 10,
            )
            at = START + minute * MINUTE + timedelta(seconds=gpu % 15)
            found += [
                usage(number + n, at + timedelta(seconds=9 * n), 5.0, host=host, **named)
                for n in range(5)
            ]
            found += [
                sample(
                    number + n,
                    at + timedelta(seconds=15 * n),
                    gpu_uuid=f"GPU-{gpu}",
                    gpu_index=gpu % 8,
                    host=host,
                )
                for n in range(4)
            ]
    return sorted(found, key=lambda event: event.ts)


def close_counting(one: Pipeline, commands: Commands) -> float:
    """Close what is due; returns commands per run of a GPU."""
    by_gpu: dict[str, list[int]] = {}
    for cell in one.cells(due_at={"$exists": True}).values():
        by_gpu.setdefault(cell["gpu"], []).append(to_us(cell["minute"]))
    closed = sum(len(runs_of(minutes)) for minutes in by_gpu.values())
    before = commands.sent.total()
    closer = one.closer()
    close_due(closer)
    return (commands.sent.total() - before) / closed


@pytest.mark.parametrize("owned_minutes", [0, 1440])
def test_a_backlog_is_closed_with_few_commands(
    pipeline: Callable[..., Pipeline], commands: Commands, owned_minutes: int
) -> None:
    one = pipeline(silent_gpu_owned_minutes=owned_minutes)
    one.ingest(fleet_minutes(32, 0, 8))
    assert close_counting(one, commands) < 4, "nothing was known of any GPU"
    one.ingest(fleet_minutes(32, 8, 8))
    assert close_counting(one, commands) < 2
    one.close()
    assert one.audit().holds


@pytest.mark.parametrize("owned_minutes", [0, 1440])
def test_a_new_minute_of_each_gpu_is_closed_with_few_commands(
    pipeline: Callable[..., Pipeline], commands: Commands, owned_minutes: int
) -> None:
    one = pipeline(silent_gpu_owned_minutes=owned_minutes)
    for minute in range(4):
        one.ingest(fleet_minutes(64, minute, 1))
        sent = close_counting(one, commands)
        assert sent < (3 if minute == 0 else 1), minute
    one.close()
    assert one.audit().holds


def mixed_events(dice: random.Random) -> list[Event]:
    """Few events of many GPUs: labels, a card and its slices, own prices, requests on two GPUs,
    silence."""
    found: list[Event] = []
    for number in range(150):
        at = START + timedelta(seconds=dice.randrange(1800))
        index = dice.randrange(8)
        gpu = f"GPU-{index}"
        if dice.random() < 0.5:
            named = dice.choice(
                (
                    {"gpu_uuids": [gpu]},
                    {"gpu_uuids": [], "gpu_index": index},
                    {"gpu_uuids": [gpu, f"GPU-{(index + 1) % 8}"]},
                    {"gpu_uuids": [f"MIG-{index % 2}"]},
                )
            )
            found.append(usage(number, at, dice.choice((0.0, 5.0, 400.0)), **named))
            continue
        values: dict[str, Any] = {
            "gpu_uuid": gpu,
            "gpu_index": index,
            "source": "replay",
            "name": f"name of {gpu}",
        }
        values["price_per_hour_usd"] = dice.choice((None, 1.0, 2.0)) if index == 0 else None
        if index == 7:
            values |= {
                "gpu_uuid": f"MIG-{dice.randrange(2)}",
                "mig_profile": "3g.40gb",
                "parent_uuid": "GPU-7",
            }
        found.append(sample(number, at, **values))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_together_or_alone_gives_one_ledger(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    events = mixed_events(dice)
    owned_minutes = dice.choice((0, 3, 1440))
    together, alone = (
        pipeline(name, silent_gpu_owned_minutes=owned_minutes) for name in ("a", "b")
    )
    halves = (events[:75], events[75:])  # the second one comes late
    for half in halves:
        together.ingest(half)
        together.close()
    monkeypatch.setattr(closing, "MAX_GROUP_US", 0)
    for half in halves:
        alone.ingest(half)
        alone.close()
    for one in (together, alone):
        report = one.audit()
        assert report.holds, report.findings
    assert contents(together.cells()) == contents(alone.cells())


def test_the_nearest_sample_of_each_gpu(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    at = START + timedelta(seconds=7)
    one.ingest(
        [
            sample(n, at + timedelta(seconds=second))
            for n, second in enumerate((0, 10, 10, 10, 20, 20))
        ]
    )
    one.ingest([sample(10, at, gpu_uuid="GPU-b")])
    raw, at_us = one.ledger.raw, to_us(at)
    asked = {
        ("GPU-a", at_us + 20_000_000),
        ("GPU-a", at_us),
        ("GPU-b", at_us + 1),
        ("GPU-c", at_us),
    }
    together = sorted(raw_id("h1", f"sample-{number}") for number in (1, 2, 3))
    other = raw_id("h1", "sample-10")
    assert {key: found["_id"] for key, found in raw.last_samples(asked).items()} == {
        ("GPU-a", at_us + 20_000_000): together[-1],
        ("GPU-b", at_us + 1): other,
    }
    asked = {
        ("GPU-a", at_us + 1),
        ("GPU-a", at_us + 20_000_001),
        ("GPU-b", at_us),
        ("GPU-c", at_us),
    }
    assert {key: found["_id"] for key, found in raw.first_samples(asked).items()} == {
        ("GPU-a", at_us + 1): together[0],
        ("GPU-b", at_us): other,
    }
    assert raw.last_samples(set()) == {}


def test_the_nearest_request_of_each_name(pipeline: Callable[..., Pipeline]) -> None:
    """Active up to its end, its end excluded; without a duration it is its end."""
    one = pipeline()
    at_us = to_us(START)
    one.ingest(
        [usage(0, START, 5.0), usage(1, START + MINUTE, 0.0), usage(2, START + 2 * MINUTE, 5.0)]
    )
    last, minute_us = at_us + 10 * 60_000_000, 60_000_000

    def before(at: int) -> int | None:
        found = one.ledger.raw.usage_before(
            [UsageTime("GPU-b", 0, last, at), UsageTime("GPU-a", 0, last, at)]
        )
        return found[1]["ts_us"] - at_us if found else None

    def since(at: int) -> int | None:
        found = one.ledger.raw.usage_from(
            [UsageTime("GPU-b", 0, last, at), UsageTime("GPU-a", 0, last, at)]
        )
        return found[1]["ts_us"] - at_us if found else None

    assert [before(at_us + at) for at in (-5_000_000, -4_999_999, 0, minute_us, minute_us + 1)] == [
        None,
        None,
        0,
        0,
        minute_us,
    ]
    assert [since(at_us + at) for at in (-1, 0, minute_us, minute_us + 1)] == [
        0,
        minute_us,
        minute_us,
        2 * minute_us,
    ]
    assert since(at_us + 2 * minute_us) is None
    assert one.ledger.raw.usage_before([]) == {}


@pytest.mark.parametrize("batch", [40, 1000])
def test_what_this_process_stored_is_not_read_back(
    pipeline: Callable[..., Pipeline],
    commands: Commands,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest(fleet_minutes(8, 0, 4), batch)
    with monkeypatch.context() as unread:
        unread.delattr(RawReads, "counters")  # no engine counted anything
        one.close()
    assert (commands.documents["token_usage"], commands.documents["gpu_metrics"]) == (0, 0)
    assert commands.sent["aggregate token_usage"] == 0, "they are not even counted"
    assert one.audit().holds
    assert commands.documents["token_usage"] > 0, "an audit reads"


def test_minutes_that_somebody_else_marked_are_all_that_is_read_back(
    pipeline: Callable[..., Pipeline], commands: Commands
) -> None:
    """As those of a GPU that was new a moment ago: the rest of its minutes is in memory."""
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest(fleet_minutes(4, 0, 20), 1000)
    first = to_us(START) // 60_000_000 * 60_000_000
    CellMarker(one.store, 0).mark(
        [(f"GPU-{gpu}", first + minute * 60_000_000) for gpu in range(4) for minute in range(2)]
    )
    one.close()
    read = commands.documents["token_usage"]
    assert 0 < read <= 4 * 5 * 4, "of two minutes, and of what is around them"
    assert one.audit().holds


def test_what_another_process_stored_is_not_missed(pipeline: Callable[..., Pipeline]) -> None:
    events = fleet_minutes(4, 0, 6)
    one, other, whole = pipeline(), pipeline(), pipeline("_whole")
    one.ingest(events[::2])
    other.ingest([*events[1::2], *events[::4]], batch=50)  # some of them twice
    whole.ingest(events)
    one.close()
    whole.close()
    assert contents(one.cells()) == contents(whole.cells())
    assert one.audit().holds


@pytest.mark.parametrize(
    "kinds",
    [(TokenUsage,), (GpuSample,), (TokenUsage, GpuSample)],
    ids=["requests", "samples", "both"],
)
def test_what_was_stored_by_somebody_who_died_before_he_marked_it_is_not_missed(
    pipeline: Callable[..., Pipeline], kinds: tuple[type[Event], ...]
) -> None:
    """His events come again, as duplicates, and the marks for them are left out: this process's own
    are still ahead."""
    events = fleet_minutes(2, 0, 2)
    dead, one = pipeline(), pipeline(close_debounce_seconds=3)
    dead.store_only([event for event in events[:10] if isinstance(event, kinds)])
    one.ingest(events[10:])
    gens = {name: cell["gen"] for name, cell in one.cells().items()}
    one.ingest(events[:10])
    assert gens.items() <= {name: cell["gen"] for name, cell in one.cells().items()}.items(), (
        "marks are left out"
    )
    wait_until_due(one)
    one.close()
    assert one.audit().holds


@pytest.mark.parametrize("kinds", [(TokenUsage,), (GpuSample,)], ids=["requests", "samples"])
def test_what_comes_twice_is_not_taken_twice(
    pipeline: Callable[..., Pipeline], kinds: tuple[type[Event], ...]
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    events = fleet_minutes(2, 0, 2)
    one.ingest(events[:-8])
    one.ingest([*(event for event in events[:-8] if isinstance(event, kinds)), *events[-8:]])
    one.close()
    assert one.audit().holds


def test_a_late_request_among_samples_that_are_known(pipeline: Callable[..., Pipeline]) -> None:
    """The energy up to the next sample, which is in a minute that is not due."""
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest(
        [sample(n, START + timedelta(seconds=10 + 20 * n), source="replay") for n in range(9)]
    )
    one.close()
    one.ingest([usage(1, START + timedelta(seconds=50), 5.0)])
    one.close()
    (busy,) = (cell for cell in one.cells().values() if cell["lines"])
    assert busy["energy_observed_us"] == 50_000_000, (
        "from the first sample to the end of the minute"
    )
    assert one.audit().holds


def wait_until_due(one: Pipeline) -> None:
    due_at = max(cell["due_at"] for cell in one.cells().values())
    time.sleep(max(0.0, (due_at - one.ledger.now()).total_seconds()) + 0.01)


def test_a_slice_is_priced_by_samples_of_its_card_beyond_the_minutes_in_which_the_card_is_due(
    pipeline: Callable[..., Pipeline],
) -> None:
    """All of them are in memory, but those that a card's own minutes need are not all that its
    slices need."""
    one = pipeline(silent_gpu_owned_minutes=0)
    part = sample(
        1, START, gpu_uuid="MIG-1", mig_profile="3g.40gb", parent_uuid="GPU-a", source="replay"
    )
    one.ingest([part, sample(2, START + 3 * MINUTE, source="replay", price_per_hour_usd=2.0)])
    one.close()
    late = sample(
        3, START + MINUTE + timedelta(seconds=30), source="replay", price_per_hour_usd=1.0
    )
    one.ingest(
        [
            late,
            *(
                usage(n, START + n * MINUTE + timedelta(seconds=40), gpu_uuids=["MIG-1"])
                for n in range(6)
            ),
        ]
    )
    one.closer().step()
    prices = [
        cell["price"]["nusd_per_hour"] for cell in one.cells(gpu="MIG-1").values() if cell["lines"]
    ]
    assert prices == [HOUR_NUSD] + [1_000_000_000] * 2 + [2_000_000_000] * 3
    one.close()
    assert one.audit().holds


def test_two_closers_share_a_backlog(pipeline: Callable[..., Pipeline]) -> None:
    """What one has taken is not all that the other looks at."""
    one = pipeline()
    one.ingest(fleet_minutes(4, 0, 5))
    first, second = one.ledger.cells.take_due(12), one.ledger.cells.take_due(100)
    assert len(first) == 12
    assert {cell["_id"] for cell in (*first, *second)} == set(one.cells())
    assert len(first) + len(second) == len(one.cells())
    assert max(cell["due_at"] for cell in first) <= min(cell["due_at"] for cell in second), (
        "longest due first"
    )
    assert one.ledger.cells.take_due(100) == []


def test_others_cells_are_left_to_who_stored_their_events_for_a_while(
    pipeline: Callable[..., Pipeline],
) -> None:
    one, other = pipeline(), pipeline()
    events = fleet_minutes(4, 0, 3)
    mine = {"GPU-0", "GPU-1"}
    other.ingest([event for event in events if gpu_of(event) not in mine])
    one.ingest([event for event in events if gpu_of(event) in mine])
    cells, own, wait = one.ledger.cells, one.own_gpus, timedelta(minutes=1)
    assert own == mine
    taken = cells.take_due(5, own, wait)
    assert len(taken) == 5, "not more than asked for"
    taken += cells.take_due(100, own, wait)
    assert {cell["gpu"] for cell in taken} == mine, "though the others were due before"
    assert cells.take_due(100, own, wait) == []
    one.store[Collection.LEDGER_CELLS].update_many(
        {"gpu": "GPU-3"}, {"$set": {"due_at": one.ledger.now() - wait}}
    )
    assert {cell["gpu"] for cell in cells.take_due(100, own, wait)} == {"GPU-3"}, (
        "nobody takes them: the other is gone"
    )

    def freed(waits: int) -> dict[str, Any]:
        return {
            "$set": {"due_at": one.ledger.now() - waits * wait},
            "$unset": {"lease": "", "lease_until": ""},
        }

    one.store[Collection.LEDGER_CELLS].update_many({}, freed(1))
    assert {cell["gpu"] for cell in cells.take_due(100, own, wait)} == mine, (
        "who has cells of his own is more patient"
    )
    one.store[Collection.LEDGER_CELLS].update_many({}, freed(12))
    assert len(cells.take_due(100, own, wait)) == len(one.cells()), "not for ever"


def gpu_of(event: Event) -> str:
    if isinstance(event, TokenUsage):
        return event.gpus[0]
    assert isinstance(event, GpuSample)
    return event.gpu


def test_the_books_are_read_as_often_for_a_fleet_that_is_new_as_for_a_few_gpus(
    pipeline: Callable[..., Pipeline], commands: Commands
) -> None:
    """The first minutes were computed without knowing the GPUs: they are marked, all together. Read
    for each GPU, the books would be all GPUs for each of them."""
    sent = []
    for gpus in (3, 30):
        one = pipeline(f"_{gpus}", silent_gpu_owned_minutes=0)
        one.ingest(fleet_minutes(gpus, 0, 2))
        closer = one.closer()
        close_due(closer)
        before = commands.sent.copy()
        closer.housekeep()
        spread = commands.sent - before
        sent.append({name: spread[name] for name in ("find inventory", "find prices")})
        # only what its labels meant is looked up for each GPU
        assert spread.total() < 40 + 5 * gpus, spread
        assert one.ledger.cells.count_due() == len(one.cells()), "each cell is computed again"
        assert not one.ledger.books.pending_gpus()
        one.close()
        assert one.audit().holds
    few, many = sent
    assert many == few
    assert few["find prices"] >= 1
