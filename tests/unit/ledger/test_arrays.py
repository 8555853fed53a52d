"""Order, numbering and sums of integer columns against numpy's own, slower ways."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_token_analytics.ledger.arrays import numbered, order_of, sum_by, sums_by_key


def drawn(
    size: int, low: int, high: int, seed: int = 5
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(low, high, size)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 3),
        (-50, 50),
        (1_700_000_000_000_000, 1_700_000_060_000_000),
        # too far apart for a value and its place in 64 bits
        (-(2**62), 2**62),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_the_order_is_the_stable_one(size: int, low: int, high: int) -> None:
    keys = drawn(size, low, high)
    assert order_of(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@pytest.mark.parametrize("below", [7, 100_000])
@pytest.mark.parametrize("size", [0, 1, 500])
def test_values_are_numbered_in_ascending_order(size: int, below: int) -> None:
    values = drawn(size, 0, below)
    present, number = numbered(values, below)
    expected, places = np.unique(values, return_inverse=True)
    assert present.tolist() == expected.tolist()
    assert number.tolist() == places.tolist()


@pytest.mark.parametrize("size", [0, 1, 500])
def test_columns_are_summed_by_key_in_integers(size: int) -> None:
    keys, large, small = drawn(size, 0, 40), drawn(size, 0, 2**60 // 500), drawn(size, -9, 9, 6)
    present, sums = sums_by_key(keys, [large, small])
    expected, places = np.unique(keys, return_inverse=True)
    assert present.tolist() == expected.tolist()
    assert sums.shape == (len(expected), 2)
    for column, values in enumerate((large, small)):
        assert sums[:, column].tolist() == sum_by(places, values, len(expected)).tolist()
