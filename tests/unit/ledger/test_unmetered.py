"""Utilisation u over L, of which known requests cover k, proves max(0, u x L - k) of unknown work,
and not more."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ledger.worlds import (
    MINUTE,
    SECOND,
    Document,
    World,
    gpu_samples,
    minutes,
    price,
    sample,
    usage,
    usages,
)

PRICES = [price("default", "3.6")]  # one nano-USD a microsecond: money is time


def heard(
    utilization: float | None,
    first_s: int = 0,
    last_s: int = 60,
    step_s: int = 10,
    mem_mb: float = 40_000,
) -> list[Document]:
    return [
        sample(f"s{at:04d}", at, utilization=utilization, mem_mb=mem_mb)
        for at in range(first_s, last_s + 1, step_s)
    ]


def classes_s(world: World, size_s: int = 60, count: int = 1) -> dict[str, float]:
    """Seconds of each class over all cells."""
    total: dict[str, float] = {}
    for cell in world.cells(minutes(count, size_s * SECOND)):
        assert cell.classes == cell.class_us, "at this price"
        assert sum(cell.class_us.values()) == cell.owned_us
        for name, us in cell.class_us.items():
            total[name] = total.get(name, 0) + us / SECOND
    return {name: seconds for name, seconds in total.items() if seconds}


@pytest.mark.parametrize("utilization", [0.0, 0.01, 0.05, 0.37, 1.0])
def test_without_requests_all_that_utilisation_says_is_unknown_work(utilization: float) -> None:
    share = {"unmetered_work": 60 * utilization, "warm_idle": 60 * (1 - utilization)}
    assert classes_s(World([], heard(utilization), PRICES)) == pytest.approx(
        {k: v for k, v in share.items() if v}
    )


@pytest.mark.parametrize(
    ("utilization", "unknown_s"),
    [(0.3, 0.0), (0.29, 0.0), (0.0, 0.0), (0.31, 0.6), (0.5, 12.0), (1.0, 42.0), (None, 0.0)],
)
def test_what_requests_explain_is_taken_off_first(
    utilization: float | None, unknown_s: float
) -> None:
    """Requests cover 3 s of each 10 s, in different places."""
    begins = (2, 10, 27, 33, 44, 56)
    world = World([usage(f"r{at}", at + 3, 3) for at in begins], heard(utilization), PRICES)
    expected = {"attributed": 18.0, "unmetered_work": unknown_s, "warm_idle": 42 - unknown_s}
    assert classes_s(world) == pytest.approx(
        {name: seconds for name, seconds in expected.items() if seconds}
    )


def test_requests_at_one_time_cover_it_once() -> None:
    world = World([usage(f"r{n}", 8 - n, 4) for n in range(3)], heard(0.8, last_s=10), PRICES)
    assert classes_s(world, size_s=10) == pytest.approx(
        {"attributed": 6, "unmetered_work": 2, "warm_idle": 2}
    )


def test_one_interval_does_not_explain_another() -> None:
    """Ten busy seconds that a request covers leave nothing over for the ten after it."""
    world = World([usage("r", 10, 10)], heard(0.5, last_s=20), PRICES)
    assert classes_s(world, size_s=20) == pytest.approx(
        {"attributed": 10, "unmetered_work": 5, "warm_idle": 5}
    )


def test_a_reading_looks_back() -> None:
    """The sample that ends an interval speaks for it; the last one, which nothing follows, on to
    the gap limit."""
    world = World(
        [],
        [sample("a", 0, utilization=1.0, mem_mb=1), sample("b", 20, utilization=0.25, mem_mb=1)],
        PRICES,
    )
    assert classes_s(world) == pytest.approx(
        {"unmetered_work": 5 + 7.5, "cold_idle": 15 + 22.5, "unobserved": 10}
    )
    null_last = World(
        [], [sample("a", 0, utilization=1.0, mem_mb=1), sample("b", 20, mem_mb=1)], PRICES
    )
    assert classes_s(null_last) == pytest.approx({"cold_idle": 50, "unobserved": 10}), (
        "null proves nothing"
    )


def test_past_the_gap_limit_a_reading_looks_back_on_nothing() -> None:
    world = World(
        [],
        [sample("a", 0, utilization=0.5, mem_mb=1), sample("b", 31, utilization=1.0, mem_mb=1)],
        PRICES,
    )
    assert classes_s(world, size_s=31) == pytest.approx(
        {"unmetered_work": 15, "cold_idle": 15, "unobserved": 1}
    )


def test_requests_in_the_next_minute_explain_an_interval_that_both_share() -> None:
    """55-65 is one interval at 50 %: what runs from 60 to 65 is all of it, so the first minute's
    part is idle."""
    samples = [
        sample("a", 55, utilization=0.0, mem_mb=40_000),
        sample("b", 65, utilization=0.5, mem_mb=40_000),
    ]
    explained, not_explained = (
        World(events, samples, PRICES).cells(minutes(1))[0] for events in ([usage("r", 65, 5)], [])
    )
    assert explained.class_us["unmetered_work"] == 0
    assert not_explained.class_us["unmetered_work"] == 2_500_000


def test_a_window_covers_its_minute() -> None:
    assert classes_s(World([usage("w", 30)], heard(1.0), PRICES)) == {"attributed": 60}


def test_a_request_that_was_never_active_covers_nothing() -> None:
    assert classes_s(World([usage("z", 30, 0.0)], heard(0.5), PRICES)) == {
        "unmetered_work": 30,
        "warm_idle": 30,
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(usages(gpus=("GPU-a",)), max_size=8, unique_by=lambda doc: doc["_id"]),
    st.lists(gpu_samples(gpus=("GPU-a",)), max_size=12, unique_by=lambda doc: doc["_id"]),
    st.sampled_from([SECOND, 10 * SECOND, 13_000_001, 59 * SECOND]),
)
def test_cells_of_any_size_add_up_to_the_microsecond(
    events: list[Document], samples: list[Document], size_us: int
) -> None:
    events = [doc for doc in events if doc["latency_ms"] is not None]  # a window's minute is a cell
    samples = [{**doc, "price_per_hour_usd": None} for doc in samples]
    world = World(events, samples, PRICES)
    end = minutes(3)[-1][1]
    spans = [
        (start, min(until, end)) for start, until in minutes(-(-3 * MINUTE // size_us), size_us)
    ]
    large, small = (
        {name: sum(cell.class_us[name] for cell in world.cells(cells)) for name in CLASSES}
        for cells in (minutes(3), spans)
    )
    assert large == small


CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")


def test_the_energy_of_an_interval_is_split_as_its_time() -> None:
    """1 kW at 0.36 USD/kWh: a second costs a ten-thousandth of a kWh's price twice over, work and
    idle alike."""
    row = price("default", "3.6", mode="owned", usd_per_kwh=0.36)
    world = World([], [{**doc, "power_w": 1000.0} for doc in heard(0.25)], [row])
    (cell,) = world.cells(minutes(1))
    assert cell.energy_mj == 60_000_000
    assert cell.cost_nusd == 60_000_000 + 6_000_000
    assert Fraction(cell.classes["unmetered_work"], cell.cost_nusd) == Fraction(1, 4)
