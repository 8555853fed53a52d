"""The sweep with and without running sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ledger.worlds import GPU, World, minutes, price, usage

from gpu_token_analytics.ledger import attribution
from gpu_token_analytics.ledger.attribution import Sweep


def sweep_of(cells: list[list[tuple[int, int, float]]], intervals: int) -> Sweep:
    """Cells of `intervals` intervals each with (first interval, stop interval, rate) pairs."""
    width = intervals + 1
    pairs = [
        (cell, cell * width + a, cell * width + b, rate)
        for cell, found in enumerate(cells)
        for a, b, rate in found
    ]
    cell, start, end = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in range(3))
    return Sweep(
        cell, start, end, np.array([pair[3] for pair in pairs]), np.arange(len(cells) + 1) * width
    )


def spy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cells that are computed without running sums, from now on."""
    found: list[int] = []
    slow = Sweep._share_afresh

    def record(self: Sweep, cell: int, *rest: Any) -> None:
        found.append(cell)
        slow(self, cell, *rest)

    monkeypatch.setattr(Sweep, "_share_afresh", record)
    return found


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[int, float, int]:
    return draw(st.integers(0, 9)), 10 ** draw(st.floats(-8, 8)), draw(st.integers(1, 10))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(_pairs(), max_size=8), min_size=1, max_size=4), st.integers(0, 2**30))
def test_both_ways_agree_to_the_noise_limit(
    drawn: list[list[tuple[int, float, int]]], seed: int
) -> None:
    cells = [[(a, min(a + n, 10), rate) for a, rate, n in found] for found in drawn]
    amount = np.random.default_rng(seed).integers(1, 10**7, size=len(cells) * 11).astype(np.float64)
    sweep = sweep_of(cells, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "_CHUNK", 7)
        slow_cells = spy(patch)
        fast = sweep.share(amount)
        slow_cells.clear()
        patch.setattr(attribution, "NOISE_LIMIT", 0.0)
        slow = sweep.share(amount)
        assert slow_cells == [i for i, found in enumerate(cells) if found]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=attribution.NOISE_LIMIT)
    busy = np.where(sweep.active > 0, amount, 0.0)
    for cell in range(len(cells)):
        assert abs(slow[sweep.cell == cell].sum() - busy[cell * 11 : cell * 11 + 10].sum()) < 1e-6


EXTREME = [
    usage(
        "long", 3000, 21_000, prompt=0, completion=1, gpus=[GPU, *(f"GPU-x{n}" for n in range(15))]
    ),
    usage("burst", 10.000001, 0.000001, prompt=100_000_000, completion=100_000_000),
    usage("after", 25, 5, prompt=100_000_000, completion=100_000_000),
    usage("again", 30, 5, prompt=100_000_000, completion=100_000_000),
]


@pytest.mark.filterwarnings("error")
def test_rates_far_apart_take_the_slow_way_and_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_cells = spy(monkeypatch)
    world = World(EXTREME, [], [price("default", "98.32")])
    (found,), (expected,) = world.cells(minutes(1)), world.oracle(minutes(1))
    assert slow_cells == [0]
    ids = sorted(doc["_id"] for doc in EXTREME)
    for share in found.shares:
        assert abs(share.cost_nusd - expected.requests[ids[share.request]].quota) < 1.01
    names = {doc["_id"]: doc["event_id"] for doc in EXTREME}
    equal = {names[ids[share.request]]: share.cost_nusd for share in found.shares}
    assert abs(equal["after"] - equal["again"]) <= 1, (
        "the same work in the same time costs the same"
    )


def test_only_the_noisy_cell_takes_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_cells = spy(monkeypatch)
    ordinary = [
        usage(f"o{n}", 70 + n, 8, ttft_s=0.3, prompt=500 + n, completion=200 + n) for n in range(40)
    ]
    long, *rest = EXTREME
    assert long["ts_us"] > minutes(2)[1][1]
    world = World([*rest, long, *ordinary], [], [price("default", "3.6")])
    world.cells(minutes(2))
    assert slow_cells[:1] == [0]
    slow_cells.clear()
    World(ordinary, [], [price("default", "3.6")]).cells(minutes(2))
    assert slow_cells == []


def test_nothing_active() -> None:
    empty = np.zeros(0, dtype=np.int64)
    sweep = Sweep(empty, empty, empty, np.zeros(0), np.array([0, 2]))
    assert sweep.active.tolist() == [0, 0]
    assert sweep.share(np.array([5.0, 0.0])).tolist() == []
