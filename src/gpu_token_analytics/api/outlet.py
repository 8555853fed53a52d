"""The way to Kafka, which may be away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.errors import KafkaError

# a producer serves one thread at a time; the other one reads and judges meanwhile
INGEST_THREADS = 2
MOST_WAITING = 64
SHUT_SECONDS = 5.0


class Outlet:
    """The way to Kafka, which may be away: it takes requests in threads of its own, so that reading
    waits for nobody, and while Kafka does not acknowledge it says so at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limiter = anyio.CapacityLimiter(INGEST_THREADS)
        self._clock = clock
        self._lock = threading.Lock()
        self._shut_until = float("-inf")

    def check(self) -> None:
        """Raises ApiProblem where a request would only wait."""
        if self._clock() < self._shut_until:
            raise _away(
                "Kafka did not acknowledge a moment ago; nothing of this request was sent.",
                SHUT_SECONDS,
            )
        if self.limiter.statistics().tasks_waiting >= MOST_WAITING:
            raise _away(f"{MOST_WAITING} requests wait for Kafka; nothing of this one was sent.", 1)

    @contextmanager
    def open(self) -> Iterator[None]:
        """One thread at a time. A KafkaError within shuts it for SHUT_SECONDS."""
        with self._lock:
            self.check()  # the one before may have waited in vain
            try:
                yield
            except KafkaError:
                self._shut_until = self._clock() + SHUT_SECONDS
                raise


def _away(detail: str, seconds: float) -> ApiProblem:
    return ApiProblem("kafka_unavailable", detail, headers={"Retry-After": f"{seconds:.0f}"})
