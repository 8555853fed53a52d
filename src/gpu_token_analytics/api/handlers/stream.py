"""/v1/stream: what happens now, as server-sent events.

    event: live        the figures of the last minutes, whenever they changed
                       (costs/answers/live.py)
    event: heartbeat   {"at": ...}, when nothing changed for HEARTBEAT_SECONDS

One computation serves all clients that see the same data: a thousand open pages ask the database as
often as one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
from fastapi import Request
from fastapi.responses import StreamingResponse
from msgspec.structs import asdict
from starlette.types import Receive, Scope, Send

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.costs.answers import Live
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.live import live_figures
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.mongo.errors import store_errors

Json = dict[str, Any]
REFRESH_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
NAP_SECONDS = 0.25


class LiveFigures:
    """The newest figures by tenant (None: the fleet), computed at most every REFRESH_SECONDS."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._held: dict[str | None, tuple[float, Live]] = {}
        self._lock = threading.Lock()
        # Streams wait here, not on the threads that answer requests.
        self.limiter = anyio.CapacityLimiter(2)

    def newest(self, tenant: str | None) -> Live:
        """Figures that are at most REFRESH_SECONDS old. `changed` is for the caller to set."""
        with self._lock:
            held = self._held.get(tenant)
            if held is not None and time.monotonic() - held[0] < REFRESH_SECONDS:
                return held[1]
            with store_errors("read the live figures"):
                figures = live_figures(self._desk, tenant)
            if len(self._held) > 1000:  # tenants come from keys, but keys are many
                self._held.clear()
            self._held[tenant] = (time.monotonic(), figures)
            return figures


async def stream(ask: AskDep, request: Request) -> StreamingResponse:
    """Spend rate, tokens/s and money by class of the last minutes, sent whenever they change
    (server-sent events)."""
    services = ask.services

    def refusal(why: str) -> ApiProblem:
        return ApiProblem(
            "too_many_streams",
            f"of the streams {why}; close one or poll /v1/costs",
            headers={"Retry-After": "10"},
        )

    caller = ask.principal.key or "anonymous"
    services.streams.take(caller, refusal)
    figures: LiveFigures = request.app.state.live
    return _Stream(services, caller, _events(services, figures, ask.tenant, request))


class _Stream(StreamingResponse):
    """Gives its slot back however it ends, also when the client left before the first event."""

    def __init__(self, services: Services, caller: str, content: AsyncIterator[bytes]) -> None:
        super().__init__(
            content, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self._services, self._caller = services, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._services.metrics.streams.track_inprogress():
                await super().__call__(scope, receive, send)
        finally:
            self._services.streams.give(self._caller)


async def _events(
    services: Services, figures: LiveFigures, tenant: str | None, request: Request
) -> AsyncIterator[bytes]:
    sent: Live | None = None
    quiet_seconds = 0.0
    while not services.stopping.is_set():
        try:
            newest: Live | None = await anyio.to_thread.run_sync(
                figures.newest, tenant, limiter=figures.limiter
            )
        except StoreError:
            yield _event(
                "error", {"code": "store_unavailable", "detail": "the database does not answer now"}
            )
            newest = sent
        if newest is not None and (sent is None or _content(newest) != _content(sent)):
            yield _event("live", newest)
            sent, quiet_seconds = newest, 0.0
        elif quiet_seconds >= HEARTBEAT_SECONDS:
            yield _event("heartbeat", {"at": None if newest is None else newest.at})
            quiet_seconds = 0.0
        # Short naps: a stopping server must not wait for its streams.
        for _ in range(int(REFRESH_SECONDS / NAP_SECONDS)):
            if services.stopping.is_set() or await request.is_disconnected():
                return
            await anyio.sleep(NAP_SECONDS)
        quiet_seconds += REFRESH_SECONDS


def _content(figures: Live) -> Json:
    return {
        name: value
        for name, value in asdict(figures).items()
        if name not in ("at", "window_from", "window_to", "changed")
    }


def _event(name: str, data: Live | Json) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
