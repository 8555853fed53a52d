"""The small inputs made after public reports, with what is right for each (README.md beside
them)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.oracle.raw_documents import sample_document, usage_document
from tests.unit.ledger.worlds import MINUTE, SECOND, World, minutes, price, sample, usage

from gpu_token_analytics.ledger.computed import CellContent
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

SHARED = (
    Path(os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")
    / "cases"
)
STORED = datetime(2026, 11, 30, tzinfo=UTC)
START_US = to_us(datetime(2026, 11, 29, 7, 30, tzinfo=UTC))
PRICES = [price("default", "0.85")]
MINUTE_NUSD = {14_166_666, 14_166_667}


def world_of(name: str) -> World:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; GPU_TOKENS_SHARED_DATA names the folder it is in")
    world = World(prices=PRICES)
    for line in path.read_bytes().splitlines():
        event = decode(line)
        if isinstance(event, TokenUsage):
            world.usages.append(usage_document(event, line, STORED, "case"))
        elif isinstance(event, GpuSample):
            world.samples.append(sample_document(event, line, STORED, "case"))
    return world


def first_minute(world: World) -> CellContent:
    spans: Sequence[tuple[int, int]] = [(START_US, START_US + MINUTE)]
    (cell,) = world.cells(spans)
    (expected,) = world.oracle(spans)
    assert cell.cost_nusd in MINUTE_NUSD
    assert (cell.classes, cell.class_us) == (expected.classes, expected.class_us)
    return cell


@pytest.mark.parametrize(
    ("name", "attributed_nusd", "prompt_tokens"),
    [
        ("usage-zero-active-time-0-baseline.ndjson", 2_361_111, 1000),
        ("usage-zero-active-time-1-latency-0.ndjson", 0, 1000),
        ("usage-zero-active-time-2-all-queue.ndjson", 2_361_111, 1000 + 5 * 4000),
    ],
)
def test_zero_active_time(name: str, attributed_nusd: int, prompt_tokens: int) -> None:
    cell = first_minute(world_of(name))
    assert cell.classes["attributed"] == attributed_nusd
    assert cell.classes["warm_idle"] == cell.cost_nusd - attributed_nusd
    assert sum(line["prompt_tokens"] for line in cell.lines) == prompt_tokens
    assert {line["tenant"]: line["cost_nusd"] for line in cell.lines}.get("b", 0) == 0, (
        "they only queued"
    )


def test_memory_that_is_not_known_is_not_silence() -> None:
    """GB10: no memory reading, utilisation 0, every 10 s."""
    cell = first_minute(world_of("samples-memory-unknown.ndjson"))
    assert cell.class_us == {**dict.fromkeys(cell.class_us, 0), "cold_idle": MINUTE}
    assert cell.memory_unknown_us == MINUTE


@pytest.mark.parametrize(
    ("utilization", "request_s", "warm_s", "unmetered_s"),
    [
        (None, None, 0, 0),  # Thor: nothing is known at all
        (None, 20, 40, 0),  # a request at second 10 to 20 keeps its model
        (0.5, None, 30, 30),  # half of it is work of somebody, so a model is there
        (0.0, 20, 40, 0),
    ],
)
def test_a_class_by_what_is_known(
    utilization: float | None, request_s: float | None, warm_s: int, unmetered_s: int
) -> None:
    world = World(
        prices=PRICES,
        samples=[sample(f"s{at}", at, utilization=utilization) for at in range(0, 70, 10)],
    )
    world.usages = [] if request_s is None else [usage("u", request_s, 10.0)]
    ((cell,), (expected,)) = world.cells(minutes(1)), world.oracle(minutes(1))
    assert (cell.class_us, cell.memory_unknown_us) == (
        expected.class_us,
        expected.memory_unknown_us,
    )
    assert cell.class_us["warm_idle"] == warm_s * SECOND
    assert cell.class_us["unmetered_work"] == unmetered_s * SECOND
    assert cell.class_us["unobserved"] == 0
    assert cell.memory_unknown_us == cell.class_us["warm_idle"] + cell.class_us["cold_idle"]


def test_a_stuck_energy_counter() -> None:
    world = world_of("samples-energy-counter-stuck.ndjson")
    cell = first_minute(world)
    assert (cell.energy_mj, cell.energy_observed_us) == (18_000_000, MINUTE), "18 kJ by power"
