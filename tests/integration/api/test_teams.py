"""Teams over a real mongod: rows sum to what /v1/costs attributes, a tenant that moves divides
exactly, budgets follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bench.synthetic_cells import Fleet

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.terminal.support import count, dollars

from .conftest import Api, served
from .test_api_commands import runner

START = datetime(2026, 2, 1, tzinfo=UTC)
MINUTES = 3 * 1440 + 6 * 60
NOW = START + timedelta(minutes=MINUTES)
MOVED = START + timedelta(days=1, hours=7, minutes=30)
RANGE = {"from": START.isoformat(), "to": NOW.isoformat()}


@pytest.fixture(scope="module")
def made(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    with served(*make_store(), Fleet(gpus=1, models=2, tenants=3), START, MINUTES) as api:
        yield api


@pytest.fixture(autouse=True)
def _no_rows(made: Api) -> None:
    for name in (Collection.TEAMS, Collection.BUDGETS):
        made.store[name].delete_many({})


def say(api: Api, tenant: str, team: str | None, at: datetime) -> Any:
    return api.client(KeyScope.ADMIN).post(
        "/v1/teams", json={"tenant": tenant, "team": team, "valid_from": at.isoformat()}
    )


def money(api: Api, tenant: str, start: datetime, end: datetime) -> int:
    """Of the cells, without the code under test."""
    chosen = [cell for cell in api.cells if start <= cell["minute"] < end]
    return sum(
        line["cost_nusd"] for cell in chosen for line in cell["lines"] if line["tenant"] == tenant
    )


def test_rows_sum_to_the_attributed_money_and_a_tenant_that_moves_divides_exactly(
    made: Api,
) -> None:
    say(made, "tenant-00", "red", START - timedelta(days=9))
    say(made, "tenant-00", "blue", MOVED)
    say(made, "tenant-01", "blue", START - timedelta(days=9))
    body = made.reader.get("/v1/teams/costs", params=RANGE).json()
    rows = {row["team"]: row for row in body["rows"]}
    assert rows["red"]["attributed_nusd"] == money(made, "tenant-00", START, MOVED) > 0
    blue = money(made, "tenant-00", MOVED, NOW) + money(made, "tenant-01", START, NOW)
    assert rows["blue"]["attributed_nusd"] == blue
    assert rows["blue"]["tenants"] == ["tenant-00", "tenant-01"]
    assert rows[None]["attributed_nusd"] == money(made, "tenant-02", START, NOW)
    costs = made.reader.get("/v1/costs", params=RANGE).json()["totals"]
    assert body["attributed_nusd"] == costs["money"]["attributed_nusd"]
    assert sum(row["attributed_nusd"] for row in body["rows"]) == body["attributed_nusd"]
    assert sum(row["tokens"] for row in body["rows"]) == costs["tokens"]["total"]
    assert sum(row["requests"] for row in body["rows"]) == costs["requests"]
    run = runner(made.store, made.settings)
    printed = json.loads(
        run("teams", "costs", "--from", START.isoformat(), "--to", NOW.isoformat(), "--json").stdout
    )
    assert printed == body
    text = run("teams", "costs", "--from", START.isoformat(), "--to", NOW.isoformat()).stdout
    assert "(no team)" in text
    sums = (count(sum(row[name] for row in body["rows"])) for name in ("tokens", "requests"))
    assert text.splitlines()[-1].split() == ["total", dollars(body["attributed_nusd"]), *sums]
    by_team = ("report", "--by", "team", "--from", START.isoformat(), "--to", NOW.isoformat())
    assert "(no team)" in run(*by_team).stdout, "called the same everywhere"


def test_a_budget_of_a_team_is_the_money_of_its_tenants_while_they_belong_to_it(made: Api) -> None:
    say(made, "tenant-00", "red", START - timedelta(days=9))
    say(made, "tenant-01", "red", START - timedelta(days=9))
    say(made, "tenant-00", None, MOVED)
    body = {"name": "red", "scope": "team", "key": "red", "limit_usd": "1"}
    assert made.client(KeyScope.ADMIN).post("/v1/budgets", json=body).status_code == 201
    (state,) = made.reader.get("/v1/budgets").json()["budgets"]
    assert state["spent_nusd"] == money(made, "tenant-00", START, MOVED) + money(
        made, "tenant-01", START, NOW
    )
    hourly = [
        money(made, "tenant-01", at, at + timedelta(hours=1))
        + money(made, "tenant-00", at, min(at + timedelta(hours=1), MOVED))
        for at in (START + timedelta(hours=n) for n in range(MINUTES // 60))
    ]
    history = made.services.budgets.spending._hours(
        made.services.budgets.store.budgets()[0].scope, frozenset(("red",)), NOW, NOW
    )["red"]
    assert list(history)[-len(hourly) :] == hourly
    assert state["forecast"]["days"] == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a\0"}, "tenant"),
        ({"team": "x" * 257}, "team"),
        ({"valid_from": "2026-02-01T00:10:00Z"}, "valid_from"),
        ({"valid_from": "1969-01-01T00:00:00Z"}, "valid_from"),
        ({"valid_from": "2026-02-01T00:00:00"}, "valid_from"),
        ({"valid_to": "2026-03-01T00:00:00Z"}, "valid_to"),
    ],
)
def test_a_row_that_cannot_be_used_names_the_field(
    made: Api, change: dict[str, Any], field: str
) -> None:
    body = {"tenant": "a", "team": "red", "valid_from": "2026-02-01T00:00:00Z", **change}
    answer = made.client(KeyScope.ADMIN).post("/v1/teams", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert made.reader.get("/v1/teams").json() == {"teams": []}


def test_rows_are_listed_as_they_were_said(made: Api) -> None:
    run = runner(made.store, made.settings)
    assert run("teams", "add", "tenant-00", "--team", "red").stdout.strip() == (
        "said: tenant-00 belongs to team red from 1970-01-01T00:00:00Z"
    )
    run("teams", "add", "tenant-00", "--from", "2026-02-02")
    listed = json.loads(run("teams", "list", "--json").stdout)
    assert listed == made.reader.get("/v1/teams").json()
    assert [(row["team"], row["valid_from"], row["source"]) for row in listed["teams"]] == [
        (None, "2026-02-02T00:00:00Z", "cli"),
        ("red", "1970-01-01T00:00:00Z", "cli"),
    ]
    assert made.client(KeyScope.READ, tenant="tenant-00").get("/v1/teams").status_code == 403
