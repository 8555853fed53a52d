"""Times as microseconds since 1970 UTC: what is stored and computed with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# before the first LLM was served: an unset clock, not an event
EARLIEST_TS = datetime(2015, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since 1970-01-01 UTC."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The UTC datetime of `us` microseconds since 1970-01-01."""
    return _EPOCH + timedelta(microseconds=us)
