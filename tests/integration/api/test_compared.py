"""A range beside the period before it, over a real mongod: both are what /v1/costs says of each."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.api.keys import KeyScope

from .conftest import NOW, START, Api
from .test_api_commands import runner

DAY = {
    "from": (START + timedelta(days=1)).isoformat(),
    "to": (START + timedelta(days=2)).isoformat(),
}


def rows_of(api: Api, **asked: Any) -> dict[tuple[Any, ...], Any]:
    body = api.reader.get("/v1/costs", params=asked).json()
    assert body["next"] is None
    return {tuple(row["group"].values()): row for row in body["rows"]}


def test_both_periods_are_what_costs_say_of_each(api: Api) -> None:
    for group_by in (["model"], ["class"], ["gpu", "tenant"]):
        body = api.reader.get("/v1/costs/compared", params={**DAY, "group_by": group_by}).json()
        before = {"from": body["before_from"], "to": body["before_to"]}
        assert [datetime.fromisoformat(at) for at in before.values()] == [
            START,
            START + timedelta(days=1),
        ]
        now_rows, before_rows = (
            rows_of(api, **DAY, group_by=group_by),
            rows_of(api, **before, group_by=group_by),
        )
        assert {
            tuple(row["group"].values()) for row in body["rows"]
        } == now_rows.keys() | before_rows.keys()
        for row in body["rows"]:
            key = tuple(row["group"].values())
            assert row["money"] == now_rows.get(key, {}).get("money")
            assert row["before"] == before_rows.get(key, {}).get("money")
            assert row["tokens"] == now_rows[key]["tokens"]["total"]
        assert (
            sum(row["changed_nusd"] for row in body["rows"]) == body["totals"]["changed_nusd"] != 0
        )
        whole = body["totals"]
        assert whole["changed_nusd"] == whole["money"]["total_nusd"] - whole["before"]["total_nusd"]
        assert whole["changed_share"] == whole["changed_nusd"] / whole["before"]["total_nusd"]


def test_the_command_says_the_same_and_takes_periods_by_name(api: Api) -> None:
    run = runner(api.store, api.settings)
    day = f"{START + timedelta(days=1):%Y-%m-%d}"
    said = json.loads(run("report", "--compare", "--period", day, "--json").stdout)
    assert said == api.reader.get("/v1/costs/compared", params={**DAY, "group_by": "model"}).json()
    shown = run("report", "--compare", "--period", day).stdout
    assert "before" in shown
    assert "total" in shown
    assert run("report", "--compare", "--period", day, "--csv").stdout.startswith(
        "group.model,money.attributed_nusd,"
    )
    refused = run("report", "--period", "last-year", fails=True)
    assert "period='last-year' is none" in str(refused.exception)


def test_what_was_not_there_before_has_no_money_before(api: Api) -> None:
    first = {
        "from": START.isoformat(),
        "to": (START + timedelta(days=1)).isoformat(),
        "group_by": "model",
    }
    body = api.reader.get("/v1/costs/compared", params=first).json()
    assert all(row["before"] is None and row["changed_share"] is None for row in body["rows"])
    assert body["totals"]["before"]["total_nusd"] == 0
    empty = {"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"}
    assert api.reader.get("/v1/costs/compared", params=empty).json()["rows"] == []


def test_a_tenants_key_compares_its_own(api: Api) -> None:
    mine = (
        api.client(KeyScope.READ, tenant="tenant-00")
        .get("/v1/costs/compared", params={**DAY, "group_by": "model"})
        .json()
    )
    (row,) = [
        row
        for row in rows_of(api, **DAY, group_by="tenant").values()
        if row["group"]["tenant"] == "tenant-00"
    ]
    assert mine["totals"]["money"]["total_nusd"] == row["money"]["attributed_nusd"]
    assert NOW > START
