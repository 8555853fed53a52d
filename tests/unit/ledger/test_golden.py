"""The example of docs/cost-model.md, by hand: one GPU at 3.60 USD/h, one minute, two requests that
overlap."""

from __future__ import annotations

from fractions import Fraction

import pytest
from tests.unit.ledger.worlds import (
    MINUTE,
    SECOND,
    T0,
    Document,
    World,
    by_request,
    minutes,
    price,
    sample,
    usage,
)

from gpu_token_analytics.ledger.params import LedgerParams

# W = (prompt - cached) + 4 * completion: 220 + 1000 = 1220 over [0, 30); 100 + 1600 = 1700 over
# [20, 40).
R0 = usage("0", 30, 30, prompt=220, completion=250)
R1 = usage("1", 40, 20, prompt=100, completion=400)
IDS = ["0", "1"]
GOLDEN = {"0": 23_236_074, "1": 16_763_926}
PRICES = [price("default", "3.60")]


def golden(samples: list[Document], cell_us: int = MINUTE) -> World:
    return World([R1, R0], samples, PRICES, LedgerParams(cell_us=cell_us))


def test_one_minute() -> None:
    (cell,) = golden([]).cells(minutes(1))
    assert by_request([cell], IDS) == GOLDEN
    assert cell.cost_nusd == 60_000_000
    assert cell.classes["attributed"] == 40_000_000
    assert cell.classes["unobserved"] == 20_000_000
    assert cell.class_us == {
        "attributed": 40 * SECOND,
        "unmetered_work": 0,
        "warm_idle": 0,
        "cold_idle": 0,
        "unobserved": 20 * SECOND,
    }


def test_the_arithmetic_of_the_page() -> None:
    """[0,20) r0 alone: 20,000,000. [20,30) both, 1220/30 to 1700/20. [30,40) r1 alone:
    10,000,000."""
    shared = Fraction(1220, 30) / (Fraction(1220, 30) + Fraction(1700, 20)) * 10_000_000
    assert round(20_000_000 + shared) == GOLDEN["0"]
    assert round(10_000_000 - shared + 10_000_000) == GOLDEN["1"]


@pytest.mark.parametrize("size_s", [1, 5, 6, 10, 12, 20, 30])
def test_the_same_sums_with_smaller_cells(size_s: int) -> None:
    cells = golden([], cell_us=size_s * SECOND).cells(minutes(60 // size_s, size_s * SECOND))
    costs = by_request(cells, IDS)
    assert sum(costs.values()) == sum(cell.classes["attributed"] for cell in cells) == 40_000_000
    assert sum(cell.classes["unobserved"] for cell in cells) == 20_000_000
    if size_s == 10:
        assert costs == GOLDEN
    shared_cells = 10 // size_s + 1  # only where both are active is there anything to round
    assert all(abs(costs[key] - GOLDEN[key]) <= shared_cells for key in IDS)


@pytest.mark.parametrize("size_us", [7 * SECOND, 13_000_001, 59_999_999])
def test_the_same_sums_with_odd_cells(size_us: int) -> None:
    count = -(-MINUTE // size_us)
    spans = [(start, min(until, T0 + MINUTE)) for start, until in minutes(count, size_us)]
    cells = golden([], cell_us=size_us).cells(spans)
    costs = by_request(cells, IDS)
    assert sum(cell.cost_nusd for cell in cells) == 60_000_000
    assert sum(costs.values()) == 40_000_000
    assert all(abs(costs[key] - GOLDEN[key]) <= 3 for key in IDS)


@pytest.mark.parametrize(
    ("utilization", "mem_mb", "kind"),
    [
        (0.0, 40_000.0, "warm_idle"),
        (0.0, 10.0, "cold_idle"),
        (1.0, 40_000.0, "unmetered_work"),
        (None, 40_000.0, "warm_idle"),
        (None, None, "warm_idle"),
    ],
)
def test_the_idle_part_is_what_the_samples_say(
    utilization: float | None, mem_mb: float | None, kind: str
) -> None:
    samples = [
        sample(f"s{at}", at, utilization=utilization, mem_mb=mem_mb) for at in range(0, 60, 5)
    ]
    (cell,) = golden(samples).cells(minutes(1))
    assert by_request([cell], IDS) == GOLDEN, "samples never move attributed money"
    assert cell.classes == {
        **dict.fromkeys(cell.classes, 0),
        "attributed": 40_000_000,
        kind: 20_000_000,
    }
    assert cell.samples == 12


def test_the_line() -> None:
    (cell,) = golden([]).cells(minutes(1))
    (line,) = cell.lines
    assert line == {
        "model": "m",
        "tenant": "t",
        "method": "sweep_no_ttft",
        "requests": 2,
        "prompt_tokens": 320,
        "cached_tokens": 0,
        "completion_tokens": 650,
        "reasoning_tokens": 0,
        "cost_nusd": 40_000_000,
        "prefill_cost_nusd": 0,
        "energy_mj": None,
        "busy_us": 50 * SECOND,
    }
