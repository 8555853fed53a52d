"""What the routes work with, put together once; and `Ask`, what one request brings along.

As a desk names what it holds and loads it in `over` (costs/desk.py), so do these in `of`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from gpu_token_analytics.api.auth import Authority, Principal
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.keys import KeyStore
from gpu_token_analytics.api.limits import NewNames, Seldom, Slots
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.api.outlet import Outlet
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.errors import GpuTokensError
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.sinks import EventSink

if TYPE_CHECKING:
    from gpu_token_analytics.budgets.desk import BudgetDesk

SAY_AGAIN_SECONDS = 60.0


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
    # why the server could not start, where it is not the port of HTTP
    start_failure: GpuTokensError | None = None
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
        from gpu_token_analytics.budgets.desk import BudgetDesk

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
