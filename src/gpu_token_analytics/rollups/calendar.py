"""Days, weeks and months of a time zone, as people plan and pay: a week begins on Monday, clock
changes included."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from gpu_token_analytics.rollups.spans import Step, bucket_start


class Period(StrEnum):
    """A calendar period."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def period_of(at: datetime, period: Period, tz: ZoneInfo) -> tuple[datetime, datetime]:
    """[start, end) of the period that holds `at`, in UTC."""
    first = _first_day(at.astimezone(tz).date(), period)
    return midnight(first, tz), midnight(_first_day(first + _LONGEST[period], period), tz)


def period_before(at: datetime, period: Period, tz: ZoneInfo) -> tuple[datetime, datetime]:
    """[start, end) of the last period that was over at `at`, in UTC."""
    start, _ = period_of(at, period, tz)
    return period_of(start - timedelta(minutes=1), period, tz)


def midnight(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC."""
    # no clock change skips or repeats it
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=tz)
    return bucket_start(noon, Step.DAY, tz).astimezone(UTC)


# From the first day of a period this far is in the next one, and not past it.
_LONGEST = {
    Period.DAY: timedelta(days=1),
    Period.WEEK: timedelta(days=7),
    Period.MONTH: timedelta(days=31),
}


def _first_day(day: date, period: Period) -> date:
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day
