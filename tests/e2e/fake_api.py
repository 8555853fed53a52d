"""A small /v1 for the dashboard's tests: the real routes' models over a fake fleet, with the cases
a real one makes rarely.

    FakeApi(gpus=800)                     many GPUs           FakeApi(keys={"gta_x": None})     a
                                          key is needed
    FakeApi(keys={"gta_t": "search"})     a tenant's key      api.broken = {"/v1/costs": 503}
                                          errors on demand
    api.stream_works = False              no live stream      api.empty = True                  no
                                          data at all

Every answer is validated by the model that OpenAPI promises for the route, so the page is developed
against the contract.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from tests.answers import answer
from tests.e2e.fake_budgets import FakeBudgets
from tests.e2e.fake_costs import FakeCosts
from tests.e2e.fake_data import Problem
from tests.e2e.fake_finops import FakeFinops
from tests.e2e.fake_gpus import FakeGpus
from tests.e2e.fake_ledger import FakeLedger
from tests.e2e.fake_live import FakeLive

from gpu_token_analytics.api.app import sent
from gpu_token_analytics.api.problem import Problem as ProblemAnswer
from gpu_token_analytics.budgets.answers import BudgetAlertsResponse, BudgetsResponse, BudgetTerms
from gpu_token_analytics.budgets.entries import BudgetName, NewBudget
from gpu_token_analytics.costs import answers as m
from gpu_token_analytics.web import mount

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
TITLES = {
    400: "range_too_long",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    503: "store_unavailable",
}


class FakeApi(FakeCosts, FakeGpus, FakeLedger, FakeLive):
    """State of the fake; `app` is the application with the dashboard mounted."""

    def __init__(
        self, gpus: int = 8, keys: dict[str, str | None] | None = None, now: datetime | None = None
    ) -> None:
        super().__init__(gpus, now)
        self.keys = keys
        self.broken: dict[str, int] = {}
        self.scopes = ["admin", "ingest", "read"]
        self.asked: list[str] = []
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
        self.app.add_api_route(
            "/v1/prices", _sent(self._add_price, 201), methods=["POST"], response_model=None
        )
        for path, put in (
            ("/v1/budgets", self._set_budget),
            ("/v1/budgets/remove", self._remove_budget),
        ):
            self.app.add_api_route(path, _sent(put), methods=["POST"], response_model=None)
        for method, path, call in self.finops.routes(self):
            status = 201 if method == "POST" else 200
            self.app.add_api_route(path, _sent(call, status), methods=[method], response_model=None)
        mount(self.app)

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
            return problem_answer(problem)

    def _admit(self, request: Request) -> str | None:
        if self.keys is None:
            return None
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key not in self.keys:
            raise Problem(
                401,
                (
                    "give an API key as `Authorization: Bearer gta_...`; `gpu-tokens keys create` "
                    "makes one"
                ),
            )
        tenant = self.keys[key]
        if (
            tenant is not None
            and request.url.path.startswith(TENANT_DENIED)
            and "/requests/" not in request.url.path
        ):
            raise Problem(
                403,
                (
                    f"{request.url.path} shows data of all tenants; this key is for tenant "
                    f"{tenant!r} only"
                ),
            )
        return tenant

    async def _me(self, request: Request) -> Any:
        tenant = request.state.tenant
        scopes = ["read"] if tenant else self.scopes
        key = None if self.keys is None else "demo1234"
        return m.Me(key, scopes, tenant, self.keys is None, "0.1.0")

    async def _list_budgets(self, request: Request) -> Any:
        rows = [] if self.empty else self.budgets.rows
        if request.state.tenant:
            rows = [row for row in rows if row["key"] == request.state.tenant]
        receivers = [] if request.state.tenant else ["webhook", "mail"]
        return answer(
            BudgetsResponse, {"as_of": self.budgets.now, "receivers": receivers, "budgets": rows}
        )

    async def _budget_alerts(self, request: Request) -> Any:
        return answer(BudgetAlertsResponse, {"alerts": [] if self.empty else self.budgets.told()})

    async def _set_budget(self, body: NewBudget) -> BudgetTerms:
        return answer(BudgetTerms, self.budgets.put(body))

    async def _remove_budget(self, body: BudgetName) -> Any:
        row = self.budgets.remove(body.name)
        if row is None:
            raise Problem(404, "no such budget")
        return answer(BudgetTerms, row)


def _sent(handler: Callable[..., Any], status: int = 200) -> Callable[..., Any]:
    """What it answers, sent as the product sends it."""

    @functools.wraps(handler)
    async def answering(*args: Any, **kwargs: Any) -> Any:
        return sent(await handler(*args, **kwargs), status)

    return answering


def problem_answer(problem: Problem) -> JSONResponse:
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
    return JSONResponse(
        body.model_dump(mode="json", by_alias=True),
        problem.status,
        media_type="application/problem+json",
    )
