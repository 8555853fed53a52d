"""The live rate against its definition, computed the slow way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.documents import US_PER_SECOND
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ledger.labels import LabelColumn, Labels

WINDOW = 30


class Rate(NamedTuple):
    """None: unknown."""

    tps: float | None
    cost_per_token_usd: float | None


UNKNOWN = Rate(None, None)


def labels(gpus: Sequence[list[str]]) -> LabelColumn:
    return LabelColumn.of(Labels("h", tuple(names), "m", "t") for names in gpus)


def see(rate: LiveRate, gpus: list[str], ts_us: int, tokens: int) -> Rate:
    """One request by itself."""
    found = rate.see_usages(labels([gpus]), np.array([ts_us]), np.array([tokens]))
    return Rate(*(None if math.isnan(column[0]) else float(column[0]) for column in found))


def test_cost_per_token_is_price_over_tokens_of_the_window() -> None:
    rate = LiveRate(WINDOW, 3.6)
    first = see(rate, ["g"], 1000 * US_PER_SECOND, 300)
    assert first.tps == 10
    assert first.cost_per_token_usd == pytest.approx(3.6 / 36_000)
    second = see(rate, ["g"], 1029 * US_PER_SECOND, 600)
    assert second.tps == 30, "the first one is still within 30 s"
    third = see(rate, ["g"], 1030 * US_PER_SECOND, 600)
    assert third.tps == 40, "the first one has just left"


def test_on_a_gpu_that_nobody_told_of_the_rate_is_known_and_the_cost_is_not() -> None:
    known = {"declared"}
    rate = LiveRate(WINDOW, 3.6, known=known)
    assert see(rate, ["a"], 1000 * US_PER_SECOND, 300) == Rate(10, None)
    rate.see_gpu("a", None)
    assert see(rate, ["a"], 1000 * US_PER_SECOND, 300).cost_per_token_usd == pytest.approx(
        3.6 / (20 * 3600)
    )
    assert see(rate, ["a", "b"], 1000 * US_PER_SECOND, 300).cost_per_token_usd is None, "one of two"
    assert see(rate, ["declared"], 1000 * US_PER_SECOND, 300).cost_per_token_usd is not None
    known.discard("declared")
    assert see(rate, ["declared"], 1000 * US_PER_SECOND, 300).cost_per_token_usd is None


def test_a_request_on_several_gpus_counts_in_parts_and_costs_their_sum() -> None:
    rate = LiveRate(WINDOW, None)
    rate.see_price("a", 2.0)
    rate.see_price("b", 4.0)
    both = see(rate, ["a", "b"], 0, 600)
    assert both.tps == 20
    assert both.cost_per_token_usd == pytest.approx(6.0 / (20 * 3600))
    assert see(rate, ["a"], 0, 300).tps == 20, "half of the 600 ran here"


def test_unknown_stays_unknown() -> None:
    rate = LiveRate(WINDOW, None)
    assert see(rate, ["g"], 0, 0) == UNKNOWN, "no tokens: no rate, not a price of infinity"
    assert see(rate, ["g"], 0, 30).cost_per_token_usd is None, "no price is known"
    rate.see_price("g", 0.0)
    assert see(rate, ["g"], 0, 30).cost_per_token_usd == 0, "free is known to be free"
    assert see(rate, ["g", "unpriced"], 0, 30).cost_per_token_usd is None
    see(rate, ["g"], 100 * US_PER_SECOND, 30)
    assert see(rate, ["g"], 10 * US_PER_SECOND, 30) == UNKNOWN, "older than the window"


def test_a_mig_slice_costs_its_part_of_the_card() -> None:
    rate = LiveRate(WINDOW, 7.0)
    rate.see_price("slice", None, "3g.40gb")
    assert see(rate, ["slice"], 0, 30).cost_per_token_usd == pytest.approx(3.0 / 3600)


def test_a_price_that_returns_to_the_default_is_seen() -> None:
    rate = LiveRate(WINDOW, 1.0)
    rate.see_price("g", 5.0)
    rate.see_price("g", 1.0)
    assert see(rate, ["g"], 0, 30).cost_per_token_usd == pytest.approx(1.0 / 3600)


def test_memory_is_bounded() -> None:
    rate = LiveRate(WINDOW, 1.0, max_gpus=100)
    for number in range(1000):
        rate.see_price(f"g{number}", 2.0)
        see(rate, [f"g{number}"], 0, 10)
    assert len(rate._windows) <= 100
    assert len(rate._prices) <= 100


def test_a_batch_is_its_requests_one_after_the_other() -> None:
    rows = [(["a"], 5, 10), (["b", "a"], 6, 4), (["a"], 90, 7), (["a"], 20, 1), (["c"], 90, 0)]
    one_by_one, together = LiveRate(WINDOW, 1.0), LiveRate(WINDOW, 1.0)
    expected = [
        see(one_by_one, gpus, second * US_PER_SECOND, tokens) for gpus, second, tokens in rows
    ]
    gpus, seconds, tokens = zip(*rows, strict=True)
    found = together.see_usages(labels(gpus), np.array(seconds) * US_PER_SECOND, np.array(tokens))
    assert np.array_equal(np.array(expected, dtype=float), np.array(found).T, equal_nan=True)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 1000)), min_size=1, max_size=60),
)
def test_in_order_it_is_the_sum_over_the_window(events: list[tuple[int, int]]) -> None:
    rate = LiveRate(WINDOW, 1.0)
    seen: list[tuple[int, int]] = []
    for second, tokens in sorted(events):
        seen.append((second, tokens))
        inside = sum(count for at, count in seen if second - WINDOW < at <= second)
        found = see(rate, ["g"], second * US_PER_SECOND, tokens)
        assert found == UNKNOWN if inside == 0 else found.tps == pytest.approx(inside / WINDOW)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 1000)), min_size=1, max_size=60))
def test_in_any_order_no_token_of_the_window_is_lost(events: list[tuple[int, int]]) -> None:
    """What is late but still inside counts; what is older does not; the head never goes back."""
    rate = LiveRate(WINDOW, 1.0)
    seen: list[tuple[int, int]] = []
    head = -1
    for second, tokens in events:
        found = see(rate, ["g"], second * US_PER_SECOND, tokens)
        head = max(head, second)
        if second <= head - WINDOW:
            assert found == UNKNOWN
            continue
        seen.append((second, tokens))
        assert found.tps == pytest.approx(
            sum(count for at, count in seen if at > head - WINDOW) / WINDOW
        )
