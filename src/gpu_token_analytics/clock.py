"""Time as a parameter: loops get a `Clock`, so a test can run an hour of them in a millisecond."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """The wall clock, in UTC. May jump (NTP); never use it to measure durations."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait up to `seconds` (not at all when negative), less when `stop` is set. True: stop is
        set."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait up to `seconds`, less when `stop` is set."""
        return stop.wait(max(0.0, seconds))


class ManualClock:
    """A clock that only moves when someone waits on it or calls `advance`: for tests."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        """The time this clock was moved to."""
        return self._now

    def monotonic(self) -> float:
        """Seconds this clock was moved by."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Move on by `seconds` at once, unless `stop` is set."""
        if not stop.is_set() and seconds > 0:
            self.advance(seconds)
        return stop.is_set()
