"""Periods by their names and the period before a range: by the calendar of a zone, clock changes
included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_token_analytics.costs.periods import named_period, range_before
from gpu_token_analytics.errors import Refused

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
NOW = datetime(2026, 4, 1, 9, 30, 20, tzinfo=BERLIN)  # a Wednesday


def local(text: str, tz: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=tz)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("today", "2026-04-01", "2026-04-01T09:31"),
        ("yesterday", "2026-03-31", "2026-04-01"),
        ("this-week", "2026-03-30", "2026-04-01T09:31"),
        ("last-week", "2026-03-23", "2026-03-30"),
        ("this-month", "2026-04-01", "2026-04-01T09:31"),
        ("last-month", "2026-03-01", "2026-04-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2026-W13", "2026-03-23", "2026-03-30"),
        ("2025-12-31", "2025-12-31", "2026-01-01"),
    ],
)
def test_a_period_is_one_of_the_calendar(name: str, start: str, end: str) -> None:
    assert named_period(name, NOW.astimezone(UTC), BERLIN) == (local(start), local(end))


@pytest.mark.parametrize(
    "name", ["2026-13", "2026-W54", "2026-02-30", "last-year", "", "2026-1", "0000-01"]
)
def test_what_is_no_period_is_refused_by_name(name: str) -> None:
    with pytest.raises(Refused, match="last-month"):
        named_period(name, NOW, BERLIN)


@pytest.mark.parametrize(
    ("start", "end", "before", "until"),
    [
        # a month, though February is shorter
        ("2026-03-01", "2026-04-01", "2026-02-01", "2026-03-01"),
        ("2026-01-01", "2026-04-01", "2025-10-01", "2026-01-01"),  # a quarter
        # more than February has: all of it
        ("2026-03-01", "2026-03-31T12:00", "2026-02-01", "2026-03-01"),
        ("2026-02-01", "2026-02-10T12:00", "2026-01-01", "2026-01-10T12:00"),
        # a week of which the clock changed in the one before
        ("2026-03-30", "2026-04-06", "2026-03-23", "2026-03-30"),
        ("2026-03-30", "2026-03-31T09:00", "2026-03-23", "2026-03-24T09:00"),  # Monday to Tuesday
        ("2026-03-31", "2026-03-31T09:00", "2026-03-30", "2026-03-30T09:00"),
        # a month's first day and first week, whole: no parts of a month
        ("2026-04-01", "2026-04-02", "2026-03-31", "2026-04-01"),
        ("2026-06-01", "2026-06-08", "2026-05-25", "2026-06-01"),
        ("2026-06-01", "2026-06-03", "2026-05-01", "2026-05-03"),
        ("2026-07-01", "2026-07-08", "2026-06-01", "2026-06-08"),  # from a Wednesday
        # nine hours of a day that skipped one
        ("2026-03-30", "2026-03-30T09:00", "2026-03-29", "2026-03-29T10:00"),
        # more than a day of 23 hours has: all of it
        ("2026-03-30", "2026-03-30T23:30", "2026-03-29", "2026-03-30"),
        ("2026-03-30", "2026-04-05T23:30", "2026-03-23", "2026-03-30"),
        ("2026-03-30T08:00", "2026-03-30T10:30", "2026-03-30T05:30", "2026-03-30T08:00"),
    ],
)
def test_the_period_before(start: str, end: str, before: str, until: str) -> None:
    assert range_before(local(start), local(end), BERLIN) == (local(before), local(until))


@settings(deadline=None)
@given(
    start=st.integers(0, 14 * 365 * 1440).map(
        lambda minute: datetime(2016, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    ),
    minutes=st.integers(1, 100_000),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
    ),
    on_border=st.booleans(),
)
def test_it_is_before_and_not_empty(
    start: datetime, minutes: int, zone: str, on_border: bool
) -> None:
    tz = ZoneInfo(zone)
    begin = start.replace(second=0, microsecond=0, tzinfo=tz)
    if on_border:
        begin = begin.replace(hour=0, minute=0)
    begin = begin.astimezone(UTC)
    end = begin + timedelta(minutes=minutes)
    low, high = range_before(begin, end, tz)
    assert low < high <= begin
    assert high - low <= end - begin + timedelta(days=4)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu"])
def test_a_period_that_is_over_is_beside_the_one_of_its_kind_before(zone: str) -> None:
    """Of every day, week and month of years, clock changes, leap days and new years included."""
    tz = ZoneInfo(zone)
    for day in range(3 * 366):
        now = datetime(2023, 12, 1, 12, tzinfo=tz) + timedelta(days=day)
        for name in ("yesterday", "last-week", "last-month"):
            start, end = named_period(name, now, tz)
            assert range_before(start, end, tz) == named_period(name, start, tz), (name, now)
