"""The range that options ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.terminal.support import asked_range

NOW = datetime(2026, 3, 22, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "length"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(days=1)),
        ("30d", timedelta(days=30)),
        ("3w", timedelta(days=21)),
    ],
)
def test_the_last_minutes_hours_days_and_weeks(last: str, length: timedelta) -> None:
    start, end = asked_range(None, None, last).at(NOW)
    assert (end, end - start) == (datetime(2026, 3, 22, 12, 1, tzinfo=UTC), length)


@pytest.mark.parametrize("last", ["3", "w", "3y", "-1w", "3 w", "3W"])
def test_what_is_no_length_is_named(last: str) -> None:
    with pytest.raises(SettingsError, match=f"--last={last!r}.*or 3w"):
        asked_range(None, None, last)
