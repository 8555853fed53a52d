"""Quiet hours: the longest run, over midnight, and none where there is nothing to compare with."""

from __future__ import annotations

import pytest

from gpu_token_analytics.costs.hints import quiet_hours


def day(quiet: set[int], busy: float = 0.5) -> dict[int, float]:
    return {hour: 0.0 if hour in quiet else busy for hour in range(24)}


@pytest.mark.parametrize(
    ("quiet", "hours"),
    [
        ({22, 23, 0, 1, 2}, [22, 23, 0, 1, 2]),
        ({1, 2, 3}, []),  # too short
        ({1, 2, 3, 4, 10, 11, 12, 13, 14}, [10, 11, 12, 13, 14]),
        ({1, 2, 3, 4, 10, 11, 12, 13}, [1, 2, 3, 4]),
        (set(range(24)), []),  # never busy: a GPU to give back, no hours
    ],
)
def test_the_longest_run(quiet: set[int], hours: list[int]) -> None:
    assert quiet_hours(day(quiet)) == hours


def test_a_day_that_is_not_whole_says_nothing() -> None:
    assert quiet_hours(dict.fromkeys(range(20), 0.0) | {21: 0.9}) == []


def test_no_hour_is_busy() -> None:
    assert quiet_hours(day({1, 2, 3, 4, 5}, busy=0.19)) == []
