"""A known zero is not an unknown: a request that was active for no time costs nothing, and nothing
jumps near zero."""

from __future__ import annotations

import pytest
from tests.unit.ledger.worlds import (
    GPU,
    MINUTE,
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
from gpu_token_analytics.ledger.requests import Requests, UsageRows

PRICES = [price("default", "3.6")]  # one nano-USD a microsecond
WARM = [
    sample(f"s{at:02d}", at, utilization=0.0, mem_mb=40_000, power_w=70) for at in range(0, 61, 10)
]

# What leaves no microsecond of active time: (latency, queue) in seconds.
NEVER_ACTIVE = [
    (0.0, None),
    (0.0, 0.0),
    (30.0, 30.0),
    (0.0000004, None),
    (30.0000004, 30.0),
    (21_600.0, 21_600.0),
]


@pytest.mark.parametrize(("latency_s", "queue_s"), NEVER_ACTIVE)
@pytest.mark.parametrize("end_s", [0.0, 30.0, 59.999999])
def test_it_costs_nothing_and_its_tokens_count(
    latency_s: float, queue_s: float | None, end_s: float
) -> None:
    world = World(
        [usage("z", end_s, latency_s, queue_s=queue_s, prompt=1000, cached=7)], WARM, PRICES
    )
    (cell,) = world.cells(minutes(1))
    assert cell.classes["warm_idle"] == cell.cost_nusd == 60_000_000
    (line,) = cell.lines
    assert (line["method"], line["requests"], line["cost_nusd"], line["busy_us"]) == (
        "sweep_no_ttft",
        1,
        0,
        0,
    )
    assert (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]) == (
        1000,
        7,
        100,
    )
    assert (line["energy_mj"], cell.energy_mj) == (0, 4_200_000)
    assert cell.requests_active == 1


def test_only_a_missing_latency_takes_its_minute() -> None:
    (cell,) = World([usage("w", 30)], WARM, PRICES).cells(minutes(1))
    assert cell.lines[0]["method"] == "window"
    assert cell.classes["attributed"] == 60_000_000


@pytest.mark.parametrize("active_us", [0, 1, 2, 1000, 500_000, 1_000_000])
def test_nothing_jumps_near_zero(active_us: int) -> None:
    """Alone on the GPU, a request costs exactly its time."""
    (cell,) = World([usage("r", 30, active_us / 1e6)], WARM, PRICES).cells(minutes(1))
    assert cell.classes["attributed"] == cell.lines[0]["cost_nusd"] == active_us


def test_it_takes_nothing_from_those_that_were_active() -> None:
    """Many with enormous work, next to one that ran: the one that ran pays for all of its time."""
    crowd = [
        usage(f"q{n}", 30 + n, 30, queue_s=30, prompt=100_000_000, completion=0) for n in range(5)
    ]
    ran = usage("r", 40, 10)
    alone, together = (
        World(events, WARM, PRICES).cells(minutes(1))[0] for events in ([ran], [*crowd, ran])
    )
    assert together.classes == alone.classes
    waited = [f"q{n}" for n in range(5)]
    assert by_request([together], [*waited, "r"]) == {**dict.fromkeys(waited, 0), "r": 10_000_000}


def test_on_a_border_of_minutes_it_is_in_the_one_that_begins() -> None:
    first, second = World([usage("z", 60, 0.0)], WARM, PRICES).cells(minutes(2))
    assert (len(first.lines), second.lines[0]["requests"], second.lines[0]["prompt_tokens"]) == (
        0,
        1,
        100,
    )


def test_on_several_gpus_it_counts_once() -> None:
    world = World(
        [usage("z", 30, 0.0, gpus=["GPU-a", "GPU-b"], prompt=101, completion=3)], [], PRICES
    )
    lines = [world.cells(minutes(1), gpu=gpu)[0].lines[0] for gpu in ("GPU-a", "GPU-b")]
    assert [line["requests"] for line in lines] == [1, 0]
    assert sum(line["prompt_tokens"] for line in lines) == 101
    assert sum(line["completion_tokens"] for line in lines) == 3


def test_in_a_part_that_nobody_owns_yet_it_waits() -> None:
    pieces = [PricePiece(T0, "a", 3_600_000_000, PriceMode.SPOT)]
    world = World([usage("z", 30, 0.0)], [], PRICES)
    requests = Requests.of(UsageRows.of(world.usages), GPU, Placements(), MINUTE)
    for until, lines in ((T0, 0), (T0 + 30_000_000, 0), (T0 + 30_000_001, 1)):
        ((cell,),) = compute_cells(
            [GpuInput([CellInput(T0, until, pieces)], requests, Samples.of([]))],
            LedgerParams(),
        )
        assert len(cell.lines) == lines


def test_it_does_not_disturb_the_fresh_sums_of_rates_far_apart() -> None:
    """Rates 1e12 apart are shared without running sums (attribution.py); a point among them has no
    rate at all."""
    params = LedgerParams(
        model_weights={"heavy": WorkWeights(1e6, 0.0, 1e6), "light": WorkWeights(1e-6, 0.0, 1e-6)}
    )
    events = [
        usage("a", 50, 40, model="heavy", prompt=100_000_000),
        usage("b", 55, 50, model="light", prompt=1, completion=0),
        usage("z", 50, 0.0, model="heavy"),
        usage("y", 10, 0.0, model="light"),
    ]
    with_points, without = (
        World(kept, WARM, PRICES, params).cells(minutes(1))[0] for kept in (events, events[:2])
    )
    assert with_points.classes == without.classes
    assert by_request([with_points], ["a", "b", "y", "z"]) == {
        **by_request([without], ["a", "b"]),
        "y": 0,
        "z": 0,
    }
