"""The requests this process stored last, as columns: closing takes them from here instead of reading them back.

A cell must not depend on who computes it. So what is here is used only where it is all there is: these requests are stored
(they are added after MongoDB has confirmed them, nothing but retention removes them, and that comes much later than
KEPT_SECONDS), and when MongoDB counts as many in a time as are here, they are the same ones. Counting reads the index alone, a
tenth of reading the documents. Where the numbers differ, another process stored some of them, and all are read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.ledger.money import Int64
from gpu_token_analytics.ledger.requests import UsageRows

KEPT_SECONDS = 3600.0
MOST_BYTES = 64 * 1024 * 1024  # of records: some 150,000 requests, which take half of that here; never much more than that


@dataclass
class _Batch:
    parts: Sequence[UsageRows]
    size_bytes: int
    stored_at: float  # monotonic

    @property
    def rows(self) -> UsageRows:
        if len(self.parts) > 1:
            self.parts = [UsageRows.joined(self.parts)]
        return self.parts[0]

    @cached_property
    def span_us(self) -> tuple[int, int]:
        """The first and the last end of a request."""
        return int(self.rows.ts_us.min()), int(self.rows.ts_us.max())


class RecentUsage:
    """Bounded; the oldest batches go first. Any thread may add and look."""

    def __init__(self, clock: Clock | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque()
        self._bytes = 0
        self._gpus: dict[GpuId, float] = {}  # when each was touched last

    def add(self, parts: Sequence[UsageRows], size_bytes: int) -> None:
        """A batch that this process has just stored, each request for the first time, durably. It is kept as it is: what costs
        time is done when somebody looks. size_bytes: of its records."""
        if not parts:
            return
        with self._lock:
            self._batches.append(_Batch(parts, size_bytes, self._clock.monotonic()))
            self._bytes += size_bytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._batches.popleft().size_bytes

    def touch(self, gpus: Iterable[GpuId]) -> None:
        """Events of these GPUs were stored by this process, requests or samples."""
        with self._lock:
            self._gpus |= dict.fromkeys(gpus, self._clock.monotonic())

    @property
    def gpus(self) -> frozenset[GpuId]:
        """The GPUs touched lately."""
        oldest = self._clock.monotonic() - KEPT_SECONDS
        with self._lock:
            self._gpus = {gpu: at for gpu, at in self._gpus.items() if at >= oldest}
            return frozenset(self._gpus)

    def ended(self, names: Iterable[str], start_us: int, end_us: int) -> UsageRows:
        """The requests known here that name one of `names` and ended in [start, end), each once."""
        wanted = list(names)
        oldest = self._clock.monotonic() - KEPT_SECONDS
        with self._lock:
            batches = [batch for batch in self._batches if batch.stored_at >= oldest]
        return UsageRows.joined(
            [
                batch.rows.take(where)
                for batch in batches
                if batch.span_us[0] < end_us
                and batch.span_us[1] >= start_us
                and len(where := _places(batch.rows, wanted, start_us, end_us))
            ]
        )


def _places(rows: UsageRows, names: Iterable[str], start_us: int, end_us: int) -> Int64:
    found: Int64 = np.flatnonzero(rows.labels.named(names) & (rows.ts_us >= start_us) & (rows.ts_us < end_us))
    return found
