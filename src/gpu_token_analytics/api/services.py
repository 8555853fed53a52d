"""What the routes work with, put together once; and `Ask`, what one request brings along."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from gpu_token_analytics.api.auth import Authority, Principal
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.limits import Slots
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.sinks import EventSink
from gpu_token_analytics.store.client import Store
from gpu_token_analytics.store.cost_reads import CostReads
from gpu_token_analytics.store.key_store import KeyStore
from gpu_token_analytics.store.ledger import LedgerStore
from gpu_token_analytics.store.price_store import PriceStore
from gpu_token_analytics.store.reads import Reads

EXPORT_PATIENCE = 30


@dataclass
class Services:
    """Everything a route may touch."""

    settings: Settings
    now: Callable[[], datetime]
    costs: CostReads
    exports: CostReads  # the same with more patience: an export reads for minutes, page by page
    reads: Reads
    ledger: LedgerStore
    prices: PriceStore
    authority: Authority
    streams: Slots
    sink: EventSink | None = None
    dead_letters: Callable[[], dict[str, int]] | None = None
    sink_lock: threading.Lock = field(default_factory=threading.Lock)  # a producer serves one thread at a time
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
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
        timeout_ms = settings.api_query_timeout_ms
        database = store.database
        return Services(
            settings=settings,
            now=store.now,
            costs=CostReads(database, timeout_ms),
            exports=CostReads(database, EXPORT_PATIENCE * timeout_ms),
            reads=Reads(database, timeout_ms),
            ledger=LedgerStore(store),
            prices=PriceStore(database, timeout_ms),
            authority=Authority(
                KeyStore(database, timeout_ms),
                store.now,
                anonymous_loopback=loopback_only and settings.api_allow_anonymous_loopback,
                requests_per_second=settings.api_requests_per_second,
                burst=settings.api_request_burst,
            ),
            metrics=ApiMetrics(SiteRegistry(settings.site)),
            streams=Slots(settings.api_max_streams),
            sink=sink,
            dead_letters=dead_letters,
        )


@dataclass(frozen=True)
class Ask:
    """One admitted request."""

    services: Services
    principal: Principal

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
