"""What the fake /v1 tells of its ledger: corrections, the audit, how good the data is, and
prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from tests.answers import answer
from tests.e2e.fake_data import FakeData, Json, asked_range, buckets
from tests.e2e.fake_fleet import CLASSES

from gpu_token_analytics.costs import answers as m
from gpu_token_analytics.costs.entries import NewPrice


class FakeLedger(FakeData):
    """Corrections, the audit, the quality of data, and the price book."""

    async def _corrections(self, request: Request) -> Any:
        start, end = asked_range(request)
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
        start, end = asked_range(request)
        classes = {
            name: int(value)
            for name, value in zip(CLASSES, self._sums(start, end).sum(axis=(0, 1)), strict=True)
        }
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
                "checked": [
                    "classes_sum_to_cost",
                    "lines_sum_to_attributed",
                    "cost_is_price_times_time",
                ],
            },
        )

    async def _quality(self, request: Request) -> Any:
        start, end = asked_range(request)
        hours: list[Json] = []
        for low, high in buckets(start, end, "1h", ZoneInfo("UTC")):
            sums = self._sums(low, high).sum(axis=(0, 1))
            cells = (
                0 if self.empty else int(self.fleet.minutes(low, high).size) * len(self.fleet.gpus)
            )
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
                    {
                        "document": "rollups_hourly fleet|2026-01-31T12",
                        "why": "too large",
                        "since": datetime.now(UTC),
                    }
                ],
                "engine_count": 2,
                "engines": [
                    {
                        "instance": "node2:30000",
                        "engine": "sglang",
                        "counted_tokens": 40_000,
                        "unexplained_tokens": 40_000,
                        "more_tokens": 0,
                        "coverage": 0.0,
                        "gpus_known": False,
                        "to_do": (
                            "say on which GPUs it runs: gpu-tokens placements add node2:30000 "
                            "--gpu GPU"
                        ),
                    },
                    {
                        "instance": "node1:8000",
                        "engine": "vllm",
                        "counted_tokens": 1_234_567,
                        "unexplained_tokens": 0,
                        "more_tokens": 0,
                        "coverage": 1.0,
                        "gpus_known": True,
                        "to_do": None,
                    },
                ],
                "unknown_gpu_count": 2,
                "unknown_gpus": [
                    {
                        "name": "node9.example/0",
                        "tenant": "search",
                        "first_named_at": datetime.now(UTC),
                        "may_be": [],
                    },
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
                "shared_uuids": [
                    {"uuid": "GPU-00000000", "gpus": ["node1/GPU-00000000", "node2/GPU-00000000"]}
                ],
                "default_price_nusd": int(sums.sum()) // 20,
                "default_price_share": 0.05 if sums.sum() else None,
                "oldest_due_at": datetime.now(UTC) - timedelta(seconds=4),
                "late_cells": 118,
                "first_token_known": 0.94,
                "dead_letters": {}
                if self.empty
                else {"not_json": 41, "out_of_range": 12, "future_ts": 3},
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
