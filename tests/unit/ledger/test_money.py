"""Integer nano-USD: the integral that never drifts and the splits that never lose a unit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.numbers import split

from gpu_token_analytics.documents import US_PER_HOUR
from gpu_token_analytics.ledger.money import (
    largest_remainder,
    nusd_per_hour,
    price_integral,
    split_exactly,
)

_times = st.integers(0, 2**52)
_prices = st.one_of(st.sampled_from([0, 1, 850_000_000, 10**14, 10**30]), st.integers(0, 10**15))


def test_prices_are_decimal() -> None:
    assert (
        nusd_per_hour(0.85)
        == nusd_per_hour("0.85")
        == nusd_per_hour(Decimal("0.85"))
        == 850_000_000
    )
    assert nusd_per_hour("1e-9") == 1
    assert nusd_per_hour("0.0000000005") == 0, "half a nano-USD goes to the even one"


@pytest.mark.parametrize("bad", ["", "abc", "nan", "inf", -0.01, "-1"])
def test_what_is_no_price_is_refused(bad: float | str) -> None:
    with pytest.raises(ValueError, match="usd_per_hour="):
        nusd_per_hour(bad)


@given(_prices, st.lists(_times, min_size=2, max_size=8))
def test_the_integral_telescopes_and_is_within_half(price: int, times: list[int]) -> None:
    times.sort()
    spans = [price_integral(price, b) - price_integral(price, a) for a, b in pairwise(times)]
    assert min(spans) >= 0
    assert sum(spans) == price_integral(price, times[-1]) - price_integral(price, times[0])
    for at in times:
        assert abs(price_integral(price, at) - Fraction(price * at, US_PER_HOUR)) <= Fraction(1, 2)


def test_rounding_every_minute_by_itself_would_drift() -> None:
    """What R(t) is there for: 0.85 USD/h is 14,166,666.67 nano-USD a minute."""
    minute = US_PER_HOUR // 60
    telescoped = [
        price_integral(850_000_000, (i + 1) * minute) - price_integral(850_000_000, i * minute)
        for i in range(60)
    ]
    assert sum(telescoped) == 850_000_000
    assert 60 * round(Fraction(850_000_000, 60)) == 850_000_020


@given(st.integers(0, 10**40), st.lists(st.integers(0, 10**40), min_size=1, max_size=6))
def test_splits_are_exact_and_within_one(total: int, weights: list[int]) -> None:
    parts = split_exactly(total, weights)
    assert sum(parts) == total
    assert parts == split(total, weights)
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            quota = Fraction(total * weight, sum(weights))
            assert abs(part - quota) < 1
            assert part >= 0
            assert weight or part == 0


def test_equal_remainders_go_to_the_earlier_one() -> None:
    assert split_exactly(2, [1, 1, 1]) == [1, 1, 0]
    assert largest_remainder(np.ones(3), np.zeros(3, dtype=np.int64), np.array([2])).tolist() == [
        1,
        1,
        0,
    ]


_groups = st.lists(
    st.tuples(
        st.integers(0, 10**12),
        st.lists(
            st.one_of(st.just(0.0), st.floats(1e-6, 1e12), st.integers(1, 100).map(float)),
            min_size=1,
            max_size=8,
        ),
    ),
    min_size=1,
    max_size=5,
)


@given(_groups)
def test_largest_remainder(groups: list[tuple[int, list[float]]]) -> None:
    groups = [(total if any(shares) else 0, shares) for total, shares in groups]
    index = np.repeat(np.arange(len(groups)), [len(shares) for _, shares in groups])
    flat = np.array([share for _, shares in groups for share in shares])
    found = largest_remainder(flat, index, np.array([total for total, _ in groups], dtype=np.int64))
    for number, (total, shares) in enumerate(groups):
        mine = found[index == number].tolist()
        assert sum(mine) == total
        assert min(mine) >= 0
        for part, share in zip(mine, shares, strict=True):
            quota = Fraction(share) * total / (sum(map(Fraction, shares)) or 1)
            assert abs(part - quota) < 1 + Fraction(1, 1000)
            assert share > 0 or part == 0, "who did nothing pays nothing"


@pytest.mark.parametrize("noise", [0.0, 3e-10, -3e-10, 1e-9])
def test_float_noise_moves_no_unit(noise: float) -> None:
    """2.9999999997 is 3: its unit must not go to the 0.5 before it."""
    shares = np.array([0.5, 0.5, 3.0 + noise])
    assert largest_remainder(shares, np.zeros(3, dtype=np.int64), np.array([4])).tolist() == [
        1,
        0,
        3,
    ]


def test_remainders_that_differ_by_noise_only_are_equal() -> None:
    """Two equal requests; the second one's half is a hair larger, as the order of additions has
    it."""
    shares = np.array([0.5, 0.5 + 1e-10])
    assert largest_remainder(shares, np.zeros(2, dtype=np.int64), np.array([1])).tolist() == [1, 0]


def test_a_group_without_shares_gets_nothing() -> None:
    found = largest_remainder(np.array([1.0]), np.array([1]), np.array([0, 7, 0]))
    assert found.tolist() == [7]
    assert largest_remainder(np.zeros(0), np.zeros(0, dtype=np.int64), np.array([0])).tolist() == []
