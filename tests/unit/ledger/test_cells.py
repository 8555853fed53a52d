"""What a cell says in the corners: owned parts, windows, phases, tokens, weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ledger.worlds import (
    GPU,
    MINUTE,
    SECOND,
    T0,
    World,
    by_request,
    minutes,
    price,
    sample,
    usage,
)

from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.inputs import CellInput, GpuInput, Samples
from gpu_token_analytics.ledger.params import LedgerParams, WorkWeights
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.prices import PriceMode, PricePiece
from gpu_token_analytics.ledger.requests import Requests, UsageRows, spread_tokens

PRICES = [price("default", "3.6")]  # one nano-USD a microsecond


def test_nothing_at_all() -> None:
    (cell,) = World(prices=PRICES).cells(minutes(1))
    assert cell.classes["unobserved"] == cell.cost_nusd == 60_000_000
    assert (
        cell.lines,
        cell.energy_mj,
        cell.energy_observed_us,
        cell.samples,
        cell.requests_active,
    ) == ([], None, 0, 0, 0)
    assert World(prices=PRICES).cells([]) == []


@pytest.mark.parametrize(
    "spans",
    [
        [(T0, T0)],
        [(T0, T0 - 5)],
        [(T0, T0), (T0 + MINUTE, T0 + 2 * MINUTE), (T0 + 2 * MINUTE,) * 2],
    ],
)
def test_minutes_that_are_not_owned_cost_nothing(spans: list[tuple[int, int]]) -> None:
    world = World([usage("r", 170, 170)], [sample("s", 1, mem_mb=1, power_w=5)], PRICES)
    for (start, until), cell in zip(spans, world.cells(spans), strict=True):
        owned = max(0, until - start)
        assert (cell.cost_nusd, cell.owned_us, sum(cell.class_us.values())) == (owned, owned, owned)
        assert len(cell.lines) == (1 if owned else 0)


def test_a_partly_owned_minute() -> None:
    """Now is in the middle of the minute; a price that changes later in it is not its business
    yet."""
    start, until = T0, T0 + 30 * SECOND
    piece, later = (
        PricePiece(at, row, 3_600_000_000, PriceMode.SPOT)
        for at, row in ((T0, "a"), (T0 + 45 * SECOND, "b"))
    )
    world = World([usage("r", 50, 40)], [sample("s", 40, mem_mb=1)], PRICES)
    requests = Requests.of(UsageRows.of(world.usages), GPU, Placements(), MINUTE)
    gpu = GpuInput([CellInput(start, until, [piece, later])], requests, Samples.of(world.samples))
    ((cell,),) = compute_cells([gpu], world.params)
    assert cell.cost_nusd == cell.owned_us == sum(cell.class_us.values()) == 30 * SECOND
    assert cell.classes["attributed"] == 20 * SECOND
    assert cell.lines[0]["requests"] == 0, "counted when its end is owned"
    assert cell.samples == 0


def test_a_request_without_latency_is_spread_over_its_minute() -> None:
    world = World(
        [usage("p", 60, prompt=6, completion=0), usage("q", 90, 30, prompt=6, completion=0)],
        [],
        PRICES,
    )
    first, second = world.cells(minutes(2))
    assert first.lines == []
    assert [line["method"] for line in second.lines] == ["sweep_no_ttft", "window"]
    # p works 6/60 a second all the minute, q 6/30 in its first half: of those 30 s a third is p's.
    assert by_request([second], ["p", "q"]) == {"p": 40_000_000, "q": 20_000_000}


def test_waiting_in_a_queue_uses_no_gpu() -> None:
    world = World([usage("r", 50, 40, queue_s=30, ttft_s=35)], [], PRICES)
    (cell,) = world.cells(minutes(1))
    assert cell.class_us["attributed"] == cell.lines[0]["busy_us"] == 10 * SECOND
    assert cell.lines[0]["method"] == "sweep"
    (only_queued,) = World([usage("r", 50, 40, queue_s=40)], [], PRICES).cells(minutes(1))
    assert only_queued.lines[0]["cost_nusd"] == 0, "it used no GPU at all"


@pytest.mark.parametrize("ttft_s", [30.0, 20.0, 40.0])
def test_a_first_token_outside_of_the_active_time_is_not_used(ttft_s: float) -> None:
    """In the queue, at its start, at the end: one segment, and no division by zero."""
    (cell,) = World([usage("r", 50, 40, queue_s=30, ttft_s=ttft_s)], [], PRICES).cells(minutes(1))
    assert cell.lines[0]["method"] == "sweep_no_ttft"
    assert cell.lines[0]["prefill_cost_nusd"] == 0


def test_prefill_is_paid_where_it_happened() -> None:
    """Prefill alone in the first minute, decode in the second: W_in = 100, W_out = 400 do not
    matter when nobody shares."""
    world = World([usage("r", 100, 90, ttft_s=30)], [], PRICES)
    first, second = world.cells(minutes(2))
    (line,), (later,) = first.lines, second.lines
    assert (line["prompt_tokens"], line["completion_tokens"], line["requests"]) == (100, 33, 0)
    assert (later["prompt_tokens"], later["completion_tokens"], later["requests"]) == (0, 67, 1)
    assert (line["cost_nusd"], line["prefill_cost_nusd"]) == (50_000_000, 30_000_000)
    assert (later["cost_nusd"], later["prefill_cost_nusd"]) == (40_000_000, 0)


def test_one_request_in_both_phases_is_rounded_once() -> None:
    """Three equal requests of two phases share 1e-9 USD/us odd money: parts differ by 1, not by
    2."""
    events = [usage(name, 50, 40, ttft_s=10) for name in "abc"]
    cells = World(events, [], [price("default", "0.00000100001")]).cells(minutes(1))
    costs = by_request(cells, ["a", "b", "c"])
    assert max(costs.values()) - min(costs.values()) <= 1
    assert list(costs.values()) == sorted(costs.values(), reverse=True), "ties by event id"


def test_weights_by_model() -> None:
    world = World([usage("a", 60, 60, model="m"), usage("b", 60, 60, model="n")], [], PRICES)
    world.params = LedgerParams(model_weights={"n": WorkWeights(input=3, cached=0, output=12)})
    assert by_request(world.cells(minutes(1)), ["a", "b"]) == {"a": 15_000_000, "b": 45_000_000}
    cached = World(
        [usage("a", 60, 60, completion=0), usage("b", 60, 60, cached=100, completion=0)], [], PRICES
    )
    assert by_request(cached.cells(minutes(1)), ["a", "b"]) == {"a": 54_545_455, "b": 5_454_545}


def test_a_request_without_any_work_still_holds_the_gpu() -> None:
    (cell,) = World([usage("a", 60, 60, prompt=0, completion=0)], [], PRICES).cells(minutes(1))
    assert cell.classes["attributed"] == 60_000_000


def test_a_request_on_several_gpus_counts_once_and_costs_each() -> None:
    gpus = ["GPU-a", "GPU-b", "GPU-c"]
    world = World([usage("r", 60, 60, prompt=100, completion=50, gpus=gpus)], [], PRICES)
    cells = [world.cells(minutes(1), gpu=gpu)[0] for gpu in gpus]
    assert [cell.cost_nusd for cell in cells] == [60_000_000] * 3
    assert [cell.lines[0]["prompt_tokens"] for cell in cells] == [34, 33, 33]
    assert [cell.lines[0]["completion_tokens"] for cell in cells] == [17, 17, 16]
    assert [cell.lines[0]["requests"] for cell in cells] == [1, 0, 0]


@given(
    st.integers(0, 100_000_000),
    st.integers(1, 21_600 * SECOND),
    st.lists(st.integers(0, 21_600 * SECOND), max_size=6),
    st.integers(1, 128),
)
def test_tokens_sum_exactly_however_time_and_gpus_are_cut(
    count: int, span: int, cuts: list[int], gpus: int
) -> None:
    times = [0, *sorted(min(cut, span) for cut in cuts), span]
    total = 0
    for low, high in pairwise(times):
        each = [np.full(gpus, value) for value in (count, T0, T0 + span, T0 + low, T0 + high, gpus)]
        parts = spread_tokens(
            each[0], each[1], each[2], each[3], each[4], gpu_count=each[5], gpu_rank=np.arange(gpus)
        )
        assert parts.min() >= 0
        assert parts.max() - parts.min() <= 1
        total += int(parts.sum())
    assert total == count


def test_equal_times_and_order_of_samples() -> None:
    """Of samples at one time the one with the last id speaks, in whatever order they came."""
    first, second = sample("a", 0, mem_mb=1), sample("b", 0, mem_mb=9000)
    for docs in ([first, second], [second, first]):
        (cell,) = World([], docs, PRICES).cells(minutes(1))
        assert cell.class_us["warm_idle"] == 30 * SECOND
        assert cell.class_us["unobserved"] == 30 * SECOND
