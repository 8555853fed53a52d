"""What the fake /v1 tells FinOps people: owners and idle money by owner, computed from its own
fleet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Request
from tests.answers import answer
from tests.e2e.fake_data import cost_row
from tests.e2e.fake_fleet import CLASSES, TENANTS

from gpu_token_analytics.books.rates import Rate
from gpu_token_analytics.costs.answers import BreakEvenResponse
from gpu_token_analytics.costs.answers.hints import HintsResponse
from gpu_token_analytics.costs.answers.owners import IdleResponse, OwnerRow, OwnersResponse
from gpu_token_analytics.costs.answers.rates import ConvertedResponse, RateRow, RatesResponse
from gpu_token_analytics.costs.break_even import ApiPrices, compared
from gpu_token_analytics.costs.choices import ShareRule
from gpu_token_analytics.costs.jumps import SAYS, THRESHOLDS
from gpu_token_analytics.costs.owners import RULES, NewOwnerRow, shares
from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, Row
from gpu_token_analytics.costs.questions import cost_query
from gpu_token_analytics.costs.rates import ROUNDING, NewRate
from gpu_token_analytics.documents import US_PER_HOUR
from gpu_token_analytics.sentences import Sentence, in_usd

if TYPE_CHECKING:
    from tests.e2e.fake_api import FakeApi

Json = dict[str, Any]
Answering = Callable[..., Awaitable[Any]]
IDLE = [CLASSES.index(name) for name in ("warm_idle", "cold_idle", "unobserved")]
UNMETERED = CLASSES.index("unmetered_work")
NUSD_PER_GPU_HOUR = 2_490_000_000
NOTHING = np.zeros(len(CLASSES), dtype=np.int64)
EPOCH = "1970-01-01T00:00:00Z"
TEAMS = {TENANTS[0]: "shop", TENANTS[1]: "shop"}


def _row_of(side: Json, start: datetime, end: datetime) -> Row:
    """One of the fake's rows by model, or of everything, as the product's own arithmetic takes
    it."""
    values = [0] * len(ROW_COLUMNS)
    for name in ("prompt", "cached", "completion"):
        values[ROW[f"{name}_tokens"]] = side["tokens"][name]
    for name in CLASSES:
        values[ROW["cost_nusd" if name == "attributed" else f"{name}_nusd"]] = side["money"][
            f"{name}_nusd"
        ]
    values[ROW["gpu_us"]] = side["money"]["total_nusd"] * US_PER_HOUR // NUSD_PER_GPU_HOUR
    return Row(None, start, end, tuple(side["group"].values()), values)


class FakeFinops:
    """Its books, and its routes over a fake fleet. The first GPU has an owner."""

    def __init__(self) -> None:
        self.owners: list[Json] = []
        self.rates: list[Json] = []
        self.low_volume_tokens = 1_000

    def routes(self, api: FakeApi) -> Iterable[tuple[str, str, Answering]]:
        """(method, path, handler) of each."""
        self.owners.append(self._owner("gpu", api.fleet.gpus[0].id, "platform", "CC-4711"))

        async def owners() -> Any:
            return answer(OwnersResponse, {"owners": [] if api.empty else self.owners})

        async def add_owner(new: NewOwnerRow) -> Any:
            self.owners.insert(
                0,
                self._owner(
                    new.scope, new.key, new.team, new.cost_centre, new.valid_from.isoformat()
                ),
            )
            return answer(OwnerRow, self.owners[0])

        async def idle(request: Request) -> Any:
            return answer(IdleResponse, self._idle(api, request))

        async def rates() -> Any:
            return answer(RatesResponse, {"rates": self.rates})

        async def add_rate(new: NewRate) -> Any:
            said = {
                "currency": new.currency,
                "units_per_usd": str(new.units_per_usd),
                "valid_from": new.valid_from,
            }
            self.rates.insert(
                0,
                {
                    "id": f"rate-{len(self.rates)}",
                    **said,
                    "created_at": api.fleet.now,
                    "source": "api",
                },
            )
            return answer(RateRow, self.rates[0])

        async def converted(request: Request) -> Any:
            return answer(ConvertedResponse, self._converted(api, request))

        yield "GET", "/v1/rates", rates
        yield "POST", "/v1/rates", add_rate
        yield "GET", "/v1/costs/converted", converted

        async def break_even(request: Request) -> Any:
            return self._break_even(api, request)

        yield "GET", "/v1/break-even", break_even

        async def hints() -> Any:
            return answer(HintsResponse, self._hints(api))

        yield "GET", "/v1/hints", hints
        yield "GET", "/v1/owners", owners
        yield "POST", "/v1/owners", add_owner
        yield "GET", "/v1/owners/idle", idle

    def _owner(
        self, scope: str, key: str | None, team: str | None, centre: str | None, at: str = EPOCH
    ) -> Json:
        said = {"scope": scope, "key": key, "team": team, "cost_centre": centre}
        written = datetime(2026, 1, 31, 9, tzinfo=UTC) + timedelta(minutes=len(self.owners))
        return {
            "id": f"owner-{len(self.owners)}",
            **said,
            "valid_from": at,
            "created_at": written,
            "source": "api",
        }

    def _converted(self, api: FakeApi, request: Request) -> Json:
        start, end = (
            datetime.fromisoformat(request.query_params[name]).astimezone(UTC)
            for name in ("from", "to")
        )
        currency, group_by = (
            request.query_params["currency"],
            request.query_params.getlist("group_by"),
        )
        row = next(row for row in self.rates if row["currency"] == currency)
        rate = Rate(Decimal(row["units_per_usd"]), row["valid_from"])
        rows = []
        for side in api._side(request, start, end, group_by):
            money = {
                f"{name}_nano": rate.convert(side["money"][f"{name}_nusd"]) for name in CLASSES
            }
            rows.append(
                {"group": side["group"], "money": money | {"total_nano": sum(money.values())}}
            )
        totals = {
            name: sum(row["money"][name] for row in rows)
            for name in (*(f"{name}_nano" for name in CLASSES), "total_nano")
        }
        used = {
            "from": start,
            "to": end,
            "units_per_usd": row["units_per_usd"],
            "valid_from": row["valid_from"],
        }
        said = {"currency": currency, "rounding": ROUNDING, "rates": [used], "group_by": group_by}
        return {"from": start, "to": end, **said, "rows": rows, "totals": totals}

    def _break_even(self, api: FakeApi, request: Request) -> BreakEvenResponse:
        start, end = (
            datetime.fromisoformat(request.query_params[name]).astimezone(UTC)
            for name in ("from", "to")
        )
        rows = [_row_of(side, start, end) for side in api._side(request, start, end, ["model"])]
        sides = api._side(request, start, end, []) or [cost_row(None, {}, NOTHING, 0, start, end)]
        whole = _row_of(sides[0], start, end)
        return compared(
            cost_query(start, end, group_by=["model"]),
            rows,
            whole,
            api.fleet.now,
            ApiPrices.of(None, request.query_params.getlist("price")),
            None,
            self.low_volume_tokens,
        )

    def _hints(self, api: FakeApi) -> Json:
        to = api.fleet.now.replace(minute=0)
        gpus = [gpu.id for gpu in api.fleet.gpus]
        rows: list[tuple[str, str, list[str], int, int | None, Sentence]] = [
            (
                "give_back",
                gpus[0],
                gpus[:1],
                139_440_000_001,
                597_600_000_000,
                [
                    f"{gpus[0]} (NVIDIA H100 80GB HBM3 on gpu-node-01) was used for 0.0 % of its "
                    "money of 7 days: give it back."
                ],
            ),
            (
                "put_together",
                "node-1",
                gpus[1:6],
                86_000_000_000,
                344_000_000_000,
                ["5 GPUs use 41.0 % of one together."],
            ),
            (
                "coverage_drop",
                "node-2",
                [],
                12_000_000_000,
                None,
                ["Coverage of node-2 fell to 62.0 %: is its agent running?"],
            ),
            (
                "spend_jump",
                "search",
                [],
                9_000_000_000,
                None,
                ["tenant search cost ", 9_000_000_000, ", ", 2_000_000_000, " a day before."],
            ),
        ]
        found = [
            {
                "kind": kind,
                "subject": subject,
                "gpus": cards,
                "week_nusd": week,
                "month_nusd": month,
                "says": in_usd(says),
                "sentence": says,
            }
            | {
                "cells": (
                    "/v1/ledger/cells?from=2026-01-24T09%3A00%3A00Z&to=2026-01-31T09%3A00%3A00Z&"
                    f"gpu={subject}"
                )
            }
            for kind, subject, cards, week, month, says in rows
        ]
        thresholds = [
            {"name": name, "value": value, "says": SAYS[name]}
            for name, value in THRESHOLDS._asdict().items()
        ]
        times = {
            "as_of": api.fleet.now,
            "to": to,
            "week_from": to - timedelta(days=7),
            "month_from": to - timedelta(days=30),
        }
        said = {
            "hints": [] if api.empty else found,
            "thresholds": thresholds,
            "gpus": len(gpus),
            "gpus_known": len(gpus) - 1,
            "time_zone": "UTC",
        }
        return times | said

    def _idle(self, api: FakeApi, request: Request) -> Json:
        start, end = (
            datetime.fromisoformat(request.query_params[name]).astimezone(UTC)
            for name in ("from", "to")
        )
        sums = api._sums(start, end)
        owned, others = [0], list(range(1, len(api.fleet.gpus)))
        rows = [self._row("platform", "CC-4711", sums[owned].sum(axis=(0, 1)), len(owned))]
        rows.append(self._row(None, None, sums[others].sum(axis=(0, 1)), len(others)))
        rows = [row for row in rows if row["idle_nusd"]]
        whole = sum(row["idle_nusd"] for row in rows)
        shop = int(sums[:, [TENANTS.index(name) for name in TEAMS], 0].sum())
        used: dict[str | None, int] = {
            "shop": shop,
            None: int(sums[:, : len(TENANTS), 0].sum()) - shop,
        }
        said = request.query_params.get("share")
        shared = None
        if said:
            rule = ShareRule(said)
            parts = shares(rule, whole, used, {row["owner"]: row["idle_nusd"] for row in rows})
            both = {
                team: (used.get(team, 0), parts.get(team, 0)) for team in ("shop", "platform", None)
            }
            shared_rows = [self._shared(team, *money) for team, money in both.items() if sum(money)]
            sums_of = {"attributed_nusd": sum(used.values()), "shared_idle_nusd": whole}
            shared = {"rule": rule.value, "says": RULES[rule], "rows": shared_rows, **sums_of}
        unmetered = sum(row["unmetered_work_nusd"] for row in rows)
        whole_of = {"idle_nusd": whole, "unmetered_work_nusd": unmetered, "shared_out": shared}
        return {"from": start, "to": end, "rows": rows, **whole_of}

    @staticmethod
    def _row(owner: str | None, centre: str | None, money: Any, gpus: int) -> Json:
        warm, cold, unobserved = (int(money[index]) for index in IDLE)
        classes = {"warm_idle_nusd": warm, "cold_idle_nusd": cold, "unobserved_nusd": unobserved}
        rest = {"idle_nusd": warm + cold + unobserved, "unmetered_work_nusd": int(money[UNMETERED])}
        return {
            "owner": owner,
            "cost_centre": centre,
            **classes,
            **rest,
            "gpu_seconds": 3600.0 * gpus,
        }

    @staticmethod
    def _shared(team: str | None, used: int, part: int) -> Json:
        return {
            "team": team,
            "attributed_nusd": used,
            "shared_idle_nusd": part,
            "with_shared_idle_nusd": used + part,
        }
