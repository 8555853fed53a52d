"""Calendar periods by their names, and the period before a range: what a month is compared with.

    today yesterday this-week last-week this-month last-month      what is not over ends now
    2026-01    2026-W05    2026-01-31                               a month, an ISO week (from
               Monday), a day

Days begin at midnight of a time zone, clock changes included. The period before [start, end):

    whole months                           as many months before
    a day, a week from a Monday            the day, the week before, on a month's first day, too
    from a month's begin to within it      the same part of the month before, at most all of it
    whole days                             as many days before
    from a Monday to within its week       the same part of the week before, at most all of it
    from a midnight to within the day      the same part of the day before, at most all of it
    else                                   as long, right before
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.calendar import Period, midnight, period_before, period_of
from gpu_token_analytics.rollups.spans import MINUTE, ceil

_NAMED = {
    "today": (Period.DAY, False),
    "yesterday": (Period.DAY, True),
    "this-week": (Period.WEEK, False),
    "last-week": (Period.WEEK, True),
    "this-month": (Period.MONTH, False),
    "last-month": (Period.MONTH, True),
}
_MONTH, _WEEK, _DAY = (
    re.compile(r"(\d{4})-(\d\d)"),
    re.compile(r"(\d{4})-W(\d\d)"),
    re.compile(r"(\d{4})-(\d\d)-(\d\d)"),
)


def named_period(name: str, now: datetime, tz: ZoneInfo) -> tuple[datetime, datetime]:
    """[start, end) of a period in UTC; one that is not over ends with the minute that holds `now`.
    Raises Refused."""
    if name in _NAMED:
        period, is_over = _NAMED[name]
        start, end = period_before(now, period, tz) if is_over else period_of(now, period, tz)
    else:
        start, end = _dated(name, tz)
    return start, min(end, max(ceil(now, MINUTE), start + MINUTE))


def _dated(name: str, tz: ZoneInfo) -> tuple[datetime, datetime]:
    try:
        if month := _MONTH.fullmatch(name):
            day, period = date(int(month[1]), int(month[2]), 1), Period.MONTH
        elif week := _WEEK.fullmatch(name):
            day, period = date.fromisocalendar(int(week[1]), int(week[2]), 1), Period.WEEK
        elif _DAY.fullmatch(name):
            day, period = date.fromisoformat(name), Period.DAY
        else:
            raise ValueError(name)
        return period_of(midnight(day, tz), period, tz)
    except (ValueError, OverflowError):
        known = ", ".join(_NAMED)
        raise Refused(
            "invalid_range",
            f"period={name!r} is none; give {known}, "
            "or one such as 2026-01, 2026-W05 or 2026-01-31",
            "period",
        ) from None


def range_before(start: datetime, end: datetime, tz: ZoneInfo) -> tuple[datetime, datetime]:
    """The period before [start, end), in UTC."""
    first, last = start.astimezone(tz).date(), end.astimezone(tz).date()
    if start == midnight(first, tz):
        whole_days = end == midnight(last, tz)
        if whole_days and first.day == last.day == 1:
            months = (last.year - first.year) * 12 + last.month - first.month
            return midnight(_months_later(first, -months), tz), start
        days = (last - first).days
        whole_unit = whole_days and (days == 1 or (days == 7 and not first.weekday()))
        following = midnight(_months_later(first, 1), tz)
        if first.day == 1 and end <= following and not whole_unit:
            begin = midnight(_months_later(first, -1), tz)
            return begin, start if end == following else min(start, begin + (end - start))
        if whole_days:
            return midnight(first - (last - first), tz), start
        if end < midnight(first + timedelta(days=1), tz):
            return _shifted(first, 1, start, end, tz)
        if not first.weekday() and end < midnight(first + timedelta(days=7), tz):
            return _shifted(first, 7, start, end, tz)
    return (start - (end - start)).astimezone(UTC), start.astimezone(UTC)


def _shifted(
    first: date, days: int, start: datetime, end: datetime, tz: ZoneInfo
) -> tuple[datetime, datetime]:
    begin = midnight(first - timedelta(days=days), tz)
    # a day of 23 hours holds no 23.5 of them
    return begin, min(begin + (end - start), start.astimezone(UTC))


def _months_later(first: date, months: int) -> date:
    at = first.year * 12 + first.month - 1 + months
    return date(at // 12, at % 12 + 1, 1)
