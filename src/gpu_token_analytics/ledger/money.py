"""Integer nano-USD: the price integral that never drifts, and the split that never loses a unit.

R(t) = round(price x t), with t counted from 1970 in microseconds: the money of any span is R(end) -
R(start), so the spans of a longer time always sum to that time's money, whatever their size.
Rounding each span by itself drifted by 1.6e-7 USD an hour; this cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.documents import NUSD_PER_USD, US_PER_HOUR, NanoUsd
from gpu_token_analytics.ledger.arrays import order_of

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
NDArrayBool = NDArray[np.bool_]

_REMAINDERS = 10**6  # so many remainders are told from each other


@lru_cache(maxsize=4096, typed=True)  # a fleet has few prices, and each sample names one
def nusd_per_hour(usd_per_hour: float | str | Decimal) -> NanoUsd:
    """A price in integer nano-USD per hour, through Decimal so that 0.85 is 850,000,000 exactly.

    Raises ValueError for what is not a finite number of 0 or more.
    """
    try:
        price = Decimal(str(usd_per_hour))
    except InvalidOperation:
        raise ValueError(f"usd_per_hour={usd_per_hour!r} is not a number") from None
    if not price.is_finite() or price < 0:
        raise ValueError(f"usd_per_hour={usd_per_hour!r}: a price is a finite number of 0 or more")
    return int((price * NUSD_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def price_integral(price_nusd_per_hour: NanoUsd, at_us: int) -> NanoUsd:
    """R(t): nano-USD from 1970 to `at_us` at a constant price, rounded half up. Exact for any size
    (Python integers)."""
    return (2 * price_nusd_per_hour * at_us + US_PER_HOUR) // (2 * US_PER_HOUR)


def split_exactly(total: NanoUsd, weights: Sequence[int]) -> list[NanoUsd]:
    """`total` in parts proportional to `weights` (>= 0) by largest remainder; equal remainders go
    to the earlier one.

    In Python integers: exact for any size. A weight of 0 gets 0, unless all are 0: then the first
    gets all.
    """
    whole = sum(weights)
    if not whole:
        return [total, *(0 for _ in weights[1:])]
    if len(weights) == 1:
        return [total]
    floors, remainders = zip(*[divmod(total * weight, whole) for weight in weights], strict=True)
    parts = list(floors)
    left = total - sum(parts)
    if left:
        # stable: ties stay in order
        for index in sorted(range(len(weights)), key=remainders.__getitem__, reverse=True)[:left]:
            parts[index] += 1
    return parts


def largest_remainder(shares: Float64, group: Int64, totals: Int64) -> Int64:
    """Integers that sum, within each group, to exactly `totals[group]`, in proportion to `shares`
    (Hamilton's method).

    shares: floats >= 0; a group whose total is not 0 has a share that is not 0. group: the group
    (cell) of each share, ascending. totals: >= 0. Equal remainders go to the earlier share, so the
    caller's order (by event id) decides ties. Every result is less than 1 away from its quota and
    never negative. Shapes: (n,), (n,), (groups,) -> (n,).
    """
    sums = np.bincount(group, weights=shares, minlength=len(totals))
    quotas = shares * np.divide(totals, sums, out=np.zeros(len(totals)), where=sums > 0)[group]
    floors = np.floor(quotas)
    parts = floors.astype(np.int64)
    left = totals.copy()
    np.subtract.at(left, group, parts)
    count = np.bincount(group, minlength=len(totals))
    # `whole` is 0, or 1 where every remainder is 1 but for noise.
    whole, extra = np.divmod(left, np.maximum(count, 1))
    # Ranked inside each group by remainder, largest first. Rounded, so that remainders that differ
    # only by float noise tie; 2.9999999997, which is 3 computed in floats, has a remainder of 1
    # then and gets its unit back first.
    lacking = _REMAINDERS - np.rint((quotas - floors) * _REMAINDERS).astype(np.int64)
    ranked = order_of(group * (_REMAINDERS + 1) + lacking)
    rank = np.arange(len(shares)) - np.repeat(np.cumsum(count) - count, count)
    parts += whole[group]
    parts[ranked[rank < extra[group]]] += 1
    return parts
