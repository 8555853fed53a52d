"""Sums and distinct values of integer columns."""

from __future__ import annotations

import numpy as np

from gpu_token_analytics.ledger.money import Int64


def distinct(ascending: Int64) -> tuple[Int64, Int64]:
    """The different values of an array in ascending order, and which of them each element has.
    Shapes (m,), (n,)."""
    first = np.ones(len(ascending), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first], np.cumsum(first) - 1


def sum_by(index: Int64, values: Int64, size: int) -> Int64:
    """Integer sums of `values` by their index in [0, size)."""
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, index, values)
    return sums
