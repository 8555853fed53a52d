"""Other currencies over a real mongod: each part of a range at the rate that held then, to a
billionth; files too."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.costs import report
from gpu_token_analytics.documents import Collection

from .conftest import NOW, START, Api
from .test_api_commands import runner

CHANGED = START + timedelta(days=1, hours=5)
RANGE = {"from": START.isoformat(), "to": NOW.isoformat()}
CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")


@pytest.fixture(autouse=True)
def _rates(api: Api) -> Iterator[None]:
    api.store[Collection.EXCHANGE_RATES].delete_many({})
    say(api, "EUR", "0.92", START - timedelta(days=3))
    say(api, "EUR", "0.873456789", CHANGED)
    yield
    api.store[Collection.EXCHANGE_RATES].delete_many({})


def say(api: Api, currency: str, units: str, at: Any) -> None:
    body = {"currency": currency, "units_per_usd": units, "valid_from": at.isoformat()}
    assert api.client(KeyScope.ADMIN).post("/v1/rates", json=body).status_code == 201


def in_euro(nusd: int, rate: str) -> int:
    return int((nusd * Decimal(rate)).to_integral_value(ROUND_HALF_EVEN))


def test_each_part_is_converted_at_the_rate_that_held_then(api: Api) -> None:
    asked = {"group_by": ["model", "tenant"]}
    expected: dict[tuple[Any, ...], dict[str, int]] = {}
    for low, high, rate in ((START, CHANGED, "0.92"), (CHANGED, NOW, "0.873456789")):
        span = {"from": low.isoformat(), "to": high.isoformat()}
        for row in api.reader.get("/v1/costs", params={**span, **asked, "limit": 10_000}).json()[
            "rows"
        ]:
            sums = expected.setdefault(tuple(row["group"].values()), dict.fromkeys(CLASSES, 0))
            for name in CLASSES:
                sums[name] += in_euro(row["money"][f"{name}_nusd"], rate)
    body = api.reader.get(
        "/v1/costs/converted", params={**RANGE, **asked, "currency": "EUR"}
    ).json()
    assert {
        tuple(row["group"].values()): {name: row["money"][f"{name}_nano"] for name in CLASSES}
        for row in body["rows"]
    } == expected
    for name in (*CLASSES, "total"):
        assert (
            sum(row["money"][f"{name}_nano"] for row in body["rows"])
            == body["totals"][f"{name}_nano"]
        )
    assert (
        body["totals"]["total_nano"] == sum(body["totals"][f"{name}_nano"] for name in CLASSES) > 0
    )
    assert [(rate["units_per_usd"], rate["from"]) for rate in body["rates"]] == [
        ("0.92", START.isoformat().replace("+00:00", "Z")),
        ("0.873456789", CHANGED.isoformat().replace("+00:00", "Z")),
    ]
    assert "half to even" in body["rounding"]
    run = runner(api.store, api.settings)
    words = (
        "report",
        "--by",
        "model,tenant",
        "--from",
        START.isoformat(),
        "--to",
        NOW.isoformat(),
        "--currency",
        "EUR",
    )
    assert json.loads(run(*words, "--json").stdout) == body
    shown = run(*words).stdout
    assert "1 USD = 0.92 EUR" in shown
    assert "rounded: " in shown


@pytest.mark.parametrize("layout", ["costs", "focus"])
def test_files_have_the_rate_of_each_hour(api: Api, layout: str) -> None:
    span = {
        "from": (CHANGED - timedelta(hours=2)).isoformat(),
        "to": (CHANGED + timedelta(hours=2)).isoformat(),
    }
    asked = {
        **span,
        "layout": layout,
        "currency": "EUR",
        **({"group_by": "model"} if layout == "costs" else {}),
    }
    rows = list(csv.DictReader(io.StringIO(api.reader.get("/v1/export", params=asked).text)))
    start, money, nusd, rate = {
        "costs": ("bucket_start", "total_converted", "total_nusd", "units_per_usd"),
        "focus": ("ChargePeriodStart", "BilledCost", "x_CostNanoUsd", "x_UnitsPerUsd"),
    }[layout]
    assert {Decimal(row[rate]) for row in rows} == {Decimal("0.92"), Decimal("0.873456789")}
    for row in rows:
        units = "0.92" if row[start] < CHANGED.isoformat() else "0.873456789"
        assert Decimal(row[rate]) == Decimal(units)
        assert abs(Decimal(row[money]).scaleb(9) - in_euro(int(row[nusd]), units)) <= 2, (
            "classes are rounded, then summed"
        )
        if layout == "focus":
            assert row["BillingCurrency"] == "EUR"
            assert (
                row["BilledCost"]
                == row["EffectiveCost"]
                == row["ListCost"]
                == row["ContractedCost"]
            )
        else:
            assert Decimal(row[money]) == sum(Decimal(row[f"{name}_converted"]) for name in CLASSES)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/costs/converted", {"currency": "JPY"}),
        (
            "/v1/costs/converted",
            {"currency": "EUR", "from": (START - timedelta(days=9)).isoformat()},
        ),
        ("/v1/costs/converted", {"currency": "euro"}),
        ("/v1/export", {"currency": "EUR", "bucket": "1d"}),
        ("/v1/export", {"currency": "JPY"}),
    ],
)
def test_what_cannot_be_converted_is_refused(api: Api, path: str, asked: dict[str, str]) -> None:
    answer = api.reader.get(path, params={**RANGE, **asked})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "currency")


@pytest.mark.parametrize("path", ["/v1/costs/converted", "/v1/costs/compared"])
def test_what_is_answered_at_once_has_a_most_of_groups(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    asked = {**RANGE, "group_by": ["model", "tenant"]}
    if path.endswith("converted"):
        asked["currency"] = "EUR"
    groups = len(api.reader.get(path, params=asked).json()["rows"])
    monkeypatch.setattr(report, "MAX_GROUPS", groups)
    assert api.reader.get(path, params=asked).status_code == 200
    monkeypatch.setattr(report, "MAX_GROUPS", groups - 1)
    answer = api.reader.get(path, params=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, "range_too_long")
    assert f"more than {groups - 1:,} groups" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"currency": "USD"}, "currency"),
        ({"currency": "eur"}, "currency"),
        ({"units_per_usd": "0"}, "units_per_usd"),
        ({"units_per_usd": "-1"}, "units_per_usd"),
        ({"units_per_usd": "NaN"}, "units_per_usd"),
        ({"valid_from": "2026-01-01T00:30:00Z"}, "valid_from"),
    ],
)
def test_a_rate_that_cannot_be_used_names_the_field(
    api: Api, change: dict[str, str], field: str
) -> None:
    body = {
        "currency": "EUR",
        "units_per_usd": "0.9",
        "valid_from": "2026-01-01T00:00:00Z",
        **change,
    }
    answer = api.client(KeyScope.ADMIN).post("/v1/rates", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert len(api.reader.get("/v1/rates").json()["rates"]) == 2


def test_rates_are_listed_as_they_were_said(api: Api) -> None:
    run = runner(api.store, api.settings)
    assert (
        run("rates", "add", "JPY", "150.12").stdout.strip()
        == "said: a USD is worth 150.12 JPY from 1970-01-01T00:00:00Z"
    )
    assert json.loads(run("rates", "list", "--json").stdout) == api.reader.get("/v1/rates").json()
    assert api.client(KeyScope.READ, tenant="tenant-00").get("/v1/rates").status_code == 200
    mine = (
        api.client(KeyScope.READ, tenant="tenant-00")
        .get("/v1/costs/converted", params={**RANGE, "currency": "JPY"})
        .json()
    )
    (row,) = [
        row
        for row in api.reader.get("/v1/costs", params={**RANGE, "group_by": "tenant"}).json()[
            "rows"
        ]
        if row["group"]["tenant"] == "tenant-00"
    ]
    assert mine["totals"]["total_nano"] == in_euro(row["money"]["attributed_nusd"], "150.12")
