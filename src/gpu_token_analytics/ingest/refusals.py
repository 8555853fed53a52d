"""Says in the log that records were refused: one line every few seconds, however many a sender has
refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.kafka.records import DeadLetter

_log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
# The record was refused, so it is read no further than this; what looks like no id is none.
_EVENT_ID = re.compile(rb'"event_id"\s*:\s*"([0-9A-Za-z-]{1,64})"')
_LOOKED_AT_BYTES = 4096


class RefusalLog:
    """Counts refused records and logs them, the last one in full; for one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records = 0
        self._due = float("-inf")

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """These are in the dead letters now."""
        self._records += len(letters)
        now = self._clock.monotonic()
        if not letters or now < self._due:
            return
        last = letters[-1]
        _log.warning(
            "%d records refused, see `gpu-tokens dead-letters list`; the last one, %s: %s: %s",
            self._records,
            last.at,
            last.reason,
            last.message,
            extra={
                "records": self._records,
                "reason": last.reason,
                "topic": last.topic,
                "partition": last.partition,
                "offset": last.offset,
                "event_id": event_id_in(last.value),
            },
        )
        self._records, self._due = 0, now + EVERY_SECONDS


def event_id_in(value: bytes | None) -> str | None:
    """The event id that refused bytes name, or null."""
    match = _EVENT_ID.search((value or b"")[:_LOOKED_AT_BYTES])
    return None if match is None else match[1].decode()
