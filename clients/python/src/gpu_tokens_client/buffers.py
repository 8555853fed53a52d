"""Where events wait until the server has them: in memory, or in files that outlive the process.

A buffer is a queue with one reader. `append` is called by any thread; `head` and `drop` by the
sending thread alone.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Protocol


@dataclass(frozen=True)
class Batch:
    """The oldest records of a buffer, and how many bytes of it they take."""

    records: list[bytes]
    size_bytes: int


EMPTY = Batch([], 0)


class Buffer(Protocol):
    """A bounded queue of records."""

    def append(self, record: bytes) -> bool:
        """Take a record, without waiting for anything but this machine. False: the buffer is full,
        it was not taken.

        Raises OSError where the disk refuses.
        """
        ...

    def head(self, max_records: int, max_bytes: int) -> Batch:
        """Return the oldest records, which stay; at least one where there is one."""
        ...

    def drop(self, batch: Batch) -> None:
        """Forget `batch`, or a shorter one from the same head."""
        ...

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait."""
        ...

    def close(self) -> None:
        """Stop taking records; what waits stays where it is."""
        ...


class MemoryBuffer:
    """Records in memory: gone with the process."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: deque[bytes] = deque()
        self._bytes = 0
        # re-entrant: a signal handler may emit while its thread is in here
        self._lock = threading.RLock()

    def append(self, record: bytes) -> bool:
        """See Buffer."""
        with self._lock:
            if self._bytes + len(record) > self._max_bytes:
                return False
            self._records.append(record)
            self._bytes += len(record)
            return True

    def head(self, max_records: int, max_bytes: int) -> Batch:
        """See Buffer."""
        with self._lock:
            oldest = list(islice(self._records, max_records))
        size_bytes = 0
        for count, record in enumerate(oldest):
            if count and size_bytes + len(record) > max_bytes:
                return Batch(oldest[:count], size_bytes)
            size_bytes += len(record)
        return Batch(oldest, size_bytes)

    def drop(self, batch: Batch) -> None:
        """See Buffer."""
        with self._lock:
            for _ in batch.records:
                self._bytes -= len(self._records.popleft())

    @property
    def pending_bytes(self) -> int:
        """See Buffer."""
        return self._bytes

    def close(self) -> None:
        """See Buffer."""
