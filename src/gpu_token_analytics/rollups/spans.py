"""Time as the ledger is read: buckets of a time zone, cut into whole UTC days, hours, half hours
and single minutes.

    [from, to) in a bucket  =  minutes | half hour | whole hours | whole days | whole hours | half
                            hour | minutes

Days come from rollups_daily, hours and their halves from rollups_hourly, minutes from ledger_cells.
A zone whose offset is no whole hour has buckets that start inside a UTC hour: at a half
(Asia/Kolkata), or at minutes (Asia/Kathmandu), which stay exact and cost more to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC_ZONE = ZoneInfo("UTC")
MINUTE = timedelta(minutes=1)
HALF_HOUR = timedelta(minutes=30)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Grain(IntEnum):
    """What holds a span: cells, halves of hourly sums, hourly sums, daily sums."""

    MINUTES = 0
    HALF_HOURS = 1
    HOURS = 2
    DAYS = 3


LENGTH = {Grain.MINUTES: MINUTE, Grain.HALF_HOURS: HALF_HOUR, Grain.HOURS: HOUR, Grain.DAYS: DAY}


class Step(IntEnum):
    """Length of a bucket."""

    NONE = 0
    MINUTE = 1
    HOUR = 2
    DAY = 3


@dataclass(frozen=True)
class Span:
    """[start, end), all of one grain."""

    grain: Grain
    start: datetime
    end: datetime

    @property
    def units(self) -> int:
        """How many of its grain."""
        return (self.end - self.start) // LENGTH[self.grain]


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"time_zone={name!r} is not an IANA time zone; give one such as UTC or Europe/Berlin"
        ) from None


def floor(at: datetime, length: timedelta) -> datetime:
    """The start of its UTC minute, hour or day."""
    at = at.astimezone(UTC)
    return at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % length


def ceil(at: datetime, length: timedelta) -> datetime:
    """`at` itself on a border, else the next border."""
    down = floor(at, length)
    return down if down == at else down + length


def buckets(
    start: datetime, end: datetime, step: Step, tz: ZoneInfo
) -> Iterator[tuple[datetime, datetime]]:
    """The buckets that meet [start, end), in UTC and clipped to it, ascending.

    An hour of the zone that a clock change repeats is two buckets, one that it skips is none; a day
    is 23 to 25 hours.
    """
    at = start.astimezone(UTC)
    end = end.astimezone(UTC)
    if step is Step.NONE:
        yield at, end
        return
    while at < end:
        until = min(end, _next_border(at, step, tz))
        yield at, until
        at = until


def bucket_start(at: datetime, step: Step, tz: ZoneInfo) -> datetime:
    """The start of the whole bucket that holds `at`, in the zone: the label of a bucket that a
    range cuts."""
    local = at.astimezone(tz)
    if step is Step.DAY:
        return _midnight(local.date(), tz).astimezone(tz)
    if step is Step.HOUR:
        begun = at.astimezone(UTC) - timedelta(minutes=local.minute, seconds=local.second)
        # An hour that a clock change inside of it began: the time before has the hour's own name.
        while begun.astimezone(tz).utcoffset() != local.utcoffset():
            begun += MINUTE
        return begun.astimezone(tz)
    return local


def _next_border(at: datetime, step: Step, tz: ZoneInfo) -> datetime:
    if step is Step.MINUTE:
        return at + MINUTE
    if tz.key == "UTC":
        return floor(at, HOUR if step is Step.HOUR else DAY) + (HOUR if step is Step.HOUR else DAY)
    local = at.astimezone(tz)
    if step is Step.HOUR:
        # Counted in UTC: local arithmetic would run into the hours a clock change skips or repeats.
        border = at + HOUR - timedelta(minutes=local.minute, seconds=local.second)
        # A clock change inside the hour (half-hour zones, Lord Howe) begins a new one.
        return _shift_inside(at, border, tz) or border
    border = _midnight(local.date() + DAY, tz)
    if border <= at:  # within the part of a day that a clock set back over midnight repeats
        tomorrow = local.date() + DAY
        border = datetime(
            tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=tz, fold=1
        ).astimezone(UTC)
    return border if border > at else at + DAY


def _shift_inside(at: datetime, border: datetime, tz: ZoneInfo) -> datetime | None:
    before = at.astimezone(tz).utcoffset()
    if (border - MINUTE).astimezone(tz).utcoffset() == before:
        return None
    minute = at
    while minute.astimezone(tz).utcoffset() == before:
        minute += MINUTE
    return minute


def _midnight(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC (where midnight is skipped: the end of the gap)."""
    naive = datetime(day.year, day.month, day.day, tzinfo=tz)
    at = naive.astimezone(UTC)
    if at.astimezone(tz).date() < day:  # skipped: fold=0 maps into the day before
        while at.astimezone(tz).date() < day:
            at += MINUTE
        return at
    # A clock set back over midnight gives the day two beginnings; fold=0 is the first. One that
    # skips midnight maps past it: walk back to the first minute of the day.
    while (at - MINUTE).astimezone(tz).date() == day:
        at -= MINUTE
    return at


def spans(start: datetime, end: datetime) -> Iterator[Span]:
    """[start, end), on whole minutes, cut into the coarsest grains, ascending. UTC."""
    yield from _cut(start, end, Grain.DAYS)


def _cut(start: datetime, end: datetime, grain: Grain) -> Iterator[Span]:
    if start >= end:
        return
    if grain is Grain.MINUTES:
        yield Span(Grain.MINUTES, start, end)
        return
    first, last = ceil(start, LENGTH[grain]), floor(end, LENGTH[grain])
    finer = Grain(grain - 1)
    if first >= last:
        yield from _cut(start, end, finer)
        return
    yield from _cut(start, first, finer)
    yield Span(grain, first, last)
    yield from _cut(last, end, finer)


def runs(pieces: Iterator[Span]) -> Iterator[Span]:
    """Neighbouring spans of one grain joined: one query each."""
    last: Span | None = None
    for piece in pieces:
        if last is not None and last.grain is piece.grain and last.end == piece.start:
            last = Span(last.grain, last.start, piece.end)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last
