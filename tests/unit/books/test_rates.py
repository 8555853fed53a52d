"""Money in another currency, to a billionth: as large as sums and as long as rates may be."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.books.rates import Rate

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
BILLION = 10**9


@given(
    st.integers(-(10**19), 10**19),
    st.integers(1, 10**15).map(lambda billionths: Decimal(billionths).scaleb(-9)),
)
def test_it_is_rounded_once_and_half_to_even(nusd: int, units: Decimal) -> None:
    with localcontext(prec=100):
        exact = (nusd * units).to_integral_value(ROUND_HALF_EVEN)
    assert Rate(units, SINCE).convert(nusd) == int(exact)


def test_a_million_dollars_just_below_a_half_is_not_rounded_up() -> None:
    """The product has 31 digits and ends in .499999999, after an odd whole."""
    billionths = 999_999_999_999_999
    units = Decimal(billionths).scaleb(-9)
    first = 499_999_999 * pow(billionths, -1, BILLION) % BILLION
    nusd = next(
        amount
        for amount in range(first + 10**15, first + 10**15 + 4 * BILLION, BILLION)
        if amount * billionths // BILLION % 2
    )
    assert Rate(units, SINCE).convert(nusd) == nusd * billionths // BILLION
