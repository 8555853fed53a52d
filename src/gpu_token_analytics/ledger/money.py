"""Integer nano-USD: the price integral that never drifts, and the split that never loses a unit.

R(t) = round(price x t), with t counted from 1970 in microseconds: the money of any span is R(end) - R(start), so the spans
of a longer time always sum to that time's money, whatever their size. Rounding each span by itself drifted by 1.6e-7 USD an
hour; this cannot.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.documents import NUSD_PER_USD, US_PER_HOUR, NanoUsd

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


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
    """R(t): nano-USD from 1970 to `at_us` at a constant price, rounded half up. Exact for any size (Python integers)."""
    return (2 * price_nusd_per_hour * at_us + US_PER_HOUR) // (2 * US_PER_HOUR)


def price_integrals(price_nusd_per_hour: NanoUsd, origin_us: int, offsets_us: Int64) -> Int64:
    """R(origin + offset) - R(origin) for many offsets of at most a minute each.

    The same numbers as `price_integral`, in int64: price = q*h + r with h the microseconds of an hour, so that no product
    passes 2^63 for offsets below 2.5e9 us.
    """
    doubled = 2 * US_PER_HOUR
    base, rest = divmod(2 * price_nusd_per_hour * origin_us + US_PER_HOUR, doubled)
    del base
    whole, part = divmod(2 * price_nusd_per_hour, doubled)
    return whole * offsets_us + (rest + part * offsets_us) // doubled


def largest_remainder(shares: Float64, group: Int64, totals: Int64) -> Int64:
    """Integers next to `shares` that sum, within each group, to exactly `totals[group]` (Hamilton's method).

    shares: float nano-USD >= 0 whose sum in each group is within rounding noise of its total.
    group: the group (cell) of each share, ascending. Equal remainders go to the earlier share, so the caller's order
    (by event id) decides ties. Shapes: (n,), (n,), (groups,) -> (n,).
    """
    floors = np.floor(shares)
    # 2.9999999997 is 3 computed in floats: without this the unit would go to whoever sorts first.
    near = np.rint(shares)
    exact = np.abs(shares - near) < 1e-6
    floors = np.where(exact, near, floors)
    remainders = np.where(exact, 0.0, shares - floors)
    whole = floors.astype(np.int64)
    left = totals.copy()
    np.subtract.at(left, group, whole)
    # Rank inside each group by remainder, largest first; lexsort is stable, so ties keep the caller's order.
    order = np.lexsort((-np.round(remainders, 6), group))
    first = np.searchsorted(group, np.arange(len(totals)))
    rank = np.empty(len(shares), dtype=np.int64)
    rank[order] = np.arange(len(shares)) - first[group[order]]
    size = np.bincount(group, minlength=len(totals))
    each, extra = np.divmod(left, np.maximum(size, 1))
    whole += each[group]  # 0, or -1 where rounding noise had put one unit too many
    whole += rank < extra[group]
    return whole
