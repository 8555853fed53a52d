"""The share of records that are bad, and what to say while it is too much."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.kafka.records import DeadLetter
from gpu_token_analytics.wire.kind import Event

BAD_RECORD_WINDOW = 1000


class BadRecordShare:
    """How many of the last BAD_RECORD_WINDOW records are bad. Past the limit it warns - a broken
    producer, a wrong topic - and stops nobody: bad records are in the dead letters, and the good
    ones between them are other people's (decision 26)."""

    def __init__(self, limit_ratio: float) -> None:
        self._limit = limit_ratio
        self._last: deque[bool] = deque(maxlen=BAD_RECORD_WINDOW)
        # while the share is past the limit; another thread may read it
        self.warning: str | None = None

    @property
    def ratio(self) -> float:
        """Of the last full window; 0 before, so that a few bad records after a start are no
        alarm."""
        return sum(self._last) / BAD_RECORD_WINDOW if len(self._last) == BAD_RECORD_WINDOW else 0.0

    def see(self, events: Sequence[Event | InvalidRecord], letters: Sequence[DeadLetter]) -> None:
        """Take note of a batch, or a part of it."""
        self._last.extend(
            [isinstance(event, InvalidRecord) for event in events]
            if letters
            else [False] * len(events)
        )
        if self.ratio <= self._limit:
            self.warning = None
        elif letters:
            last = letters[-1]
            self.warning = (
                f"{sum(self._last)} of the last {BAD_RECORD_WINDOW:,} records are bad "
                f"(BAD_RECORD_LIMIT_RATIO={self._limit:g}), such as "
                f"{last.topic} {last.at}: {last.reason}: {last.message}. They are in the dead "
                "letters; "
                "`gpu-tokens dead-letters list` shows them: repair the producer that sends them"
            )
