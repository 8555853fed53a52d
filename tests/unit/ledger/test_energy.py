"""Millijoules between samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ledger.worlds import (
    SECOND,
    Document,
    World,
    by_request,
    minutes,
    price,
    sample,
    usage,
)

from gpu_token_analytics.ledger.energy import EnergyCurve
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.wire.identity import raw_id

NAN = float("nan")
GAP = 30 * SECOND


def millijoules(
    times_s: list[float], power: list[float], counter: list[float] | None = None
) -> list[int | None]:
    """Of each pair of samples."""
    at = np.array([round(t * SECOND) for t in times_s])
    curve = EnergyCurve.of(at, np.array(power), np.array(counter or [NAN] * len(power)), GAP)
    amounts, known = curve.between(at[:-1], at[1:])
    return [int(amount) if fine else None for amount, fine in zip(amounts, known, strict=True)]


def test_the_trapezoid() -> None:
    assert millijoules([0, 10, 20], [100, 200, 0]) == [1_500_000, 1_000_000]


def test_the_counter_goes_first() -> None:
    assert millijoules([0, 10], [100, 100], [5, 905]) == [900_000]


@pytest.mark.parametrize(
    ("counter", "expected"),
    [
        ([905.0, 5.0], 1_000_000),  # driver reload: it ran backwards
        ([NAN, 5.0], 1_000_000),
        ([0.0, 1e15], 1_000_000),  # 100 TW: a blank value, not energy
        ([7.0, 7.0], 1_000_000),  # it stands still, at 100 W
        ([0.0, 0.0], 1_000_000),
        ([7.0, 8.0], 1_000_000),  # it crawls: 0.1 W
        ([7.0, 40.0], 1_000_000),  # 3.3 W
        ([0.0, 1_000_000.0], 1_000_000),  # it counts millijoules: 100 kW
        ([0.0, 30_001.0], 1_000_000),
    ],
)
def test_a_counter_that_cannot_be(counter: list[float], expected: int) -> None:
    assert millijoules([0, 10], [100, 100], counter) == [expected]


@pytest.mark.parametrize(
    ("counter", "power", "expected"),
    [
        ([7.0, 41.0], [100.0, 100.0], 34_000),  # low, but not out of the question
        ([0.0, 30_000.0], [100.0, 100.0], 30_000_000),
        ([0.0, 700.0], [700.0, 3.0], 700_000),  # one reading is near enough
        ([0.0, 3000.0], [0.0, 0.0], 3_000_000),  # a power sensor that says 0 W says nothing
        ([0.0, 1_000_000.0], [NAN, NAN], 1_000_000_000),  # exactly 100 kW over 10 s
        ([0.0, 1.0], [NAN, 300.0], 1000),  # one reading contradicts nothing
        ([7.0, 7.0], [NAN, NAN], None),  # it stands still, and nothing else is known: never 0 J
        ([7.0, 7.0], [300.0, NAN], None),
        ([7.0, 7.0], [0.0, 0.0], 0),  # the power readings know of a 0
    ],
)
def test_a_counter_next_to_power_readings(
    counter: list[float], power: list[float], expected: int | None
) -> None:
    assert millijoules([0, 10], power, counter) == [expected]


def test_a_counter_that_is_stuck_for_a_while_is_left_for_that_while() -> None:
    counter = [0.0, 1000.0, 1000.0, 1000.0, 2000.0, 3100.0]
    assert millijoules([0, 10, 20, 30, 40, 50], [100, 100, 300, 300, 100, 100], counter) == [
        1_000_000,
        2_000_000,
        3_000_000,
        2_000_000,  # it moves again: since when, nobody knows
        1_100_000,
    ]


@pytest.mark.parametrize("every_s", [1, 5, 10, 15])
def test_a_counter_that_is_read_less_often_than_it_is_sampled_counts_no_joule_twice(
    every_s: int,
) -> None:
    """An exporter shows what the driver said every 30 s: the counter stands still, and catches
    up."""
    times = list(range(0, 121, every_s))
    counter = [300.0 * (second // 30 * 30) for second in times]
    told = millijoules([float(second) for second in times], [300.0] * len(times), counter)
    assert sum(amount or 0 for amount in told) == 120 * 300_000


def test_two_agents_of_one_gpu_of_which_one_lags_count_no_joule_twice() -> None:
    """Of every two samples the second is an exporter's, with what the driver said up to 30 s
    ago."""
    times = [2.5 * number for number in range(49)]
    counter = [
        300.0 * (second // 30 * 30 if number % 2 else second) for number, second in enumerate(times)
    ]
    told = millijoules(times, [300.0] * len(times), counter)
    assert sum(amount or 0 for amount in told) == 120 * 300_000


@pytest.mark.parametrize(
    ("counter", "power", "expected"),
    [
        # began anew: for one more pair by power
        ([9e6, 7.0, 4007.0], [300.0, 300.0, 300.0], [3_000_000, 3_000_000]),
        # how much of it is the second pair's, nobody knows
        ([7.0, 7.0, 6007.0], [300.0, 300.0, NAN], [3_000_000, None]),
        # only the counter knows, and counts it once
        ([7.0, 7.0, 6007.0], [NAN, NAN, NAN], [None, 6_000_000]),
        # it stood still because nothing was drawn
        ([7.0, 7.0, 3007.0], [0.0, 0.0, 600.0], [0, 3_000_000]),
        ([7.0, 7.0, 7.0], [300.0, 300.0, 300.0], [3_000_000, 3_000_000]),
    ],
)
def test_a_counter_that_catches_up(
    counter: list[float], power: list[float], expected: list[int | None]
) -> None:
    assert millijoules([0, 10, 20], power, counter) == expected


def test_what_lies_past_the_gap_limit_of_a_pair_does_not_change_it() -> None:
    """Else the cells that share the pair would not agree."""
    assert millijoules([0, 20, 40], [300, 300, 300], [7.0, 7.0, 12_007.0]) == [
        6_000_000,
        12_000_000,
    ]


def test_unknown_is_unknown() -> None:
    assert millijoules([0, 10, 10, 20], [100, 100, 300, 300]) == [1_000_000, 0, 3_000_000], (
        "equal times: each side its own"
    )
    assert millijoules([0, 30, 61], [100, 100, 100]) == [3_000_000, None], "past the gap limit"
    assert millijoules([0, 10, 20], [100, NAN, 100]) == [None, None]
    assert millijoules([0], [100]) == []


@given(
    st.floats(0, 1e5),
    st.floats(0, 1e5),
    st.integers(1, GAP),
    st.lists(st.integers(0, GAP), max_size=6),
)
def test_parts_are_never_negative_and_sum_to_the_pair(
    first: float, last: float, span: int, cuts: list[int]
) -> None:
    edges = np.array([0, *sorted(min(cut, span) for cut in cuts), span])
    curve = EnergyCurve.of(np.array([0, span]), np.array([first, last]), np.array([NAN, NAN]), GAP)
    parts, known = curve.between(edges[:-1], edges[1:])
    assert parts.min() >= 0
    assert known[edges[:-1] < span].all()
    assert abs(int(parts.sum()) - (first + last) / 2 * span / 1000) <= 0.51


def samples(power_w: float) -> list[Document]:
    return [sample(f"s{at:02d}", at, mem_mb=9000, power_w=power_w) for at in range(0, 61, 5)]


def test_owned_gpus_pay_for_energy_and_rented_ones_do_not() -> None:
    """1 kW for a minute is 1/60 kWh: at 0.30 USD/kWh and PUE 1.2 it is 6,000,000 nano-USD."""
    events = [usage("r", 30, 30)]
    for mode, extra in (("owned", 6_000_000), ("on_demand", 0), ("reserved", 0), ("spot", 0)):
        row = price("default", "3.6", mode=mode, usd_per_kwh=0.30, pue=1.2)
        (cell,) = World(events, samples(1000), [row]).cells(minutes(1))
        assert cell.cost_nusd == 60_000_000 + extra
        assert cell.classes["attributed"] == cell.classes["warm_idle"] == cell.cost_nusd // 2
        assert cell.energy_mj == 60_000_000
        assert cell.lines[0]["energy_mj"] == 30_000_000


def test_a_class_pays_for_its_own_energy() -> None:
    """1 kW while the request runs, nothing after it: the idle half minute pays its time only."""
    row = price("default", "3.6", mode="owned", usd_per_kwh=0.36)
    heard = [sample(f"b{at:02d}", at, mem_mb=9000, power_w=1000) for at in range(0, 31, 5)]
    heard += [sample(f"c{at:02d}", at, mem_mb=9000, power_w=0) for at in range(30, 61, 5)]
    (cell,) = World([usage("r", 30, 30)], heard, [row]).cells(minutes(1))
    assert cell.classes["attributed"] == 33_000_000
    assert cell.classes["warm_idle"] == 30_000_000
    assert cell.lines[0]["energy_mj"] == cell.energy_mj == 30_000_000


def test_requests_share_the_price_of_energy_as_they_share_time() -> None:
    """Each of two requests alone for 10 s; the second one at 1 kW."""
    row = price("default", "3.6", mode="owned", usd_per_kwh=0.36)
    # Two samples at one time: the one with the greater `_id` is the later one.
    low, high = sorted(("s10", "t10"), key=lambda event_id: raw_id("h", event_id))
    heard = [sample("s00", 0, power_w=0), sample(low, 10, power_w=0)]
    heard += [sample(high, 10, power_w=1000), sample("t20", 20, power_w=1000)]
    cells = World([usage("a", 10, 10), usage("b", 20, 10)], heard, [row]).cells(minutes(1))
    assert by_request(cells, ["a", "b"]) == {"a": 10_000_000, "b": 11_000_000}


def test_energy_alone_can_be_the_price() -> None:
    row = price("default", "0", mode="owned", usd_per_kwh=0.36)
    (cell,) = World([usage("a", 60, 60), usage("b", 60, 60)], samples(500), [row]).cells(minutes(1))
    assert cell.cost_nusd == cell.classes["attributed"] == 3_000_000


def test_the_dearest_energy_does_not_overflow() -> None:
    row = price("default", "100000", mode="owned", usd_per_kwh=100_000, pue=3)
    (cell,) = World([usage("a", 60, 60)], samples(1e5), [row]).cells(minutes(1))
    assert cell.cost_nusd == 10**14 // 60 + 1 + 3 * 10**14 * 100 // 60
    assert cell.classes["attributed"] == cell.cost_nusd


def test_params_default_gap() -> None:
    assert LedgerParams().gap_us == GAP
