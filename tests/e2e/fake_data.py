"""A fake fleet as the routes of the fake /v1 see it, and the answers that several of them are made
of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from fastapi import Request
from tests.e2e.fake_fleet import CLASSES, NAMES, Fleet

Json = dict[str, Any]


class Problem(Exception):
    """An error answer."""

    def __init__(self, status: int, detail: str, nearest: Json | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.nearest = status, detail, nearest


class FakeData:
    """The fleet, and what tests make of it: `empty` for no data at all."""

    def __init__(self, gpus: int, now: datetime | None) -> None:
        self.fleet = Fleet(gpus, now or datetime.now(UTC))
        self.empty = False
        self.stream_works = True
        self.streams_open = 0
        self.beat = 0
        self.prices: list[Json] = price_book(self.fleet)

    def _sums(self, start: datetime, end: datetime) -> Any:
        sums = self.fleet.sums(start, end)
        return np.zeros_like(sums) if self.empty else sums

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
            "classes": ["attributed"]
            if request.state.tenant
            else query.getlist("class") or list(CLASSES),
        }


def asked_range(request: Request) -> tuple[datetime, datetime]:
    query = request.query_params
    start = datetime.fromisoformat(query["from"]).astimezone(UTC)
    end = datetime.fromisoformat(query["to"]).astimezone(UTC)
    if end <= start or start.second or end.second:
        raise Problem(400, f"from={start} and to={end} are not whole minutes in order")
    return start, end


def buckets(
    start: datetime, end: datetime, bucket: str, zone: ZoneInfo
) -> list[tuple[datetime, datetime]]:
    if bucket == "none":
        return [(start, end)]
    cuts = []
    low = start
    while low < end:
        local = low.astimezone(zone)
        if bucket == "1m":
            high = low + timedelta(minutes=1)
        elif bucket == "1h":
            high = local.replace(minute=0).astimezone(UTC) + timedelta(hours=1)
        else:
            high = (local.replace(hour=0, minute=0) + timedelta(days=1)).astimezone(UTC)
        cuts.append((low, min(high, end)))
        low = high
    return cuts


def money_of(classes: Any) -> Json:
    money = {f"{name}_nusd": int(value) for name, value in zip(CLASSES, classes, strict=True)}
    return money | {"total_nusd": int(classes.sum())}


def cost_row(
    label: Any, group: Json, money: Any, tokens: int, low: datetime, high: datetime
) -> Json:
    total, spent, warm = int(money.sum()), int(money[0]), int(money[2])
    completion = tokens * 3 // 10
    whole = "model" not in group and "tenant" not in group
    return {
        "bucket": label,
        "group": group,
        "money": money_of(money),
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


def price_book(fleet: Fleet) -> list[Json]:
    def row(
        name: str,
        scope: str,
        key: str | None,
        usd: str,
        days: int,
        source: str,
        mode: str = "on_demand",
    ) -> Json:
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
