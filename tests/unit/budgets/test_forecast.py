"""The forecast says what its formula says, worked out by hand, and nothing where there is too
little to say."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.budgets.forecast import Forecast, forecast


def days(*money: int) -> list[int]:
    """All of a day's money in its first hour."""
    return [nusd if hour == 0 else 0 for nusd in money for hour in range(24)]


def test_two_days_like_the_last_three() -> None:
    # mean 20, s2 100: 2 x 20; variance 2 x 100 + 400 / 3 = 333.33; 1.886 x 18.257 = 34.4
    assert forecast(days(10, 20, 30), 1000, Fraction(48)) == Forecast(1040, 1006, 1074, 3)


def test_a_part_of_a_day_is_like_the_same_hours_of_the_days_before() -> None:
    # the first half hour: 5, 10, 15; mean 10, s2 25; variance 25 + 25 / 3; 1.886 x 5.774 = 10.9:
    # not below what is spent
    assert forecast(days(10, 20, 30), 1000, Fraction(1, 2)) == Forecast(1010, 1000, 1021, 3)
    # a day and twelve hours: each day's money is in its first hour, so 2 x 20; variance 100 + 100 +
    # 400 / 3
    assert forecast(days(10, 20, 30), 1000, Fraction(36)) == Forecast(1040, 1006, 1074, 3)


def test_nights_cost_what_nights_cost() -> None:
    # it is morning now: the rest of the day is twelve hours of work
    office = [*[100] * 12, *[0] * 12]
    assert forecast(office * 7, 500, Fraction(12)) == Forecast(1700, 1700, 1700, 7)
    evening = [*[0] * 12, *[100] * 12]  # it is evening now: nothing more comes
    assert forecast([*[100] * 12, *evening * 7], 500, Fraction(12)) == Forecast(500, 500, 500, 7)


def test_steady_spending_is_certain() -> None:
    assert forecast([7] * 24 * 28, 100, Fraction(24 * 10)) == Forecast(
        100 + 7 * 240, 1780, 1780, 28
    )


@pytest.mark.parametrize(
    ("hours", "used"),
    [(71, 0), (72, 3), (24 * 6 + 23, 6), (24 * 13, 7), (24 * 20, 14), (24 * 40, 28)],
)
def test_whole_weeks_of_history_are_used_where_there_are_any(hours: int, used: int) -> None:
    made = forecast([5] * hours, 0, Fraction(24))
    assert (made.days if made else 0) == used


def test_history_begins_with_the_first_hour_that_cost_something() -> None:
    assert forecast([*[0] * 24 * 20, *days(10, 20)], 0, Fraction(24)) is None
    made = forecast([*[0] * 24 * 20, *days(10, 20, 30)], 0, Fraction(24))
    assert made is not None
    assert (made.nusd, made.days) == (20, 3)


def test_nothing_spent_is_no_history() -> None:
    assert forecast([0] * 24 * 28, 0, Fraction(24)) is None
    assert forecast([], 0, Fraction(24)) is None


def test_a_period_that_is_over_is_what_was_spent() -> None:
    assert forecast([], 123, Fraction(0)) == Forecast(123, 123, 123, 0)


@given(
    st.lists(st.integers(0, 10**15), min_size=72, max_size=24 * 30),
    st.integers(0, 10**18),
    st.fractions(0, 24 * 31, max_denominator=60),
)
def test_what_is_spent_stays_spent(hours: list[int], spent: int, rest: Fraction) -> None:
    made = forecast(hours, spent, rest)
    if made is not None:
        assert spent <= made.low_nusd <= made.nusd <= made.high_nusd
