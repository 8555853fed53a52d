"""Owners over a real mongod: idle money by owner sums to the ledger's, an owner that changes
divides exactly, money that is shared out is exact and beside what was used; /v1/costs groups by
what the books say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bench.synthetic_cells import Fleet

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.costs.rows import IDLE_COLUMNS
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.terminal.support import dollars

from .conftest import Api, served
from .test_api_commands import runner

START = datetime(2026, 2, 1, tzinfo=UTC)
MINUTES = 2 * 1440 + 6 * 60 + 17
NOW = START + timedelta(minutes=MINUTES)
MOVED = START + timedelta(days=1, hours=7, minutes=30)
LONG_AGO = START - timedelta(days=9)
RANGE = {"from": START.isoformat(), "to": NOW.isoformat()}
CLI_RANGE = ("--from", START.isoformat(), "--to", NOW.isoformat())
IDLE = ("warm_idle_nusd", "cold_idle_nusd", "unobserved_nusd")


@pytest.fixture(scope="module")
def made(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    with served(
        *make_store(), Fleet(gpus=4, gpus_per_host=2, models=3, tenants=4), START, MINUTES
    ) as api:
        yield api


@pytest.fixture(autouse=True)
def _no_rows(made: Api) -> None:
    for name in (Collection.TEAMS, Collection.OWNERS):
        made.store[name].delete_many({})


def own(
    api: Api,
    scope: str,
    key: str | None,
    team: str | None,
    at: datetime = LONG_AGO,
    centre: str | None = None,
) -> None:
    body = {
        "scope": scope,
        "key": key,
        "team": team,
        "cost_centre": centre,
        "valid_from": at.isoformat(),
    }
    answer = api.client(KeyScope.ADMIN).post("/v1/owners", json=body)
    assert answer.status_code == 201, answer.text


def join(api: Api, tenant: str, team: str, at: datetime = LONG_AGO) -> None:
    body = {"tenant": tenant, "team": team, "valid_from": at.isoformat()}
    assert api.client(KeyScope.ADMIN).post("/v1/teams", json=body).status_code == 201


def costs(api: Api, **asked: Any) -> Any:
    return api.reader.get("/v1/costs", params={**RANGE, **asked}).json()


def by_owner(
    api: Api, owner_of: Callable[[dict[str, str | None], datetime], str | None]
) -> Counter[str | None]:
    """Idle money by owner from rows that name model, GPU and host, before and after MOVED."""
    found: Counter[str | None] = Counter()
    for low, high in ((START, MOVED), (MOVED, NOW)):
        span = {"from": low.isoformat(), "to": high.isoformat()}
        for row in costs(api, group_by=["model", "gpu", "host"], **span)["rows"]:
            found[owner_of(row["group"], low)] += sum(row["money"][name] for name in IDLE)
    return found


def test_idle_money_goes_to_the_owner_of_its_model_gpu_or_host_while_it_was_the_owner(
    made: Api,
) -> None:
    model, gpu = "model-1", made.cells[0]["gpu"]
    hosts = sorted({cell["host"] for cell in made.cells})
    own(made, "host", hosts[0], "platform", centre="CC-1")
    own(made, "host", hosts[0], "labs", MOVED)
    own(made, "gpu", gpu.lower(), "vision")
    own(made, "model", model, "search")
    own(made, "model", model, None, MOVED)

    def owner_of(group: dict[str, str | None], at: datetime) -> str | None:
        if group["model"] == model and at < MOVED:
            return "search"
        if group["gpu"] == gpu:
            return "vision"
        if group["host"] == hosts[0]:
            return "platform" if at < MOVED else "labs"
        return None

    body = made.reader.get("/v1/owners/idle", params=RANGE).json()
    assert {row["owner"]: row["idle_nusd"] for row in body["rows"]} == by_owner(made, owner_of)
    assert {row["cost_centre"] for row in body["rows"] if row["owner"] == "platform"} == {"CC-1"}
    assert min(row["idle_nusd"] for row in body["rows"]) > 0
    totals = costs(made)["totals"]["money"]
    assert (
        body["idle_nusd"]
        == sum(totals[name] for name in IDLE)
        == sum(row["idle_nusd"] for row in body["rows"])
    )
    assert body["unmetered_work_nusd"] == totals["unmetered_work_nusd"]
    assert body["shared_out"] is None
    run = runner(made.store, made.settings)
    assert json.loads(run("owners", "idle", *CLI_RANGE, "--json").stdout) == body
    table = run("owners", "idle", *CLI_RANGE).stdout
    assert "(no owner)" in table
    (total,) = (line.split() for line in table.splitlines() if line.startswith("total "))
    causes = [sum(row[name] for row in body["rows"]) for name in IDLE_COLUMNS]
    assert total[1:] == [
        dollars(nusd) for nusd in (body["idle_nusd"], *causes, body["unmetered_work_nusd"])
    ]


@pytest.mark.parametrize("bucket", ["none", "1d", "1h", "1m"])
def test_costs_by_owner_are_those_by_place_whatever_the_bucket(made: Api, bucket: str) -> None:
    hosts = sorted({cell["host"] for cell in made.cells})
    own(made, "default", None, "rest")
    own(made, "host", hosts[0], "platform", MOVED)
    span = {
        "from": (MOVED - timedelta(hours=3, minutes=7)).isoformat(),
        "to": (MOVED + timedelta(hours=2)).isoformat(),
    }
    whole = Counter[str | None]()
    after = {"from": MOVED.isoformat(), "to": span["to"]}
    for row in costs(made, group_by=["host"], **after)["rows"]:
        whole["platform" if row["group"]["host"] == hosts[0] else "rest"] += row["money"][
            "total_nusd"
        ]
    before = {"from": span["from"], "to": MOVED.isoformat()}
    whole["rest"] += costs(made, **before)["totals"]["money"]["total_nusd"]
    body = costs(made, group_by=["owner"], bucket=bucket, **span)
    told = Counter[str | None]()
    for row in body["rows"]:
        told[row["group"]["owner"]] += row["money"]["total_nusd"]
    assert told == whole
    assert body["totals"]["money"] == costs(made, **span)["totals"]["money"]


def test_costs_by_team_are_what_teams_cost(made: Api) -> None:
    join(made, "tenant-00", "red")
    join(made, "tenant-00", "blue", MOVED)
    join(made, "tenant-01", "blue")
    told = {
        row["group"]["team"]: row["money"]["attributed_nusd"]
        for row in costs(made, group_by="team")["rows"]
    }
    teams = made.reader.get("/v1/teams/costs", params=RANGE).json()
    assert told == {row["team"]: row["attributed_nusd"] for row in teams["rows"]}
    pages: list[list[dict[str, Any]]] = []
    cursor = None
    while cursor is not None or not pages:
        page = costs(
            made,
            group_by=["team", "class"],
            bucket="1d",
            limit=3,
            **({"cursor": cursor} if cursor else {}),
        )
        pages.append(page["rows"])
        cursor = page["next"]
    assert len(pages) > 1
    assert [row for page in pages for row in page] == costs(
        made, group_by=["team", "class"], bucket="1d"
    )["rows"]
    file = made.reader.get(
        "/v1/export", params={**RANGE, "group_by": ["team"], "bucket": "none"}
    ).text.splitlines()
    names = file[0].split(",")
    exported = {
        row.split(",")[names.index("team")]: row.split(",")[names.index("attributed_nusd")]
        for row in file[1:]
    }
    assert exported == {team or "": str(nusd) for team, nusd in told.items()}


@pytest.mark.parametrize("rule", ["by_use", "evenly", "to_owner"])
def test_idle_money_is_shared_out_exactly_and_beside_what_was_used(made: Api, rule: str) -> None:
    own(made, "host", sorted({cell["host"] for cell in made.cells})[0], "platform")
    join(made, "tenant-00", "red")
    join(made, "tenant-01", "blue")
    join(made, "tenant-02", "green")
    plain = made.reader.get("/v1/owners/idle", params=RANGE).json()
    body = made.reader.get("/v1/owners/idle", params={**RANGE, "share": rule}).json()
    shared = body.pop("shared_out")
    assert body == {name: value for name, value in plain.items() if name != "shared_out"}
    parts = {row["team"]: row["shared_idle_nusd"] for row in shared["rows"]}
    assert sum(parts.values()) == shared["shared_idle_nusd"] == body["idle_nusd"]
    teams = {
        row["team"]: row["attributed_nusd"]
        for row in made.reader.get("/v1/teams/costs", params=RANGE).json()["rows"]
    }
    assert {
        row["team"]: row["attributed_nusd"] for row in shared["rows"] if row["attributed_nusd"]
    } == teams
    assert all(
        row["with_shared_idle_nusd"] == row["attributed_nusd"] + row["shared_idle_nusd"]
        for row in shared["rows"]
    )
    idle = body["idle_nusd"]
    if rule == "by_use":
        assert all(
            abs(parts[team] - idle * used / sum(teams.values())) < 1 for team, used in teams.items()
        )
    elif rule == "evenly":
        assert sorted(nusd for team, nusd in parts.items() if team) == sorted(
            (idle + left) // 3 for left in range(3)
        )
    else:
        assert {team: nusd for team, nusd in parts.items() if nusd} == {
            row["owner"]: row["idle_nusd"] for row in body["rows"]
        }
    run = runner(made.store, made.settings)
    assert (
        json.loads(run("owners", "idle", "--share", rule, *CLI_RANGE, "--json").stdout)[
            "shared_out"
        ]
        == shared
    )
    assert (
        f"shared out {rule}: {shared['says']}"
        in run("owners", "idle", "--share", rule, *CLI_RANGE).stdout
    )


def test_an_empty_range_has_no_rows(made: Api) -> None:
    asked = {"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z", "share": "by_use"}
    body = made.reader.get("/v1/owners/idle", params=asked).json()
    assert (body["rows"], body["idle_nusd"], body["shared_out"]["shared_idle_nusd"]) == ([], 0, 0)
    assert body["shared_out"]["rows"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scope": "fleet"}, "scope"),
        ({"key": None}, "key"),
        ({"scope": "default"}, "key"),
        ({"key": "a\0"}, "key"),
        ({"team": "x" * 257}, "team"),
        ({"cost_centre": ""}, "cost_centre"),
        ({"valid_from": "2026-02-01T00:10:00Z"}, "valid_from"),
    ],
)
def test_a_row_that_cannot_be_used_names_the_field(
    made: Api, change: dict[str, Any], field: str
) -> None:
    body = {
        "scope": "host",
        "key": "a",
        "team": "red",
        "valid_from": "2026-02-01T00:00:00Z",
        **change,
    }
    answer = made.client(KeyScope.ADMIN).post("/v1/owners", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert made.reader.get("/v1/owners").json() == {"owners": []}


def test_rows_are_listed_as_they_were_said_and_tenants_see_none(made: Api) -> None:
    run = runner(made.store, made.settings)
    said = run(
        "owners", "add", "node-1", "--team", "platform", "--cost-centre", "CC-4711"
    ).stdout.strip()
    assert said == "said: host node-1 belongs to platform of CC-4711 from 1970-01-01T00:00:00Z"
    run("owners", "add", "--scope", "default", "--cost-centre", "CC-1", "--from", "2026-02-02")
    listed = json.loads(run("owners", "list", "--json").stdout)
    assert listed == made.reader.get("/v1/owners").json()
    assert [
        (row["scope"], row["key"], row["team"], row["cost_centre"]) for row in listed["owners"]
    ] == [
        ("default", None, None, "CC-1"),
        ("host", "node-1", "platform", "CC-4711"),
    ]
    tenant = made.client(KeyScope.READ, tenant="tenant-00")
    assert [
        tenant.get(path, params=RANGE).status_code for path in ("/v1/owners", "/v1/owners/idle")
    ] == [403, 403]
    for group in ("team", "owner", "cost_centre"):
        assert tenant.get("/v1/costs", params={**RANGE, "group_by": group}).status_code == 403
