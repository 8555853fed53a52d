"""Days, weeks and months begin where people of a zone begin them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.rollups.calendar import Period, period_before, period_of

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/Santiago",
    "Pacific/Apia",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "period", "zone", "start", "end"),
    [
        ("2026-03-15T10:00", Period.DAY, "UTC", "2026-03-15T00:00", "2026-03-16T00:00"),
        # a Sunday
        ("2026-03-15T10:00", Period.WEEK, "UTC", "2026-03-09T00:00", "2026-03-16T00:00"),
        ("2026-03-16T00:00", Period.WEEK, "UTC", "2026-03-16T00:00", "2026-03-23T00:00"),
        ("2026-03-31T23:59", Period.MONTH, "UTC", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("2026-03-31T23:00", Period.MONTH, "Europe/Berlin", "2026-03-31T22:00", "2026-04-30T22:00"),
        # an hour short
        ("2026-03-10T00:00", Period.MONTH, "Europe/Berlin", "2026-02-28T23:00", "2026-03-31T22:00"),
        # 23 hours
        ("2026-03-29T12:00", Period.DAY, "Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("2026-12-31T12:00", Period.MONTH, "Asia/Kolkata", "2026-11-30T18:30", "2026-12-31T18:30"),
        ("2024-02-29T12:00", Period.MONTH, "UTC", "2024-02-01T00:00", "2024-03-01T00:00"),
        ("2026-01-01T00:00", Period.WEEK, "UTC", "2025-12-29T00:00", "2026-01-05T00:00"),
    ],
)
def test_where_periods_begin_and_end(
    at: str, period: Period, zone: str, start: str, end: str
) -> None:
    assert period_of(utc(at), period, ZoneInfo(zone)) == (utc(start), utc(end))


def test_the_period_before() -> None:
    assert period_before(utc("2026-03-31T10:00"), Period.MONTH, ZoneInfo("UTC")) == (
        utc("2026-02-01T00:00"),
        utc("2026-03-01T00:00"),
    )
    assert period_before(utc("2026-03-02T10:00"), Period.WEEK, ZoneInfo("UTC")) == (
        utc("2026-02-23T00:00"),
        utc("2026-03-02T00:00"),
    )


@given(
    st.integers(0, 83 * 365 * 1440).map(
        lambda minutes: datetime(2015, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    ),
    st.sampled_from(Period),
    st.sampled_from(ZONES),
)
def test_periods_follow_each_other_without_a_gap(at: datetime, period: Period, zone: str) -> None:
    tz = ZoneInfo(zone)
    start, end = period_of(at, period, tz)
    assert start <= at < end
    assert period_of(end, period, tz)[0] == end
    assert period_of(end - timedelta(minutes=1), period, tz) == (start, end)
    assert period_before(end, period, tz) == (start, end)
