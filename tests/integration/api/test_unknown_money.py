"""Unknown money is null and a known 0 is 0, wherever the same requests are summed: by tenant, by
team, in a budget, in another currency, in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.api.services import Services

from .conftest import roll_all
from .test_api_commands import runner

HOUR = timedelta(hours=1)
# What each tenant's requests cost: on a GPU that costs nothing, on one that nobody knows, on the
# first in one hour and on the second in the next.
EXPECTED = {"free": 0, "lost": None, "both": 0, "both-empty": 0, "lost-empty": None}
START = (minutes_ago(0) - timedelta(days=1)).replace(hour=8, minute=0)
NOW = START + HOUR + 30 * MINUTE
RANGE = {"from": START.isoformat(), "to": (START + 2 * HOUR).isoformat()}


@pytest.fixture
def api(pipeline: Callable[..., Pipeline]) -> Iterator[tuple[httpx.Client, Pipeline]]:
    one = pipeline()
    events: list[Any] = [
        sample(at, START + at * 10 * timedelta(seconds=1), price_per_hour_usd=0.0)
        for at in range(30)
    ]
    unknown: dict[str, Any] = {"gpu_uuids": ["GPU-unknown"]}
    empty: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0}
    early, late = START + 2 * MINUTE, START + HOUR + 5 * MINUTE
    events += [
        usage(1, early, tenant="free"),
        usage(2, late, tenant="lost", **unknown),
        usage(3, early, tenant="both"),
        usage(4, late, tenant="both", **unknown),
        usage(5, early, tenant="both-empty", **empty),
        usage(6, late, tenant="both-empty", **unknown),
        usage(7, late, tenant="lost-empty", **unknown, **empty),
    ]
    one.ingest(events)
    one.close()
    roll_all(one.store)
    services = Services.of(one.store, one.settings)
    services.desk.now = lambda: NOW
    _, key = KeyStore(one.store.database).create(
        "all", frozenset((KeyScope.ADMIN,)), None, one.store.now()
    )
    with (
        serving(create_app(services)) as url,
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
        ) as client,
    ):
        yield client, one


def said(client: httpx.Client, path: str, **body: Any) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text


def test_every_sum_of_the_same_requests_is_known_or_is_not(
    api: tuple[httpx.Client, Pipeline],
) -> None:
    client, one = api
    for name in EXPECTED:
        said(client, "/v1/teams", tenant=name, team=f"of-{name}", valid_from="2020-01-01T00:00:00Z")
        limits = {"limit_usd": "1", "period": "day"}
        said(client, "/v1/budgets", name=f"tenant-{name}", scope="tenant", key=name, **limits)
        said(client, "/v1/budgets", name=f"team-{name}", scope="team", key=f"of-{name}", **limits)
    for since in (START - HOUR, START + HOUR):  # both hours are converted, each at its own rate
        said(client, "/v1/rates", currency="EUR", units_per_usd="0.9", valid_from=since.isoformat())

    def asked(path: str, **params: Any) -> Any:
        answer = client.get(path, params={**RANGE, **params})
        assert answer.status_code == 200, answer.text
        return answer.json()

    by_tenant = asked("/v1/costs", group_by="tenant")
    rows = {row["group"]["tenant"]: row["money"] for row in by_tenant["rows"]}
    assert {name: rows[name]["attributed_nusd"] for name in EXPECTED} == EXPECTED
    assert {name: rows[name]["total_nusd"] for name in EXPECTED} == EXPECTED

    in_euro = asked("/v1/costs/converted", group_by="tenant", currency="EUR")
    rows = {row["group"]["tenant"]: row["money"] for row in in_euro["rows"]}
    assert {name: rows[name]["attributed_nano"] for name in EXPECTED} == EXPECTED
    assert {name: rows[name]["total_nano"] for name in EXPECTED} == EXPECTED
    assert (in_euro["totals"]["attributed_nano"], in_euro["totals"]["total_nano"]) == (0, 0)
    table = runner(one.store, one.settings)(
        "report",
        "--by",
        "tenant",
        "--currency",
        "EUR",
        "--from",
        RANGE["from"],
        "--to",
        RANGE["to"],
    ).stdout
    shown = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if line.split()}
    for name, nusd in EXPECTED.items():
        assert shown[name] == (["-", "-"] if nusd is None else ["0.00", "0.00"]), table

    teams = asked("/v1/teams/costs")
    by_team = {row["team"]: row["attributed_nusd"] for row in teams["rows"]}
    assert by_team == {f"of-{name}": nusd for name, nusd in EXPECTED.items()}
    assert teams["attributed_nusd"] == 0

    budgets = {row["name"]: row for row in client.get("/v1/budgets").json()["budgets"]}
    for name, nusd in EXPECTED.items():
        for kind in ("tenant", "team"):
            budget = budgets[f"{kind}-{name}"]
            assert (budget["spent_nusd"], budget["used_share"]) == (nusd, nusd), budget

    exported = client.get(
        "/v1/export", params={**RANGE, "group_by": "tenant", "bucket": "1h", "currency": "EUR"}
    )
    money: dict[str, set[str]] = {}
    for line in csv.DictReader(io.StringIO(exported.text)):
        for column in ("attributed_nusd", "attributed_converted", "total_converted"):
            money.setdefault(line["tenant"], set()).add(line[column] and str(float(line[column])))
    assert {name: money[name] for name in EXPECTED} == {
        name: {""} if nusd is None else {"0.0"} if name == "free" else {"0.0", ""}
        for name, nusd in EXPECTED.items()
    }


def test_where_all_of_a_time_is_unknown_its_sums_are_null(
    api: tuple[httpx.Client, Pipeline],
) -> None:
    client, _ = api
    said(
        client, "/v1/rates", currency="EUR", units_per_usd="0.9", valid_from="2020-01-01T00:00:00Z"
    )
    late = {**RANGE, "from": (START + HOUR).isoformat(), "tenant": ["lost", "lost-empty"]}
    whole = client.get("/v1/costs", params=late).json()["totals"]["money"]
    euro = client.get("/v1/costs/converted", params={**late, "currency": "EUR"}).json()["totals"]
    teams = client.get("/v1/teams/costs", params={"from": late["from"], "to": late["to"]}).json()
    assert (whole["attributed_nusd"], whole["total_nusd"]) == (None, None)
    assert (euro["attributed_nano"], euro["total_nano"]) == (None, None)
    assert teams["attributed_nusd"] is None
