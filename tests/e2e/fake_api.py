"""A small /v1 for the dashboard's tests: the real routes' models over a fake fleet, with the cases a real one makes rarely.

    FakeApi(gpus=800)                     many GPUs           FakeApi(keys={"gta_x": None})     a key is needed
    FakeApi(keys={"gta_t": "search"})     a tenant's key      api.broken = {"/v1/costs": 503}   errors on demand
    api.stream_works = False              no live stream      api.empty = True                  no data at all

Every answer is validated by the model that OpenAPI promises for the route, so the page is developed against the contract.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from tests.answers import answer
from tests.e2e.fake_budgets import FakeBudgets
from tests.e2e.fake_finops import FakeFinops
from tests.e2e.fake_fleet import CLASSES, MODELS, NAMES, TENANTS, TOKENS_PER_NUSD, Fleet, Gpu

from gpu_token_analytics.api.app import sent
from gpu_token_analytics.api.problem import Problem as ProblemAnswer
from gpu_token_analytics.budgets.answers import BudgetAlertsResponse, BudgetsResponse, BudgetTerms
from gpu_token_analytics.budgets.entries import BudgetName, NewBudget
from gpu_token_analytics.costs import answers as m
from gpu_token_analytics.costs.answers.compared import ComparedResponse
from gpu_token_analytics.costs.answers.teams import TeamCostsResponse
from gpu_token_analytics.costs.entries import NewPrice
from gpu_token_analytics.costs.periods import range_before
from gpu_token_analytics.web import mount

Json = dict[str, Any]
TENANT_DENIED = (
    "/v1/gpus",
    "/v1/requests",
    "/v1/ledger",
    "/v1/audit",
    "/v1/quality",
    "/v1/prices",
    "/v1/break-even",
    "/v1/budgets/alerts",
    "/v1/teams",
    "/v1/owners",
    "/v1/hints",
)
LIMIT_MINUTES = {"1m": 6 * 60, "1h": 31 * 1440, "1d": 366 * 1440, "none": 366 * 1440}
TITLES = {400: "range_too_long", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 503: "store_unavailable"}
REQUEST_ID = "req-7f3a91"


class Problem(Exception):
    """An error answer."""

    def __init__(self, status: int, detail: str, nearest: Json | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.nearest = status, detail, nearest


class FakeApi:
    """State of the fake; `app` is the application with the dashboard mounted."""

    def __init__(self, gpus: int = 8, keys: dict[str, str | None] | None = None, now: datetime | None = None) -> None:
        self.fleet = Fleet(gpus, now or datetime.now(UTC))
        self.keys = keys
        self.broken: dict[str, int] = {}
        self.empty = False
        self.stream_works = True
        self.scopes = ["admin", "ingest", "read"]
        self.streams_open = 0
        self.asked: list[str] = []
        self.beat = 0
        self.prices: list[Json] = _price_book(self.fleet)
        self.budgets = FakeBudgets(self.fleet.now)
        self.finops = FakeFinops()
        self.app = FastAPI()
        self.app.middleware("http")(self._guard)
        reads: dict[str, Callable[..., Any]] = {
            "/v1/me": self._me,
            "/v1/costs": self._costs,
            "/v1/costs/compared": self._compared,
            "/v1/dimensions": self._dimensions,
            "/v1/gpus": self._gpus,
            "/v1/requests": self._requests,
            "/v1/requests/{request_id}": self._request,
            "/v1/ledger/corrections": self._corrections,
            "/v1/audit": self._audit,
            "/v1/quality": self._quality,
            "/v1/prices": self._list_prices,
            "/v1/budgets": self._list_budgets,
            "/v1/teams/costs": self._team_costs,
            "/v1/budgets/alerts": self._budget_alerts,
            "/v1/stream": self._stream,
            "/v1/export": self._export,
        }
        for path, handler in reads.items():
            self.app.add_api_route(path, _sent(handler), methods=["GET"], response_model=None)
        self.app.add_api_route("/v1/prices", _sent(self._add_price, 201), methods=["POST"], response_model=None)
        for path, put in (("/v1/budgets", self._set_budget), ("/v1/budgets/remove", self._remove_budget)):
            self.app.add_api_route(path, _sent(put), methods=["POST"], response_model=None)
        for method, path, call in self.finops.routes(self):
            status = 201 if method == "POST" else 200
            self.app.add_api_route(path, _sent(call, status), methods=[method], response_model=None)
        mount(self.app)

    # What every route does first

    async def _guard(self, request: Request, call: Any) -> Any:
        path = request.url.path
        if not path.startswith("/v1"):
            return await call(request)
        self.asked.append(f"{path}?{request.url.query}")
        try:
            request.state.tenant = self._admit(request)
            for prefix, status in self.broken.items():
                if path.startswith(prefix):
                    raise Problem(status, f"{path} was told to fail")
            return await call(request)
        except Problem as problem:
            return _problem(problem)

    def _admit(self, request: Request) -> str | None:
        if self.keys is None:
            return None
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key not in self.keys:
            raise Problem(401, "give an API key as `Authorization: Bearer gta_...`; `gpu-tokens keys create` makes one")
        tenant = self.keys[key]
        if tenant is not None and request.url.path.startswith(TENANT_DENIED) and "/requests/" not in request.url.path:
            raise Problem(403, f"{request.url.path} shows data of all tenants; this key is for tenant {tenant!r} only")
        return tenant

    # Routes

    async def _me(self, request: Request) -> Any:
        tenant = request.state.tenant
        scopes = ["read"] if tenant else self.scopes
        key = None if self.keys is None else "demo1234"
        return m.Me(key, scopes, tenant, self.keys is None, "0.1.0")

    async def _costs(self, request: Request) -> Any:
        query = request.query_params
        start, end = _range(request)
        bucket = query.get("bucket", "none")
        if (end - start) > timedelta(minutes=LIMIT_MINUTES[bucket]):
            nearest = {"from": (end - timedelta(hours=6)).isoformat(), "to": end.isoformat(), "bucket": bucket}
            return _problem(Problem(400, f"bucket={bucket} spans {end - start}; with 1m at most 6 hours are answered", nearest))
        zone = ZoneInfo(query.get("time_zone", "UTC"))
        group_by = query.getlist("group_by")
        chosen = self._chosen(request)
        rows: list[Json] = []
        for low, high in _buckets(start, end, bucket, zone):
            sums = self._sums(low, high)
            label = None if bucket == "none" else low.astimezone(zone).isoformat()
            rows += self._rows(sums, chosen, group_by, label, low, high, request.state.tenant)
        sums = self._sums(start, end)
        totals = self._rows(sums, chosen, [], None, start, end, request.state.tenant)
        total = totals[0] if totals else _row(None, {}, np.zeros(5, dtype=np.int64), 0, start, end)
        selected = total["money"]["total_nusd"]
        whole = int(sums[self._gpus_chosen(request)].sum())
        mine = request.state.tenant is not None
        minutes = self.fleet.minutes(start, end).size
        return answer(
            m.CostsResponse,
            {
                "from": start,
                "to": end,
                "bucket": bucket,
                "time_zone": str(zone),
                "group_by": group_by,
                "as_of": datetime.now(UTC),
                "rows": rows,
                "totals": total,
                "scope": {
                    "cost_nusd": None if mine else whole,
                    "selected_nusd": selected,
                    "left_out_nusd": None if mine else whole - selected,
                    "cells": None if mine else minutes * len(self.fleet.gpus),
                    "cells_not_rolled": 3,
                },
            },
        )

    async def _compared(self, request: Request) -> Any:
        start, end = _range(request)
        zone = ZoneInfo(request.query_params.get("time_zone", "UTC"))
        before = range_before(start, end, zone)
        group_by = request.query_params.getlist("group_by")
        sides = [
            {tuple(row["group"].values()): row for row in self._side(request, low, high, group_by)}
            for low, high in ((start, end), before)
        ]
        totals = [next(iter(self._side(request, low, high, [])), None) for low, high in ((start, end), before)]
        rows = [_compared_row(sides[0].get(key), sides[1].get(key)) for key in sorted(sides[0] | sides[1], key=str)]
        said = {"from": start, "to": end, "before_from": before[0], "before_to": before[1], "time_zone": str(zone)}
        return answer(ComparedResponse, said | {"group_by": group_by, "rows": rows, "totals": _compared_row(*totals)})

    def _side(self, request: Request, low: datetime, high: datetime, group_by: list[str]) -> list[Json]:
        return self._rows(self._sums(low, high), self._chosen(request), group_by, None, low, high, request.state.tenant)

    def _sums(self, start: datetime, end: datetime) -> Any:
        found = self.fleet.sums(start, end)
        return np.zeros_like(found) if self.empty else found

    def _gpus_chosen(self, request: Request) -> list[int]:
        query = request.query_params
        return [
            row
            for row, gpu in enumerate(self.fleet.gpus)
            if all(
                not query.getlist(name) or value in query.getlist(name)
                for name, value in (("gpu", gpu.id), ("host", gpu.host), ("gpu_name", gpu.name))
            )
        ]

    def _chosen(self, request: Request) -> Json:
        query = request.query_params
        tenants = [request.state.tenant] if request.state.tenant else query.getlist("tenant")
        return {
            "gpus": self._gpus_chosen(request),
            "models": query.getlist("model"),
            "tenants": tenants,
            "classes": ["attributed"] if request.state.tenant else query.getlist("class") or list(CLASSES),
        }

    def _rows(
        self, sums: Any, chosen: Json, group_by: list[str], label: Any, low: datetime, high: datetime, tenant: str | None
    ) -> list[Json]:
        groups: dict[tuple[str | None, ...], list[Any]] = {}
        mask = np.array([name in chosen["classes"] for name in CLASSES])
        for row in chosen["gpus"]:
            gpu = self.fleet.gpus[row]
            model = None if gpu.model is None else MODELS[gpu.model]
            for atom in range(len(TENANTS) + 1):
                owner = TENANTS[atom] if atom < len(TENANTS) else None
                part = model if owner else None
                if (chosen["models"] and part not in chosen["models"]) or (
                    chosen["tenants"] and owner not in chosen["tenants"]
                ):
                    continue
                money = np.where(mask, sums[row, atom], 0)
                if not money.any():
                    continue
                tokens = 0 if gpu.model is None else int(money[0] * TOKENS_PER_NUSD[gpu.model])
                self._add(groups, gpu, part, owner, money, tokens, group_by)
        seconds = (min(high, self.fleet.now) - max(low, self.fleet.began)).total_seconds()
        whole = not {"model", "tenant", "class"} & set(group_by)
        return [
            _row(label, dict(zip(group_by, key, strict=True)), money, tokens, low, high)
            | {"gpu_seconds": max(0.0, seconds) * len(cards) if whole and not tenant else None}
            for key, (money, tokens, cards) in sorted(groups.items(), key=lambda item: [(v is None, v or "") for v in item[0]])
        ]

    def _add(
        self, groups: Any, gpu: Gpu, model: str | None, tenant: str | None, money: Any, tokens: int, group_by: list[str]
    ) -> None:
        values = {"model": model, "tenant": tenant, "gpu": gpu.id, "host": gpu.host, "gpu_name": gpu.name}
        parts: list[tuple[str | None, Any]] = [(None, money)]
        if "class" in group_by:
            parts = [(name, np.where(np.array(CLASSES) == name, money, 0)) for name in CLASSES]
        for name, part in parts:
            if not part.any():
                continue
            key = tuple(name if dimension == "class" else values[dimension] for dimension in group_by)
            held = groups.setdefault(key, [np.zeros(5, dtype=np.int64), 0, set()])
            held[0] = held[0] + part
            held[1] += tokens if name in (None, "attributed") else 0
            held[2].add(gpu.id)

    async def _dimensions(self, request: Request) -> Any:
        start, end = _range(request)
        gpus = [] if self.empty else self.fleet.gpus
        tenant = request.state.tenant
        return answer(
            m.DimensionsResponse,
            {
                "from": start,
                "to": end,
                "models": sorted({MODELS[gpu.model] for gpu in gpus if gpu.model is not None}),
                "tenants": [tenant] if tenant else [] if self.empty else sorted(TENANTS),
                "gpus": [] if tenant else sorted(gpu.id for gpu in gpus),
                "hosts": [] if tenant else sorted({gpu.host for gpu in gpus}),
                "gpu_names": [] if tenant else sorted({gpu.name for gpu in gpus}),
            },
        )

    async def _gpus(self, request: Request) -> Any:
        now = self.fleet.now
        midnight = now.astimezone(ZoneInfo(request.query_params.get("time_zone", "UTC"))).replace(hour=0, minute=0)
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
        newest = [None if state == "silent" else CLASSES[i] for i in self.fleet.classes[row, minutes].argmax(axis=1)]
        if state == "stale":
            newest[-22:] = ["unobserved"] * 22
        lead = newest[-1]
        utilization = {"attributed": 0.87, "unmetered_work": 0.64, "warm_idle": 0.0, "cold_idle": 0.0}.get(lead or "")
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
            "mem_used_mb": (512.0 if gpu.model is None else total * (0.6 + 3 * wobble)) if state == "live" else None,
            "mem_total_mb": float(total),
            "power_w": (60.0 + 480 * ((utilization or 0) + wobble)) if state == "live" else None,
            "temperature_c": 41.0 + row % 20 if state == "live" else None,
            "models": [] if gpu.model is None else [MODELS[gpu.model]],
            "usd_per_hour": NAMES[gpu.kind][1] / 1e9,
            "price_row": "price-h100" if gpu.kind == 0 else "price-default",
            "today": _money(today),
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
            "gpus": [gpu.id, self.fleet.gpus[1 % len(self.fleet.gpus)].id] if index == 0 else [gpu.id],
            "model": MODELS[gpu.model or 0],
            "tenant": TENANTS[index % 4],
            "finish_reason": "stop",
            "latency_ms": 75_510.0,
            "queue_ms": 1_210.0,
            "ttft_ms": 2_890.0 if index % 3 != 2 else None,
            "tokens": {"prompt": 6_820, "cached": 4_096, "completion": 2_214, "reasoning": 900, "total": 9_034},
            "ingested_at": end + timedelta(seconds=1.2),
            "live_cost_per_token_usd": 7.1e-07 if index != 1 else None,
        }

    async def _requests(self, request: Request) -> Any:
        start, end = _range(request)
        gpu = next((gpu for gpu in self.fleet.gpus if gpu.id == request.query_params["gpu"]), None)
        found = [] if gpu is None or self.empty else [self._event(index, gpu, self.fleet.now) for index in range(14)]
        return answer(m.RequestsResponse, {"from": start, "to": end, "gpu": request.query_params["gpu"], "requests": found})

    async def _request(self, request: Request, request_id: str) -> Any:
        if not request_id.startswith("req-7f3a"):
            raise Problem(404, f"no stored request has the id {request_id!r}; raw events are kept for 30 days")
        gpu, mine = self.fleet.gpus[0], request.state.tenant is not None
        event = self._event(0, gpu, self.fleet.now) | {"request_id": request_id}
        minute = self.fleet.now - timedelta(minutes=2)
        costs = [2_913_551, 2_113_018, 1_401_212, 1_017_406]
        cells = [
            {
                "cell": f"{self.fleet.gpus[i % 2].id}|{minute + timedelta(minutes=i // 2):%Y-%m-%dT%H:%MZ}",
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
        return answer(m.RequestResponse, {"request_id": request_id, "as_of": datetime.now(UTC), "events": [detail]})

    async def _corrections(self, request: Request) -> Any:
        start, end = _range(request)
        gpu = self.fleet.gpus[0]
        price, minute = gpu.nusd_per_minute, self.fleet.now - timedelta(hours=30)
        cell = {
            "cell": f"{gpu.id}|{minute:%Y-%m-%dT%H:%MZ}",
            "gpu": gpu.id,
            "minute": minute,
            "host": gpu.host,
            "gpu_name": gpu.name,
            "state": "final",
            "cost_nusd": price,
            "owned_us": 60_000_000,
            "classes": dict.fromkeys(CLASSES, 0) | {"attributed": price},
            "class_us": dict.fromkeys(CLASSES, 0) | {"attributed": 60_000_000},
            "energy_mj": None,
            "memory_unknown_us": 0,
            "energy_observed_us": 0,
            "lines": [],
            "lines_left_out": 0,
            "price": {"row": "price-h100", "usd_per_hour": 2.49, "mode": "on_demand"},
            "samples": 12,
            "requests_active": 4,
            "params": "1",
            "revision": 3,
            "due": False,
            "computed_at": minute + timedelta(hours=25),
            "corrections": [
                {
                    "revision": 3,
                    "at": (minute + timedelta(hours=25)).isoformat(),
                    "moved": {"attributed": 1_204_118, "unmetered_work": -1_204_118},
                    "lines": [],
                }
            ],
        }
        cells = [] if self.empty or not start <= minute < end else [cell]
        return answer(m.CorrectionsResponse, {"from": start, "to": end, "cells": cells})

    async def _audit(self, request: Request) -> Any:
        start, end = _range(request)
        classes = {name: int(value) for name, value in zip(CLASSES, self._sums(start, end).sum(axis=(0, 1)), strict=True)}
        cost = sum(classes.values())
        return answer(
            m.AuditResponse,
            {
                "from": start,
                "to": end,
                "as_of": datetime.now(UTC),
                "holds": True,
                "cells": int(self.fleet.minutes(start, end).size) * len(self.fleet.gpus),
                "cells_pending": 2,
                "cells_not_rolled": 3,
                "cost_nusd": cost,
                "classes": classes,
                "lines_nusd": classes["attributed"],
                "rollups_nusd": cost,
                "default_price_nusd": cost // 20,
                "unknown_gpu_requests": 3,
                "unknown_gpu_tokens": 4200,
                "findings": [],
                "checked": ["classes_sum_to_cost", "lines_sum_to_attributed", "cost_is_price_times_time"],
            },
        )

    async def _quality(self, request: Request) -> Any:
        start, end = _range(request)
        hours: list[Json] = []
        for low, high in _buckets(start, end, "1h", ZoneInfo("UTC")):
            sums = self._sums(low, high).sum(axis=(0, 1))
            cells = 0 if self.empty else int(self.fleet.minutes(low, high).size) * len(self.fleet.gpus)
            share = float(sums[4] / sums.sum()) if sums.sum() else None
            young = low > self.fleet.now - timedelta(hours=24)
            hours.append(
                {
                    "hour": low,
                    "cells": cells,
                    "provisional_cells": cells if young else 0,
                    "corrected_cells": 0 if young else len(hours) % 5 // 4,
                    "coverage": None if share is None else 1 - share,
                    "unobserved_nusd": int(sums[4]),
                }
            )
        sums = self._sums(start, end).sum(axis=(0, 1))
        share = float(sums[4] / sums.sum()) if sums.sum() else None
        return answer(
            m.QualityResponse,
            {
                "from": start,
                "to": end,
                "as_of": datetime.now(UTC),
                "coverage": None if share is None else 1 - share,
                "unobserved_share": share,
                "memory_unknown_share": 0.125 if hours else None,
                "clock_skew_seconds": 6.25,
                "cells": sum(hour["cells"] for hour in hours),
                "provisional_cells": sum(hour["provisional_cells"] for hour in hours),
                "corrected_cells": sum(hour["corrected_cells"] for hour in hours),
                "cells_pending": 2,
                "cells_not_rolled": 3,
                "sums_behind_since": datetime.now(UTC) - timedelta(minutes=3),
                "set_aside_count": 1,
                "set_aside": [
                    {"document": "rollups_hourly fleet|2026-01-31T12", "why": "too large", "since": datetime.now(UTC)}
                ],
                "unknown_gpu_count": 2,
                "unknown_gpus": [
                    {"name": "node9.example/0", "tenant": "search", "first_named_at": datetime.now(UTC), "may_be": []},
                    {
                        "name": "GPU-8f4c2a1b",
                        "tenant": "chat",
                        "first_named_at": datetime.now(UTC),
                        "may_be": ["GPU-1", "GPU-2"],
                    },
                ],
                "unknown_gpu_requests": 3,
                "unknown_gpu_tokens": 4200,
                "shared_uuid_count": 1,
                "shared_uuids": [{"uuid": "GPU-00000000", "gpus": ["node1/GPU-00000000", "node2/GPU-00000000"]}],
                "default_price_nusd": int(sums.sum()) // 20,
                "default_price_share": 0.05 if sums.sum() else None,
                "oldest_due_at": datetime.now(UTC) - timedelta(seconds=4),
                "late_cells": 118,
                "first_token_known": 0.94,
                "dead_letters": {} if self.empty else {"not_json": 41, "out_of_range": 12, "future_ts": 3},
                "dead_letters_topic": "tokens.dlq",
                "hours": hours,
            },
        )

    async def _list_prices(self, request: Request) -> Any:
        return answer(m.PricesResponse, {"prices": [] if self.empty else self.prices})

    async def _add_price(self, body: NewPrice) -> m.Price:
        row = {
            "id": f"price-{len(self.prices)}",
            "key": None,
            "usd_per_kwh": None,
            "pue": None,
            "valid_to": None,
            **body.model_dump(mode="json"),
            "created_at": datetime.now(UTC),
            "source": "api",
            "pending": True,
            "matches": True,
        }
        self.prices.append(row)
        self.prices.sort(key=lambda price: str(price["valid_from"]), reverse=True)
        return answer(m.Price, row)

    async def _team_costs(self, request: Request) -> Any:
        start, end = _range(request)
        names = ["chat-frontend-of-the-web-shop", "search"]
        shop = {"team": "shop", "tenants": names, "attributed_nusd": 40_000_000_001, "requests": 120, "tokens": 90_000}
        rows = [shop, {"team": None, "tenants": ["batch"], "attributed_nusd": 2}]
        said = {"from": start, "to": end, "rows": [] if self.empty else rows, "attributed_nusd": 40_000_000_003}
        return answer(TeamCostsResponse, said)

    async def _list_budgets(self, request: Request) -> Any:
        rows = [] if self.empty else self.budgets.rows
        if request.state.tenant:
            rows = [row for row in rows if row["key"] == request.state.tenant]
        receivers = [] if request.state.tenant else ["webhook", "mail"]
        return answer(BudgetsResponse, {"as_of": self.budgets.now, "receivers": receivers, "budgets": rows})

    async def _budget_alerts(self, request: Request) -> Any:
        return answer(BudgetAlertsResponse, {"alerts": [] if self.empty else self.budgets.told()})

    async def _set_budget(self, body: NewBudget) -> BudgetTerms:
        return answer(BudgetTerms, self.budgets.put(body))

    async def _remove_budget(self, body: BudgetName) -> Any:
        row = self.budgets.remove(body.name)
        if row is None:
            raise Problem(404, "no such budget")
        return answer(BudgetTerms, row)

    async def _export(self, request: Request) -> Any:
        _range(request)
        return StreamingResponse(iter(["model,total_nusd\nllama,1\n"]), media_type="text/csv")

    async def _stream(self, request: Request) -> Any:
        if not self.stream_works:
            raise Problem(503, "64 live streams are open; close one or poll /v1/costs")
        return StreamingResponse(self._live(request.state.tenant), media_type="text/event-stream")

    async def _live(self, tenant: str | None) -> AsyncIterator[str]:
        self.streams_open += 1
        try:
            while True:
                self.beat += 1
                yield f"event: live\ndata: {msgspec.json.encode(self._live_figures(tenant)).decode()}\n\n"
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


def _sent(handler: Callable[..., Any], status: int = 200) -> Callable[..., Any]:
    """What it answers, sent as the product sends it."""

    @functools.wraps(handler)
    async def answering(*args: Any, **kwargs: Any) -> Any:
        return sent(await handler(*args, **kwargs), status)

    return answering


def _compared_row(now: Json | None, before: Json | None) -> Json:
    some = now or before or {"group": {}}
    total, earlier = (row["money"]["total_nusd"] if row else 0 for row in (now, before))
    rates = ("active_usd_per_million", now), ("active_usd_per_million_before", before)
    return {
        "group": some["group"],
        "money": now["money"] if now else None if some["group"] else {"total_nusd": 0, "attributed_nusd": 0},
        "before": before["money"] if before else None if some["group"] else {"total_nusd": 0, "attributed_nusd": 0},
        "changed_nusd": total - earlier,
        "changed_share": (total - earlier) / earlier if earlier else None,
        "tokens": now["tokens"]["total"] if now else 0,
        "tokens_before": before["tokens"]["total"] if before else 0,
        **{name: row["rates"]["active_usd_per_million"] if row else None for name, row in rates},
    }


def _problem(problem: Problem) -> JSONResponse:
    code = TITLES.get(problem.status, "internal")
    body = ProblemAnswer.model_validate(
        {
            "type": f"urn:gpu-token-analytics:problem:{code}",
            "title": code.replace("_", " "),
            "status": problem.status,
            "code": code,
            "detail": problem.detail,
            "instance": "0197c9d4",
            "nearest": problem.nearest,
        }
    )
    return JSONResponse(body.model_dump(mode="json", by_alias=True), problem.status, media_type="application/problem+json")


def _range(request: Request) -> tuple[datetime, datetime]:
    query = request.query_params
    start = datetime.fromisoformat(query["from"]).astimezone(UTC)
    end = datetime.fromisoformat(query["to"]).astimezone(UTC)
    if end <= start or start.second or end.second:
        raise Problem(400, f"from={start} and to={end} are not whole minutes in order")
    return start, end


def _buckets(start: datetime, end: datetime, bucket: str, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    if bucket == "none":
        return [(start, end)]
    found = []
    low = start
    while low < end:
        local = low.astimezone(zone)
        if bucket == "1m":
            high = low + timedelta(minutes=1)
        elif bucket == "1h":
            high = local.replace(minute=0).astimezone(UTC) + timedelta(hours=1)
        else:
            high = (local.replace(hour=0, minute=0) + timedelta(days=1)).astimezone(UTC)
        found.append((low, min(high, end)))
        low = high
    return found


def _money(classes: Any) -> Json:
    money = {f"{name}_nusd": int(value) for name, value in zip(CLASSES, classes, strict=True)}
    return money | {"total_nusd": int(classes.sum())}


def _row(label: Any, group: Json, money: Any, tokens: int, low: datetime, high: datetime) -> Json:
    total, spent, warm = int(money.sum()), int(money[0]), int(money[2])
    completion = tokens * 3 // 10
    whole = "model" not in group and "tenant" not in group
    return {
        "bucket": label,
        "group": group,
        "money": _money(money),
        "tokens": {
            "prompt": tokens - completion,
            "cached": (tokens - completion) // 3,
            "completion": completion,
            "reasoning": completion // 6,
            "total": tokens,
        },
        "requests": tokens // 4_500,
        "gpu_seconds": None,
        "rates": {
            "active_usd_per_million": spent / tokens / 1000 if tokens else None,
            "loaded_usd_per_million": (spent + warm) / tokens / 1000 if tokens else None,
            "input_usd_per_million": 0.4 * spent / tokens / 1000 if tokens else None,
            "output_usd_per_million": 2.4 * spent / tokens / 1000 if tokens else None,
            "tokens_per_second": tokens / (high - low).total_seconds() if tokens else None,
            "joules_per_token": 0.41 if tokens else None,
        },
        "quality": {
            "provisional": high > datetime.now(UTC) - timedelta(hours=24),
            "corrected_cells": 0,
            "low_volume": 0 < tokens < 1000,
            "unobserved_share": int(money[4]) / total if whole and total else None,
            "coverage": 1 - int(money[4]) / total if whole and total else None,
            "memory_unknown_share": 0.125 if whole and total else None,
            "default_price_nusd": total // 20 if whole else 0,
            "unknown_gpu_requests": 3 if whole and total else 0,
            "unknown_gpu_tokens": 4_200 if whole and total else 0,
        },
    }


def _price_book(fleet: Fleet) -> list[Json]:
    def row(name: str, scope: str, key: str | None, usd: str, days: int, source: str, mode: str = "on_demand") -> Json:
        began = fleet.now - timedelta(days=days)
        return {
            "id": name,
            "scope": scope,
            "key": key,
            "usd_per_hour": usd,
            "mode": mode,
            "usd_per_kwh": "0.29" if mode == "owned" else None,
            "pue": 1.25 if mode == "owned" else None,
            "valid_from": began,
            "valid_to": None,
            "created_at": began,
            "source": source,
            "pending": False,
            "matches": scope != "host",
        }

    return [
        row("price-host", "host", fleet.gpus[-1].host, "0.610000000", 6, "api", "owned"),
        row("price-h100", "name", NAMES[0][0], "2.490000000", 31, "api", "reserved"),
        row("price-h100-old", "name", NAMES[0][0], "2.950000000", 120, "api"),
        row("price-default", "default", None, "0.850000000", 200, "PRICE_PER_HOUR_USD"),
    ]
