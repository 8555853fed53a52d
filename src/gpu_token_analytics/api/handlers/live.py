"""/v1/stream: what happens now, as server-sent events.

    event: live        the figures of the last minutes, whenever they changed   (models/live.py)
    event: heartbeat   {"at": ...}, when nothing changed for HEARTBEAT_SECONDS

One computation serves all clients that see the same data: a thousand open pages ask the database as often as one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import anyio
import msgspec
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.render import timestamp
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.costs.read import CostQuery, Row
from gpu_token_analytics.costs.rows import usd_per_million
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.mongo.client import store_errors
from gpu_token_analytics.rollups.spans import MINUTE, ceil

Json = dict[str, Any]
WINDOW_MINUTES = 5
REFRESH_SECONDS = 2.0
MAX_LIVE_MODELS = 200
HEARTBEAT_SECONDS = 10.0
NAP_SECONDS = 0.25


class LiveFigures:
    """The newest figures by tenant (None: the fleet), computed at most every REFRESH_SECONDS."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[str | None, tuple[float, Json]] = {}
        self._lock = threading.Lock()
        # Streams wait here, not on the threads that answer requests.
        self.limiter = anyio.CapacityLimiter(2)

    def newest(self, tenant: str | None) -> Json:
        """Figures that are at most REFRESH_SECONDS old. `changed` is for the caller to set."""
        with self._lock:
            held = self._held.get(tenant)
            if held is not None and time.monotonic() - held[0] < REFRESH_SECONDS:
                return held[1]
            with store_errors("read the live figures"):
                figures = live_figures(self._services, tenant)
            if len(self._held) > 1000:  # tenants come from keys, but keys are many
                self._held.clear()
            self._held[tenant] = (time.monotonic(), figures)
            return figures


def live_figures(services: Services, tenant: str | None) -> Json:
    """The last minutes, the one under way included: its cells count for the part of it that was computed."""
    now = services.now()
    end = ceil(now, MINUTE)
    query = CostQuery(end - (WINDOW_MINUTES + 1) * MINUTE, end, group_by=("model",), tenant_lock=tenant)
    rows = list(services.costs.rows(query, now))
    seconds = (now - query.start).total_seconds()
    models = [row for row in rows if row.key[0] is not None]
    fleet = _fleet(services, query, rows) if tenant is None else _own(rows, seconds)
    owned_seconds = fleet.pop("seconds")
    tokens = sum(_tokens(row) for row in models)
    priced = sum(row.priced_tokens for row in models)
    attributed = sum(row["cost_nusd"] for row in models)
    warm = sum(row["warm_idle_nusd"] for row in rows)
    return {
        "at": timestamp(now),
        "window_from": timestamp(query.start),
        "window_to": timestamp(now),
        "tokens_per_second": tokens / owned_seconds if owned_seconds else None,
        "active_usd_per_million": usd_per_million(attributed, priced),
        "loaded_usd_per_million": usd_per_million(attributed + warm, priced) if tenant is None else None,
        "cost_nusd": sum(row.money_nusd for row in rows),
        "default_price_nusd": sum(row.default_price_nusd for row in rows),
        "unknown_gpu_tokens": sum(row["unknown_gpu_tokens"] for row in rows),
        "models": [_model(row, owned_seconds, loaded=tenant is None) for row in _most(models)],
        "changed": True,
        **fleet,
    }


def _most(models: list[Row]) -> list[Row]:
    """Those that did something, in their order; of very many the ones that cost most."""
    busy = [row for row in models if _tokens(row) or row["cost_nusd"]]
    if len(busy) <= MAX_LIVE_MODELS:
        return busy
    least = sorted((row["cost_nusd"] for row in busy), reverse=True)[MAX_LIVE_MODELS - 1]
    return [row for row in busy if row["cost_nusd"] >= least][:MAX_LIVE_MODELS]


def _fleet(services: Services, query: CostQuery, rows: list[Row]) -> Json:
    recent = services.reads.recent_cells(query.start, query.end)
    gpus = {cell["gpu"] for cell in recent if cell["owned_us"]}
    owned_us = sum(row["gpu_us"] for row in rows)
    cost = sum(row.money_nusd for row in rows)
    due, _ = services.reads.due()
    watermark: datetime | None = max((cell["minute"] for cell in recent), default=None)
    return {
        # Money per owned microsecond and GPU: right also while the newest minute is only partly computed.
        "usd_per_hour": cost / owned_us * len(gpus) * 3.6e9 / NUSD_PER_USD if owned_us else None,
        "seconds": owned_us / 1e6 / len(gpus) if gpus else 0.0,
        "classes": {
            "attributed": sum(row["cost_nusd"] for row in rows),
            "unmetered_work": sum(row["unmetered_work_nusd"] for row in rows),
            "warm_idle": sum(row["warm_idle_nusd"] for row in rows),
            "cold_idle": sum(row["cold_idle_nusd"] for row in rows),
            "unobserved": sum(row["unobserved_nusd"] for row in rows),
        },
        "gpus": len(gpus),
        "cells_due": due,
        "watermark": None if watermark is None else timestamp(watermark),
    }


def _own(rows: list[Row], seconds: float) -> Json:
    """A tenant's view: its own spend rate, nothing of the fleet."""
    cost = sum(row.money_nusd for row in rows)
    return {
        "usd_per_hour": cost / NUSD_PER_USD / seconds * 3600 if rows and seconds else None,
        "seconds": seconds,
        "classes": None,
        "gpus": None,
        "cells_due": None,
        "watermark": None,
    }


def _model(row: Row, seconds: float, *, loaded: bool) -> Json:
    tokens, priced = _tokens(row), row.priced_tokens
    return {
        "model": row.key[0],
        "attributed_nusd": None if row.is_unpriced else row["cost_nusd"],
        "tokens": tokens,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "active_usd_per_million": usd_per_million(row["cost_nusd"], priced),
        "loaded_usd_per_million": usd_per_million(row["cost_nusd"] + row["warm_idle_nusd"], priced) if loaded else None,
    }


def _tokens(row: Row) -> int:
    return row["prompt_tokens"] + row["completion_tokens"]


async def stream(ask: AskDep, request: Request) -> StreamingResponse:
    """Spend rate, tokens/s and money by class of the last minutes, sent whenever they change (server-sent events)."""
    services = ask.services

    def refusal(why: str) -> ApiProblem:
        return ApiProblem(
            "too_many_streams", f"of the streams {why}; close one or poll /v1/costs", headers={"Retry-After": "10"}
        )

    caller = ask.principal.key or "anonymous"
    services.streams.take(caller, refusal)
    figures: LiveFigures = request.app.state.live
    return _Stream(services, caller, _events(services, figures, ask.tenant, request))


class _Stream(StreamingResponse):
    """Gives its slot back however it ends, also when the client left before the first event."""

    def __init__(self, services: Services, caller: str, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._services, self._caller = services, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._services.metrics.streams.track_inprogress():
                await super().__call__(scope, receive, send)
        finally:
            self._services.streams.give(self._caller)


async def _events(services: Services, figures: LiveFigures, tenant: str | None, request: Request) -> AsyncIterator[bytes]:
    sent: Json = {}
    quiet_seconds = 0.0
    while not services.stopping.is_set():
        try:
            newest = await anyio.to_thread.run_sync(figures.newest, tenant, limiter=figures.limiter)
        except StoreError:
            yield _event("error", {"code": "store_unavailable", "detail": "the database does not answer now"})
            newest = sent
        if _content(newest) != _content(sent):
            yield _event("live", newest)
            sent, quiet_seconds = newest, 0.0
        elif quiet_seconds >= HEARTBEAT_SECONDS:
            yield _event("heartbeat", {"at": newest.get("at")})
            quiet_seconds = 0.0
        # Short naps: a stopping server must not wait for its streams.
        for _ in range(int(REFRESH_SECONDS / NAP_SECONDS)):
            if services.stopping.is_set() or await request.is_disconnected():
                return
            await anyio.sleep(NAP_SECONDS)
        quiet_seconds += REFRESH_SECONDS


def _content(figures: Json) -> Json:
    return {name: value for name, value in figures.items() if name not in ("at", "window_from", "window_to", "changed")}


def _event(name: str, data: Json) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
