"""What the fake /v1 tells of GPUs and of requests on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from tests.answers import answer
from tests.e2e.fake_data import FakeData, Json, Problem, asked_range, money_of
from tests.e2e.fake_fleet import CLASSES, MODELS, NAMES, TENANTS, Gpu

from gpu_token_analytics.costs import answers as m

REQUEST_ID = "req-7f3a91"


class FakeGpus(FakeData):
    """GPUs now, the requests of one, and one request with its cells."""

    async def _gpus(self, request: Request) -> Any:
        now = self.fleet.now
        midnight = now.astimezone(ZoneInfo(request.query_params.get("time_zone", "UTC"))).replace(
            hour=0, minute=0
        )
        today = self.fleet.sums(midnight, now).sum(axis=1)
        start = int(request.query_params.get("cursor", 0))
        limit = int(request.query_params.get("limit", 1000))
        rows = range(start, 0 if self.empty else min(len(self.fleet.gpus), start + limit))
        minutes = self.fleet.minutes(now - timedelta(minutes=60), now)
        more = rows.stop if rows.stop < len(self.fleet.gpus) and not self.empty else None
        return answer(
            m.GpusResponse,
            {
                "as_of": datetime.now(UTC),
                "today_from": midnight.isoformat(),
                "total": 0 if self.empty else len(self.fleet.gpus),
                "next": None if more is None else str(more),
                "gpus": [self._gpu(row, today[row], minutes) for row in rows],
            },
        )

    def _gpu(self, row: int, today: Any, minutes: Any) -> Json:
        gpu = self.fleet.gpus[row]
        state = "silent" if row % 211 == 210 else "stale" if self.fleet.silent[row] else "live"
        newest = [
            None if state == "silent" else CLASSES[i]
            for i in self.fleet.classes[row, minutes].argmax(axis=1)
        ]
        if state == "stale":
            newest[-22:] = ["unobserved"] * 22
        lead = newest[-1]
        utilization = {
            "attributed": 0.87,
            "unmetered_work": 0.64,
            "warm_idle": 0.0,
            "cold_idle": 0.0,
        }.get(lead or "")
        total = NAMES[gpu.kind][2]
        wobble = (row * 37 + self.beat) % 11 / 100
        return {
            "gpu": gpu.id,
            "host": gpu.host,
            "gpu_index": gpu.index,
            "name": gpu.name,
            "mig_profile": None,
            "parent_uuid": None,
            "state": state,
            "sampled_at": datetime.now(UTC) - timedelta(seconds=2 if state == "live" else 1400),
            "utilization": min(1.0, utilization + wobble) if utilization else utilization,
            "mem_used_mb": (512.0 if gpu.model is None else total * (0.6 + 3 * wobble))
            if state == "live"
            else None,
            "mem_total_mb": float(total),
            "power_w": (60.0 + 480 * ((utilization or 0) + wobble)) if state == "live" else None,
            "temperature_c": 41.0 + row % 20 if state == "live" else None,
            "models": [] if gpu.model is None else [MODELS[gpu.model]],
            "usd_per_hour": NAMES[gpu.kind][1] / 1e9,
            "price_row": "price-h100" if gpu.kind == 0 else "price-default",
            "today": money_of(today),
            "idle_share_today": float(today[2:].sum() / today.sum()) if today.sum() else None,
            "newest_minutes": newest,
        }

    def _event(self, index: int, gpu: Gpu, now: datetime) -> Json:
        end = now - timedelta(seconds=17 + 41 * index)
        return {
            "event_id": f"0197c9d4-0000-7000-8000-{index:012d}",
            "request_id": REQUEST_ID if index == 0 else f"req-7f3a{index + 91:02d}",
            "ts": end,
            "started_at": end - timedelta(seconds=74.3),
            "host": gpu.host,
            "gpus": [gpu.id, self.fleet.gpus[1 % len(self.fleet.gpus)].id]
            if index == 0
            else [gpu.id],
            "model": MODELS[gpu.model or 0],
            "tenant": TENANTS[index % 4],
            "finish_reason": "stop",
            "latency_ms": 75_510.0,
            "queue_ms": 1_210.0,
            "ttft_ms": 2_890.0 if index % 3 != 2 else None,
            "tokens": {
                "prompt": 6_820,
                "cached": 4_096,
                "completion": 2_214,
                "reasoning": 900,
                "total": 9_034,
            },
            "ingested_at": end + timedelta(seconds=1.2),
            "live_cost_per_token_usd": 7.1e-07 if index != 1 else None,
        }

    async def _requests(self, request: Request) -> Any:
        start, end = asked_range(request)
        gpu = next((gpu for gpu in self.fleet.gpus if gpu.id == request.query_params["gpu"]), None)
        found = (
            []
            if gpu is None or self.empty
            else [self._event(index, gpu, self.fleet.now) for index in range(14)]
        )
        return answer(
            m.RequestsResponse,
            {"from": start, "to": end, "gpu": request.query_params["gpu"], "requests": found},
        )

    async def _request(self, request: Request, request_id: str) -> Any:
        if not request_id.startswith("req-7f3a"):
            raise Problem(
                404, f"no stored request has the id {request_id!r}; raw events are kept for 30 days"
            )
        gpu, mine = self.fleet.gpus[0], request.state.tenant is not None
        event = self._event(0, gpu, self.fleet.now) | {"request_id": request_id}
        minute = self.fleet.now - timedelta(minutes=2)
        costs = [2_913_551, 2_113_018, 1_401_212, 1_017_406]
        cells = [
            {
                "cell": (
                    f"{self.fleet.gpus[i % 2].id}|"
                    f"{minute + timedelta(minutes=i // 2):%Y-%m-%dT%H:%MZ}"
                ),
                "gpu": self.fleet.gpus[i % 2].id,
                "minute": minute + timedelta(minutes=i // 2),
                "cost_nusd": cost,
                "prefill_cost_nusd": cost // 9,
                "energy_mj": 181_000 - 20_000 * i if i != 2 else None,
                "state": "final" if i < 2 else "provisional",
                "price_row": None if mine else "price-h100",
                "usd_per_hour": None if mine else 2.49,
                "revision": 2 if i == 1 else 1,
            }
            for i, cost in enumerate(costs)
        ]
        detail = event | {
            "method": "sweep",
            "cost_nusd": sum(costs),
            "usd_per_million": sum(costs) / 9_034 / 1000,
            "provisional": True,
            "cells": cells,
            "note": None,
        }
        return answer(
            m.RequestResponse,
            {"request_id": request_id, "as_of": datetime.now(UTC), "events": [detail]},
        )
