"""What the fake /v1 tells of costs, computed from its fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from fastapi import Request
from fastapi.responses import StreamingResponse
from tests.answers import answer
from tests.e2e.fake_data import FakeData, Json, Problem, asked_range, buckets, cost_row
from tests.e2e.fake_fleet import CLASSES, MODELS, TENANTS, TOKENS_PER_NUSD, Gpu

from gpu_token_analytics.costs import answers as m
from gpu_token_analytics.costs.answers.compared import ComparedResponse
from gpu_token_analytics.costs.answers.teams import TeamCostsResponse
from gpu_token_analytics.costs.periods import range_before

LIMIT_MINUTES = {"1m": 6 * 60, "1h": 31 * 1440, "1d": 366 * 1440, "none": 366 * 1440}


class FakeCosts(FakeData):
    """Costs by group and bucket, beside the period before, and what there is to group by."""

    async def _costs(self, request: Request) -> Any:
        query = request.query_params
        start, end = asked_range(request)
        bucket = query.get("bucket", "none")
        if (end - start) > timedelta(minutes=LIMIT_MINUTES[bucket]):
            nearest = {
                "from": (end - timedelta(hours=6)).isoformat(),
                "to": end.isoformat(),
                "bucket": bucket,
            }
            raise Problem(
                400,
                f"bucket={bucket} spans {end - start}; with 1m at most 6 hours are answered",
                nearest,
            )
        zone = ZoneInfo(query.get("time_zone", "UTC"))
        group_by = query.getlist("group_by")
        chosen = self._chosen(request)
        rows: list[Json] = []
        for low, high in buckets(start, end, bucket, zone):
            sums = self._sums(low, high)
            label = None if bucket == "none" else low.astimezone(zone).isoformat()
            rows += self._rows(sums, chosen, group_by, label, low, high, request.state.tenant)
        sums = self._sums(start, end)
        totals = self._rows(sums, chosen, [], None, start, end, request.state.tenant)
        total = (
            totals[0] if totals else cost_row(None, {}, np.zeros(5, dtype=np.int64), 0, start, end)
        )
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
                "row_count": len(rows),
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
        start, end = asked_range(request)
        zone = ZoneInfo(request.query_params.get("time_zone", "UTC"))
        before = range_before(start, end, zone)
        group_by = request.query_params.getlist("group_by")
        sides = [
            {tuple(row["group"].values()): row for row in self._side(request, low, high, group_by)}
            for low, high in ((start, end), before)
        ]
        totals = [
            next(iter(self._side(request, low, high, [])), None)
            for low, high in ((start, end), before)
        ]
        rows = [
            compared_row(sides[0].get(key), sides[1].get(key))
            for key in sorted(sides[0] | sides[1], key=str)
        ]
        said = {
            "from": start,
            "to": end,
            "before_from": before[0],
            "before_to": before[1],
            "time_zone": str(zone),
        }
        return answer(
            ComparedResponse,
            said | {"group_by": group_by, "rows": rows, "totals": compared_row(*totals)},
        )

    def _side(
        self, request: Request, low: datetime, high: datetime, group_by: list[str]
    ) -> list[Json]:
        return self._rows(
            self._sums(low, high),
            self._chosen(request),
            group_by,
            None,
            low,
            high,
            request.state.tenant,
        )

    def _rows(
        self,
        sums: Any,
        chosen: Json,
        group_by: list[str],
        label: Any,
        low: datetime,
        high: datetime,
        tenant: str | None,
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
            cost_row(label, dict(zip(group_by, key, strict=True)), money, tokens, low, high)
            | {"gpu_seconds": max(0.0, seconds) * len(cards) if whole and not tenant else None}
            for key, (money, tokens, cards) in sorted(
                groups.items(), key=lambda item: [(v is None, v or "") for v in item[0]]
            )
        ]

    def _add(
        self,
        groups: Any,
        gpu: Gpu,
        model: str | None,
        tenant: str | None,
        money: Any,
        tokens: int,
        group_by: list[str],
    ) -> None:
        values = {
            "model": model,
            "tenant": tenant,
            "gpu": gpu.id,
            "host": gpu.host,
            "gpu_name": gpu.name,
        }
        parts: list[tuple[str | None, Any]] = [(None, money)]
        if "class" in group_by:
            parts = [(name, np.where(np.array(CLASSES) == name, money, 0)) for name in CLASSES]
        for name, part in parts:
            if not part.any():
                continue
            key = tuple(
                name if dimension == "class" else values[dimension] for dimension in group_by
            )
            held = groups.setdefault(key, [np.zeros(5, dtype=np.int64), 0, set()])
            held[0] = held[0] + part
            held[1] += tokens if name in (None, "attributed") else 0
            held[2].add(gpu.id)

    async def _dimensions(self, request: Request) -> Any:
        start, end = asked_range(request)
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

    async def _team_costs(self, request: Request) -> Any:
        start, end = asked_range(request)
        names = ["chat-frontend-of-the-web-shop", "search"]
        shop = {
            "team": "shop",
            "tenants": names,
            "attributed_nusd": 40_000_000_001,
            "requests": 120,
            "tokens": 90_000,
        }
        rows = [shop, {"team": None, "tenants": ["batch"], "attributed_nusd": 2}]
        said = {
            "from": start,
            "to": end,
            "rows": [] if self.empty else rows,
            "attributed_nusd": 40_000_000_003,
        }
        return answer(TeamCostsResponse, said)

    async def _export(self, request: Request) -> Any:
        asked_range(request)
        return StreamingResponse(iter(["model,total_nusd\nllama,1\n"]), media_type="text/csv")


def compared_row(now: Json | None, before: Json | None) -> Json:
    some = now or before or {"group": {}}
    total, earlier = (row["money"]["total_nusd"] if row else 0 for row in (now, before))
    rates = ("active_usd_per_million", now), ("active_usd_per_million_before", before)
    return {
        "group": some["group"],
        "money": now["money"]
        if now
        else None
        if some["group"]
        else {"total_nusd": 0, "attributed_nusd": 0},
        "before": before["money"]
        if before
        else None
        if some["group"]
        else {"total_nusd": 0, "attributed_nusd": 0},
        "changed_nusd": total - earlier,
        "changed_share": (total - earlier) / earlier if earlier else None,
        "tokens": now["tokens"]["total"] if now else 0,
        "tokens_before": before["tokens"]["total"] if before else 0,
        **{name: row["rates"]["active_usd_per_million"] if row else None for name, row in rates},
    }
