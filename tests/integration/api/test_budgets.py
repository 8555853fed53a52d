"""Budgets over a real mongod: spent is what /v1/costs says, the forecast is its formula over the
cells, mistakes are named."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from bench.synthetic_cells import Fleet, cells

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.budgets import answers as m
from gpu_token_analytics.budgets.forecast import forecast
from gpu_token_analytics.budgets.spending import NO_HISTORY, UNKNOWN_MONEY, Spending
from gpu_token_analytics.budgets.store import BudgetStore
from gpu_token_analytics.budgets.terms import MAX_BUDGETS
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.exporter.budget_figures import BudgetFigures
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings

from .conftest import Api, roll_all, served
from .test_api_commands import Run, runner

START = datetime(2026, 1, 27, tzinfo=UTC)
MINUTES = 5 * 1440 + 12 * 60 + 17
NOW = START + timedelta(minutes=MINUTES)  # 2026-02-01, a Sunday, at 12:17
HOUR = timedelta(hours=1)
TENANT, MODEL = "tenant-00", "model-0"

SCOPES = {"fleet": None, "tenant": TENANT, "model": MODEL}
FILTER: dict[str, dict[str, str]] = {
    "fleet": {},
    "tenant": {"tenant": TENANT},
    "model": {"model": MODEL},
}


@pytest.fixture(scope="module")
def made(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    """Five days and a half of two GPUs."""
    with served(*make_store(), Fleet(gpus=2, models=2, tenants=3), START, MINUTES) as api:
        yield api


@pytest.fixture
def run(made: Api) -> Run:
    return runner(made.store, made.settings)


@pytest.fixture(autouse=True)
def _no_budgets(made: Api) -> None:
    made.store[Collection.BUDGETS].delete_many({})


def put(api: Api, **fields: Any) -> Any:
    body = {"name": "b", "scope": "fleet", "limit_usd": "100", **fields}
    return api.client(KeyScope.ADMIN).post("/v1/budgets", json=body)


def states(api: Api) -> dict[str, m.BudgetState]:
    body = msgspec.json.decode(api.reader.get("/v1/budgets").content, type=m.BudgetsResponse)
    return {state.name: state for state in body.budgets}


def money(api: Api, scope: str, start: datetime, end: datetime) -> int:
    """Of the cells, without the code under test."""
    chosen = [cell for cell in api.cells if start <= cell["minute"] < end]
    if scope == "fleet":
        return sum(cell["cost_nusd"] for cell in chosen)
    return sum(
        line["cost_nusd"]
        for cell in chosen
        for line in cell["lines"]
        if line[scope] == SCOPES[scope]
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu"])
def test_spent_is_what_costs_says_of_the_period_to_the_nano_dollar(made: Api, zone: str) -> None:
    for scope, key in SCOPES.items():
        for period in ("day", "week", "month"):
            made_one = put(
                made, name=f"{scope}-{period}", scope=scope, key=key, period=period, time_zone=zone
            )
            assert made_one.status_code == 201, made_one.text
    for name, state in states(made).items():
        scope = name.split("-")[0]
        span = {"from": state.from_.isoformat(), "to": state.to.isoformat()}
        costs = made.reader.get("/v1/costs", params={**span, **FILTER[scope]}).json()["totals"][
            "money"
        ]
        assert state.spent_nusd == costs["total_nusd" if scope == "fleet" else "attributed_nusd"]
        assert state.spent_nusd == money(made, scope, state.from_, NOW) > 0
        assert state.used_share == pytest.approx((state.spent_nusd or 0) / 100e9)
    month, week = states(made)["fleet-month"], states(made)["fleet-week"]
    if zone == "UTC":
        assert (month.from_, month.to) == (
            datetime(2026, 2, 1, tzinfo=UTC),
            datetime(2026, 3, 1, tzinfo=UTC),
        )
        assert (week.from_, week.to) == (
            datetime(2026, 1, 26, tzinfo=UTC),
            datetime(2026, 2, 2, tzinfo=UTC),
        )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_the_forecast_is_its_formula_over_whole_hours(made: Api, scope: str, period: str) -> None:
    put(made, scope=scope, key=SCOPES[scope], period=period)
    state = states(made)["b"]
    hour = NOW.replace(minute=0)
    hours = [
        money(made, scope, at, at + HOUR)
        for at in (START + n * HOUR for n in range((hour - START) // HOUR))
    ]
    wanted = forecast(
        hours, money(made, scope, state.from_, hour), Fraction(int((state.to - hour) / HOUR))
    )
    assert wanted is not None
    assert state.forecast is not None
    assert msgspec.to_builtins(state.forecast) == {
        "nusd": wanted.nusd,
        "low_nusd": wanted.low_nusd,
        "high_nusd": wanted.high_nusd,
        "days": 5,
    }
    assert state.no_forecast is None


def test_little_history_is_no_forecast_and_unknown_money_is_not_zero(
    make_store: Callable[[], tuple[Store, Settings]],
) -> None:
    store, settings = make_store()
    day = list(
        cells(Fleet(gpus=1, models=1, tenants=1), NOW - timedelta(days=2), 2 * 1440, now=NOW)
    )
    for cell in day:
        for line in cell["lines"]:
            line.update(
                tenant="lost",
                cost_nusd=None,
                prefill_cost_nusd=None,
                energy_mj=None,
                method="unknown_gpu",
            )
        cell["classes"]["cold_idle"] += cell["classes"]["attributed"]
        cell["class_us"]["cold_idle"] += cell["class_us"]["attributed"]
        cell["classes"]["attributed"] = cell["class_us"]["attributed"] = 0
    store[Collection.LEDGER_CELLS].insert_many(day)
    roll_all(store)
    services = Services.of(store, settings)
    for name, scope, key in (
        ("all", "fleet", None),
        ("lost", "tenant", "lost"),
        ("nobody", "tenant", "nobody"),
    ):
        fields = {
            "scope": scope,
            "key": key,
            "period": "month",
            "time_zone": "UTC",
            "limit_nusd": 10**9,
        }
        services.budgets.store.put(
            name, {**fields, "thresholds": [50], "forecast_alert": True}, NOW, "test"
        )
    known = {
        state.budget.name: state
        for state in services.budgets.spending.states(services.budgets.store.budgets(), NOW)
    }
    assert (known["all"].forecast, known["all"].no_forecast) == (None, NO_HISTORY)
    assert known["all"].spent_nusd
    assert (known["lost"].spent_nusd, known["lost"].used, known["lost"].no_forecast) == (
        None,
        None,
        UNKNOWN_MONEY,
    )
    assert known["lost"].unknown_gpu_tokens > 0
    assert (known["nobody"].spent_nusd, known["nobody"].no_forecast) == (0, NO_HISTORY)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"scope": "galaxy"}, "scope"),
        ({"scope": "tenant"}, "key"),
        ({"key": "acme"}, "key"),
        ({"scope": "tenant", "key": "a\0b"}, "key"),
        ({"period": "year"}, "period"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"limit_usd": "0"}, "limit_usd"),
        ({"limit_usd": "1000000001"}, "limit_usd"),
        ({"limit_usd": "0.0000000001"}, "limit_usd"),
        ({"limit_usd": "NaN"}, "limit_usd"),
        ({"thresholds": [0]}, "thresholds.0"),
        ({"thresholds": [50, 50]}, "thresholds"),
        ({"thresholds": list(range(1, 12))}, "thresholds"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_budget_that_cannot_be_set_names_the_field(
    made: Api, change: dict[str, Any], field: str
) -> None:
    answer = put(made, **change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert states(made) == {}


def test_a_budget_is_replaced_by_its_name_and_its_terms_change_with_its_money_only(
    made: Api,
) -> None:
    store = made.services.budgets.store

    def terms() -> str:
        (budget,) = store.budgets()
        return budget.terms

    put(made, limit_usd="12.000000001", thresholds=[80, 20])
    first = store.budgets()[0]
    assert (first.limit_nusd, first.thresholds) == (12_000_000_001, (20, 80))
    put(made, limit_usd="12.000000001", thresholds=[90], forecast_alert=False)
    assert terms() == first.terms
    for change in (
        {"limit_usd": "13"},
        {"period": "day"},
        {"scope": "tenant", "key": "a"},
        {"time_zone": "Asia/Tokyo"},
    ):
        before = terms()
        put(made, **change)
        assert terms() != before, change
    assert store.budgets()[0].created_at == first.created_at


def test_budgets_are_bounded_and_removed(made: Api) -> None:
    fields: dict[str, Any] = {
        "scope": "fleet",
        "key": None,
        "period": "day",
        "time_zone": "UTC",
        "limit_nusd": 1,
        "thresholds": [],
    }
    for number in range(MAX_BUDGETS):
        made.services.budgets.store.put(
            f"b{number}", {**fields, "forecast_alert": False}, NOW, "test"
        )
    answer = put(made, name="one-more")
    assert answer.status_code == 422
    assert f"there are {MAX_BUDGETS}" in answer.json()["detail"]
    assert put(made, name="b7", limit_usd="9").status_code == 201, (
        "one that is there can still be changed"
    )
    admin = made.client(KeyScope.ADMIN)
    assert admin.post("/v1/budgets/remove", json={"name": "b7"}).json()["limit_nusd"] == 9 * 10**9
    missing = admin.post("/v1/budgets/remove", json={"name": "b7"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert put(made, name="one-more").status_code == 201


def test_a_tenants_key_sees_its_own_budgets(made: Api) -> None:
    for name, scope, key in (
        ("mine", "tenant", TENANT),
        ("theirs", "tenant", "tenant-01"),
        ("all", "fleet", None),
    ):
        put(made, name=name, scope=scope, key=key)
    body = made.client(KeyScope.READ, tenant=TENANT).get("/v1/budgets").json()
    assert [budget["name"] for budget in body["budgets"]] == ["mine"]
    assert body["receivers"] == []
    assert made.client(KeyScope.READ, tenant=TENANT).get("/v1/budgets/alerts").status_code == 403


def test_the_commands_print_what_the_api_answers(made: Api, run: Run) -> None:
    run("budgets", "set", "everything", "20000", "--at", "80,100")
    printed = run(
        "budgets",
        "set",
        "a",
        "1.5",
        "--scope",
        "tenant",
        "--key",
        TENANT,
        "--period",
        "week",
        "--no-forecast",
    ).stdout
    assert printed.strip() == f"set: a, 1.50 USD each week (UTC) of tenant {TENANT}"
    listed = json.loads(run("budgets", "list", "--json").stdout)["budgets"]
    assert [(row["name"], row["source"], row["thresholds"]) for row in listed] == [
        ("a", "cli", [50, 80, 100]),
        ("everything", "cli", [80, 100]),
    ]
    # the server's clock is not NOW: periods differ
    said = json.loads(run("budgets", "status", "--json").stdout)
    assert {row["name"] for row in said["budgets"]} == {"a", "everything"}
    msgspec.convert(
        {name: said[name] for name in ("as_of", "receivers", "budgets")}, m.BudgetsResponse
    )
    rows = list(csv.DictReader(io.StringIO(run("budgets", "status", "--csv").stdout)))
    assert [row["name"] for row in rows] == ["a", "everything"]
    assert "no forecast" in run("budgets", "status").stdout
    assert "20,000.00" in run("budgets", "list").stdout
    assert run("budgets", "remove", "a").stdout.strip() == "removed: a"
    assert run("budgets", "alerts").stdout.startswith("budget alerts")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("set", "x", "much"), "USD='much' is no decimal number"),
        (("set", "x", "-1"), "No such option"),
        (("set", "x", "0"), "limit_usd"),
        (("set", "x", "1", "--at", "half"), "--at='half'"),
        (("set", "x", "1", "--scope", "tenant"), "key=None is needed"),
        (("set", "x", "1", "--tz", "Mars/Base"), "time_zone='Mars/Base'"),
        (("set", "a|b", "1"), "name='a|b'"),
        (("remove", "x"), "no budget name='x'"),
    ],
)
def test_mistakes_of_commands_are_named(run: Run, arguments: tuple[str, ...], named: str) -> None:
    done = run("budgets", *arguments, fails=True)
    assert done.exit_code != 0
    assert named in f"{done.exception} {done.output} {done.stderr}"


def test_prometheus_sees_limit_spent_and_forecast_of_as_many_as_it_may(made: Api) -> None:
    put(made, name="all", limit_usd="10")
    put(made, name="mine", scope="tenant", key=TENANT, limit_usd="1")
    put(made, name="small", scope="tenant", key="nobody", limit_usd="1000000")
    metrics = ExporterMetrics()
    costs = CostReads(made.store.database)
    figures = BudgetFigures(BudgetStore(made.store.database), Spending(costs), metrics, 2)
    figures.update(NOW)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"gpu_tokens_{name}", labels)

    labels = {"budget": "all", "scope": "fleet", "key": "", "period": "month"}
    state = states(made)["all"]
    assert state.forecast is not None
    assert value("budget_limit_usd", **labels) == 10
    assert value("budget_spent_usd", **labels) == (state.spent_nusd or 0) / 1e9
    assert value("budget_forecast_usd", **labels) == state.forecast.nusd / 1e9
    assert value("budgets_not_shown") == 1
    assert (
        value("budget_limit_usd", budget="small", scope="tenant", key="nobody", period="month")
        is None
    )
    assert value("budget_alerts_undelivered", state="failed") == 0
    figures.forget()
    assert value("budget_limit_usd", **labels) is None
