"""For any set of events the ledger is what its specification says (tests/oracle/ledger.py), and its
promises hold."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.ledger.worlds import GPU, GPUS, MINUTE, SECOND, T0, World, minutes, worlds

from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.inputs import NO_TIMES

SPANS = minutes(3)
ALL_MODES = ("on_demand", "reserved", "spot", "owned")
NOISE = Fraction(1, 100)  # float noise allowed on a request's quota; attribution.NOISE_LIMIT

thorough = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
quick = settings(thorough, max_examples=40)


@thorough
@given(worlds())
def test_classes_money_and_time_are_the_specifications(world: World) -> None:
    for found, expected in zip(world.cells(SPANS), world.oracle(SPANS), strict=True):
        assert found.classes == expected.classes
        assert found.class_us == expected.class_us
        assert found.memory_unknown_us == expected.memory_unknown_us
        assert (found.cost_nusd, found.owned_us, found.samples) == (
            expected.cost_nusd,
            expected.owned_us,
            expected.samples,
        )
        assert found.requests_active == len(expected.requests)
        for name, exact in expected.exact_classes.items():
            assert abs(found.classes[name] - exact) < 1 + _pieces(world), (
                "a class is price x its time"
            )


@thorough
@given(worlds())
def test_every_request_costs_its_share_to_the_nano_usd(world: World) -> None:
    ids = sorted(doc["_id"] for doc in world.usages if GPU in doc["gpus"])
    for found, expected in zip(world.cells(SPANS), world.oracle(SPANS), strict=True):
        assert {ids[share.request] for share in found.shares} == set(expected.requests)
        for share in found.shares:
            request = expected.requests[ids[share.request]]
            assert share.cost_nusd >= 0
            assert abs(share.cost_nusd - request.quota) < 1 + NOISE
            assert 0 <= share.prefill_cost_nusd <= share.cost_nusd
            assert abs(share.prefill_cost_nusd - request.prefill_quota) < 2
            assert share.busy_us == request.busy_us
            assert share.ends_here == request.ends_here
            tokens = (
                share.prompt_tokens,
                share.cached_tokens,
                share.completion_tokens,
                share.reasoning_tokens,
            )
            assert tokens == request.tokens


@quick
@given(worlds())
def test_lines_are_the_sums_of_their_requests(world: World) -> None:
    exact = (
        "requests",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "busy_us",
    )
    for found, expected in zip(world.cells(SPANS), world.oracle(SPANS), strict=True):
        lines = expected.lines()
        assert [_label(line) for line in found.lines] == [_label(line) for line in lines]
        for line, other in zip(found.lines, lines, strict=True):
            assert {name: dict(line)[name] for name in exact} == {
                name: other[name] for name in exact
            }
            assert abs((line["cost_nusd"] or 0) - other["cost_nusd"]) < other["members"] * (
                1 + NOISE
            )
        assert sum(line["cost_nusd"] or 0 for line in found.lines) == found.classes["attributed"]


@quick
@given(worlds(modes=ALL_MODES))
def test_every_nano_usd_has_exactly_one_class(world: World) -> None:
    """With the price of energy too, where the GPU is owned."""
    for cell in world.cells(SPANS):
        assert sum(cell.classes.values()) == cell.cost_nusd
        assert sum(cell.class_us.values()) == cell.owned_us
        assert sum(line["cost_nusd"] or 0 for line in cell.lines) == cell.classes["attributed"]
        assert min(cell.classes.values()) >= 0
        assert all(
            (line["cost_nusd"] or 0) >= (line["prefill_cost_nusd"] or 0) >= 0 for line in cell.lines
        )


@quick
@given(worlds(modes=ALL_MODES))
def test_the_price_of_energy_is_the_specifications(world: World) -> None:
    for found, expected in zip(world.cells(SPANS), world.oracle(SPANS), strict=True):
        # Millijoules are rounded at every edge, by half of one at most; one costs at most
        # 3.5e9/3.6e9 nano-USD.
        slack = 2 + _edges(world)
        assert abs(found.cost_nusd - expected.cost_nusd) <= slack
        for name, exact in expected.exact_classes.items():
            assert abs(found.classes[name] - exact) <= slack + _pieces(world)


@quick
@given(worlds())
def test_the_cells_sum_to_price_times_time(world: World) -> None:
    """Telescoping: at one price all cells of any size sum to R(end) - R(start)."""
    world.prices = world.prices[:1]
    world.samples = [{**doc, "price_per_hour_usd": None} for doc in world.samples]
    rate = Fraction(world.prices[0]["usd_per_hour"]) * 10**9 / 3_600_000_000
    end = T0 + 3 * MINUTE
    for size_us in (MINUTE, 10 * SECOND, 7_000_001):
        spans = [
            (start, min(until, end)) for start, until in minutes(-(-3 * MINUTE // size_us), size_us)
        ]
        total = sum(cell.cost_nusd for cell in world.cells(spans))
        assert total == _round(rate * end) - _round(rate * T0)


@quick
@given(worlds(), st.randoms(use_true_random=False), st.data())
def test_order_duplicates_and_neighbours_change_nothing(
    world: World, random: Any, data: st.DataObject
) -> None:
    together = world.cells(SPANS)
    shuffled = World([*world.usages], [*world.samples], [*world.prices], world.params)
    for documents in (shuffled.usages, shuffled.samples, shuffled.prices):
        random.shuffle(documents)
    cut = data.draw(st.integers(0, len(SPANS)))
    apart = [*shuffled.cells(SPANS[:cut]), *shuffled.cells(SPANS[cut:])]
    assert apart == together, "bit for bit"
    alone = [shuffled.cells([span])[0] for span in reversed(SPANS)]
    assert alone[::-1] == together


@quick
@given(
    worlds(),
    st.lists(st.tuples(st.sampled_from(GPUS), st.sets(st.sampled_from(SPANS))), max_size=6),
)
def test_gpus_computed_together_are_what_they_are_alone(
    world: World, asked: list[tuple[str, set[tuple[int, int]]]]
) -> None:
    """Bit for bit, the places of requests included; their minutes overlap or are far from each
    other, or there are none."""
    inputs = [world.input(sorted(spans), gpu) for gpu, spans in asked]
    alone = [compute_cells([each], world.params, with_shares=True)[0] for each in inputs]
    assert compute_cells(inputs, world.params, with_shares=True) == alone


@quick
@given(worlds())
def test_events_that_cannot_touch_a_cell_do_not(world: World) -> None:
    """A reader of one minute may leave out what is further away than the gap limit: the mark rule
    relies on it. Only of the requests before the minute the last end is needed, for where the
    memory is not known."""
    start, until = SPANS[1]
    gap = world.params.gap_us
    ended = [doc["ts_us"] for doc in world.of_gpu(GPU) if doc["ts_us"] <= start]
    last = np.array(ended, dtype=np.int64)[np.argmax(ended) :][:1] if ended else NO_TIMES[0]
    near = World(
        [
            doc
            for doc in world.usages
            if start - gap < _active_until(doc) and _active_from(doc) < until + gap
        ],
        [
            {**doc, "price_per_hour_usd": None}
            for doc in world.samples
            if start - gap < doc["ts_us"] < until + gap
        ],
        world.prices,
        world.params,
        before=(last, last),
    )
    world.samples = [{**doc, "price_per_hour_usd": None} for doc in world.samples]
    (found,), (expected,) = (
        near.cells([(start, until)], with_shares=False),
        world.cells([(start, until)], with_shares=False),
    )
    assert found == expected


@quick
@given(worlds())
def test_tokens_and_requests_count_once_over_cells_and_gpus(world: World) -> None:
    """Every request is followed over all the minutes and GPUs it touches."""
    found: Counter[str] = Counter()
    first = min([doc["start_us"] for doc in world.usages], default=T0) // MINUTE * MINUTE
    spans = minutes((T0 + 6 * MINUTE - first) // MINUTE, first_us=first)
    for gpu in GPUS:
        for cell in world.cells(spans, gpu=gpu, with_shares=False):
            for line in cell.lines:
                found.update({name: dict(line)[name] for name in _COUNTS})
                found["requests"] += line["requests"]
    for name in _COUNTS:
        assert found[name] == sum(doc[name] for doc in world.usages)
    assert found["requests"] == len(world.usages)


LABELS = {"h/0": "GPU-a", "h/1": "GPU-a", "h/2": "GPU-b"}


@quick
@given(worlds(tuple(LABELS)))
def test_two_labels_of_one_gpu_are_one_gpu(world: World) -> None:
    """Its tokens count once, all of them, and its cost is by the number of GPUs, not of names."""
    world.labels = LABELS
    found: Counter[str] = Counter()
    first = min([doc["start_us"] for doc in world.usages], default=T0) // MINUTE * MINUTE
    spans = minutes((T0 + 6 * MINUTE - first) // MINUTE, first_us=first)
    for gpu in ("GPU-a", "GPU-b"):
        for cell, expected in zip(world.cells(spans, gpu), world.oracle(spans, gpu), strict=True):
            assert cell.classes == expected.classes
            assert [line["requests"] for line in cell.lines] == [
                line["requests"] for line in expected.lines()
            ]
            for line in cell.lines:
                found.update({name: dict(line)[name] for name in (*_COUNTS, "requests")})
    for name in _COUNTS:
        assert found[name] == sum(doc[name] for doc in world.usages)
    assert found["requests"] == len(world.usages)


@quick
@given(worlds())
def test_energy_conserves(world: World) -> None:
    for found, expected in zip(world.cells(SPANS), world.oracle(SPANS), strict=True):
        assert found.energy_observed_us == expected.energy_observed_us
        assert (found.energy_mj is None) == (expected.energy_mj is None)
        lines = [line["energy_mj"] for line in found.lines]
        if found.energy_mj is None or expected.energy_mj is None:
            assert set(lines) <= {None}
            continue
        assert abs(found.energy_mj - expected.energy_mj) <= 1 + len(world.samples)
        attributed = sum((request.energy_mj for request in expected.requests.values()), Fraction(0))
        split = [mj for mj in lines if mj is not None]
        assert len(split) == len(lines)
        assert min(split, default=0) >= 0
        assert abs(sum(split) - attributed) <= _edges(world)
        assert sum(split) <= found.energy_mj
        if found.class_us["attributed"] == found.owned_us:
            assert sum(split) == found.energy_mj


@quick
@given(worlds(most_usages=6), st.sampled_from([SECOND, 10 * SECOND, 13_000_001]))
def test_the_size_of_the_cells_does_not_matter(world: World, size_us: int) -> None:
    """A request costs the same with cells of any size, but for the rounding in each cell (a window
    aside: it is one cell)."""
    world.usages = [doc for doc in world.usages if doc["latency_ms"] is not None]
    end = T0 + 3 * MINUTE
    spans = [
        (start, min(until, end)) for start, until in minutes(-(-3 * MINUTE // size_us), size_us)
    ]
    large, small = _costs(world, SPANS), _costs(world, spans)
    pieces = _pieces(world)
    for key in {**large, **small}:
        (cost, cells), (other, others) = large.get(key, (0, 0)), small.get(key, (0, 0))
        assert abs(cost - other) <= (cells + others) * (2 + pieces)


_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def _costs(world: World, spans: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for cell in world.cells(spans):
        for share in cell.shares:
            cost, cells = found.get(share.request, (0, 0))
            found[share.request] = (cost + share.cost_nusd, cells + 1)
    return found


def _active_from(doc: dict[str, Any]) -> int:
    begin: int = doc["ts_us"] // MINUTE * MINUTE if doc["latency_ms"] is None else doc["start_us"]
    return begin


def _active_until(doc: dict[str, Any]) -> int:
    until: int = (
        _active_from(doc) + MINUTE
        if doc["latency_ms"] is None
        else max(doc["ts_us"], doc["start_us"] + 1)
    )
    return until


def _label(line: Any) -> tuple[str, str, str]:
    return line["model"], line["tenant"], line["method"]


def _round(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _pieces(world: World) -> int:
    """Most prices one cell can have: each rounds C once."""
    return 1 + 2 * len(world.prices) + len(world.samples)


def _edges(world: World) -> int:
    return 4 + 2 * len(world.prices) + 4 * len(world.samples) + 6 * len(world.usages)
