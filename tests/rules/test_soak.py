"""The soak's judgement of memory and lag over time can fail."""

from __future__ import annotations

import pytest
from bench.soak import LAG_SECONDS, Sample, problems_of

RATE = 100.0


def samples(memory: list[float], lag: int = 0) -> list[Sample]:
    return [Sample(5.0 * number, 0, 0, lag, rss_mb) for number, rss_mb in enumerate(memory)]


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (samples([100, 150, 180, 200] * 3 + [200.0] * 36), None),
        (samples([200.0] * 24 + [210.0] * 24), None),
        (samples([200.0 + 3 * number for number in range(48)]), "memory grew from 252 MB"),
        (samples([200.0] * 48, lag=int(RATE * LAG_SECONDS)), None),
        (samples([200.0] * 48, lag=int(RATE * LAG_SECONDS) + 1), "the lag reached 6,001 records"),
        (samples([200.0] * 47), "say nothing of memory"),
    ],
)
def test_growth_and_backlog_are_problems(seen: list[Sample], problem: str | None) -> None:
    problems = problems_of(seen, RATE)
    assert (problems == []) if problem is None else (problem in problems[0])
