"""The live stream of the fake /v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import StreamingResponse
from tests.answers import answer
from tests.e2e.fake_data import FakeData, Problem
from tests.e2e.fake_fleet import CLASSES

from gpu_token_analytics.costs import answers as m


class FakeLive(FakeData):
    """Figures of the last minutes, every half second."""

    async def _stream(self, request: Request) -> Any:
        if not self.stream_works:
            raise Problem(503, "64 live streams are open; close one or poll /v1/costs")
        return StreamingResponse(self._live(request.state.tenant), media_type="text/event-stream")

    async def _live(self, tenant: str | None) -> AsyncIterator[str]:
        self.streams_open += 1
        try:
            while True:
                self.beat += 1
                yield (
                    "event: live\ndata: "
                    f"{msgspec.json.encode(self._live_figures(tenant)).decode()}\n\n"
                )
                await asyncio.sleep(0.5)
                yield "event: heartbeat\ndata: {}\n\n"
        finally:
            self.streams_open -= 1

    def _live_figures(self, tenant: str | None) -> m.Live:
        now = datetime.now(UTC)
        start = self.fleet.now - timedelta(minutes=5)
        sums = self._sums(start, self.fleet.now).sum(axis=(0, 1))
        cost = int(sums.sum())
        classes = {name: int(value) for name, value in zip(CLASSES, sums, strict=True)}
        rate = 900 + 40 * (self.beat % 9)
        return answer(
            m.Live,
            {
                "at": now,
                "window_from": start,
                "window_to": self.fleet.now,
                "usd_per_hour": None if self.empty else cost * 12 / 1e9 + self.beat % 7 / 100,
                "tokens_per_second": None if self.empty else float(rate),
                "active_usd_per_million": None if self.empty else 0.31,
                "loaded_usd_per_million": None if self.empty or tenant else 0.52,
                "classes": None if tenant else classes,
                "cost_nusd": classes["attributed"] if tenant else cost,
                "models": [],
                "gpus": None if tenant else len(self.fleet.gpus),
                "cells_due": None if tenant else 2,
                "default_price_nusd": 0,
                "unknown_gpu_tokens": 0,
                "changed": self.beat % 4 == 0,
                "watermark": None if self.empty else self.fleet.now,
            },
        )
