"""What the routes work with, put together once; and `Ask`, what one request brings along."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, Request

from gpu_token_analytics.api.auth import Authority, Principal
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.keys import KeyStore
from gpu_token_analytics.api.limits import NewNames, Seldom, Slots
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.budgets.desk import BudgetDesk
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.sinks import EventSink

INGEST_THREADS = 2  # a producer serves one thread at a time; the other one reads and judges meanwhile
MOST_WAITING = 64
SHUT_SECONDS = 5.0
SAY_AGAIN_SECONDS = 60.0


class Outlet:
    """The way to Kafka, which may be away: it takes requests in threads of its own, so that reading waits for nobody, and
    while Kafka does not acknowledge it says so at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limiter = anyio.CapacityLimiter(INGEST_THREADS)
        self._clock = clock
        self._lock = threading.Lock()
        self._shut_until = float("-inf")

    def check(self) -> None:
        """Raises ApiProblem where a request would only wait."""
        if self._clock() < self._shut_until:
            raise _away("Kafka did not acknowledge a moment ago; nothing of this request was sent.", SHUT_SECONDS)
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


@dataclass
class Services:
    """Everything a route may touch: the desk where questions are answered, and what HTTP adds."""

    desk: Desk
    budgets: BudgetDesk
    authority: Authority
    streams: Slots
    new_names: NewNames
    sink: EventSink | None = None
    outlet: Outlet = field(default_factory=Outlet)
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    say_refused: Seldom = field(default_factory=lambda: Seldom(SAY_AGAIN_SECONDS))
    say_sampled: Seldom = field(default_factory=lambda: Seldom(SAY_AGAIN_SECONDS))
    stopping: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def of(
        store: Store,
        settings: Settings,
        *,
        sink: EventSink | None = None,
        dead_letters: Callable[[], dict[str, int]] | None = None,
        loopback_only: bool = False,
    ) -> Services:
        """Services over a store. loopback_only: the server listens on loopback addresses only."""
        desk = Desk.over(store, settings, dead_letters)
        return Services(
            desk=desk,
            budgets=BudgetDesk.over(desk),
            authority=Authority(
                KeyStore(store.database, settings.api_query_timeout_ms),
                store.now,
                anonymous_loopback=loopback_only and settings.api_allow_anonymous_loopback,
                requests_per_second=settings.api_requests_per_second,
                burst=settings.api_request_burst,
            ),
            metrics=ApiMetrics(SiteRegistry(settings.site)),
            new_names=NewNames(settings.api_max_new_names_per_hour),
            streams=Slots(settings.api_max_streams, settings.api_max_streams_per_key),
            sink=sink,
        )


@dataclass(frozen=True)
class Ask:
    """One admitted request."""

    services: Services
    principal: Principal

    @property
    def desk(self) -> Desk:
        """Where its question is answered."""
        return self.services.desk

    @property
    def tenant(self) -> str | None:
        """The only tenant this request may see; None: all."""
        return self.principal.tenant


async def _ask(request: Request) -> Ask:
    # async: it waits for nothing, and FastAPI would hand anything else to a worker thread.
    principal = getattr(request.state, "principal", None)
    if principal is None:  # a route without its check: refuse rather than serve
        raise ApiProblem("unauthenticated", "this route has no access check")
    return Ask(request.app.state.services, principal)


AskDep = Annotated[Ask, Depends(_ask)]
