"""What a query has to read, in spans: the short ways must give what cutting every bucket gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.rollups.spans import Step, buckets, runs, spans

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"]
FIRST = datetime(2017, 1, 1, tzinfo=UTC)


@given(
    st.integers(0, 10 * 365 * 1440).map(lambda minutes: FIRST + timedelta(minutes=minutes)),
    st.integers(1, 5 * 1440),
    st.sampled_from(list(Step)),
    st.sampled_from(ZONES),
    st.booleans(),
)
def test_spans_are_those_of_every_bucket(start: datetime, minutes: int, step: Step, name: str, whole_hours: bool) -> None:
    if whole_hours:
        start, minutes = start.replace(minute=0), -(-minutes // 60) * 60
    end, tz = start + timedelta(minutes=minutes), ZoneInfo(name)
    every = runs(piece for low, high in buckets(start, end, step, tz) for piece in spans(low, high))
    assert CostQuery(start, end, step, tz).spans == tuple(every)
