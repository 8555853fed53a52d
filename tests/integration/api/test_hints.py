"""Hints over a real mongod: a fleet made so that every kind of hint is right once, with the money
of its cells."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bench.synthetic_cells import Fleet

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.costs.rates import NewRate, append_rate
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.sentences import in_usd, with_unit, worded
from gpu_token_analytics.settings import Settings

from .conftest import Api, commands_at, served
from .test_api_commands import runner

START = datetime(2026, 2, 2, tzinfo=UTC)
LAST_DAY = START + timedelta(days=8)
NOW = LAST_DAY + timedelta(days=1, hours=3, minutes=20)
TO = NOW.replace(minute=0)
WEEK = TO - timedelta(days=7)
SPARE, LITTLE_A, LITTLE_B, DAYTIME, ODD = (f"GPU-{index:04d}" for index in range(5))
IDLE = ("warm_idle", "cold_idle")


def reshaped(cell: dict[str, Any]) -> dict[str, Any]:
    gpu, at = cell["gpu"], cell["minute"]
    is_last_day = LAST_DAY <= at < LAST_DAY + timedelta(days=1)
    share, model, rest = {
        SPARE: (0, None, "cold_idle"),
        LITTLE_A: (15, "model-1", "warm_idle"),
        LITTLE_B: (20, "model-2", "warm_idle"),
        DAYTIME: (60 if 8 <= at.hour < 20 else 0, "model-0", "warm_idle"),
        ODD: (50, "model-9", "unobserved" if is_last_day else "warm_idle"),
    }[gpu]
    cost = cell["cost_nusd"] * (2 if gpu == ODD and is_last_day else 1)
    used = cost * share // 100
    classes, times = dict.fromkeys(cell["classes"], 0), dict.fromkeys(cell["class_us"], 0)
    classes |= {"attributed": used, rest: cost - used}
    times |= {"attributed": 600_000 * share, rest: 60_000_000 - 600_000 * share}
    line = {
        "model": model,
        "tenant": "tenant-00",
        "method": "sweep",
        "requests": 1,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "completion_tokens": 10,
        "reasoning_tokens": 0,
        "cost_nusd": used,
        "prefill_cost_nusd": 0,
        "energy_mj": None,
        "busy_us": 1,
    }
    return cell | {
        "cost_nusd": cost,
        "classes": classes,
        "class_us": times,
        "lines": [line] if used else [],
    }


@pytest.fixture(scope="module")
def made(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    minutes = int((NOW - START).total_seconds()) // 60
    with served(
        *make_store(), Fleet(gpus=5, gpus_per_host=4), START, minutes, reshaped=reshaped
    ) as api:
        yield api


def money(api: Api, gpus: set[str], hours: set[int] | None = None, since: datetime = WEEK) -> int:
    """Warm and cold idle money of the cells, without the code under test."""
    chosen = [cell for cell in api.cells if cell["gpu"] in gpus and since <= cell["minute"] < TO]
    return sum(
        cell["classes"][name]
        for cell in chosen
        if hours is None or cell["minute"].hour in hours
        for name in IDLE
    )


def test_every_kind_of_hint_with_the_money_of_its_cells(made: Api) -> None:
    body = made.reader.get("/v1/hints").json()
    assert body["to"] == TO.isoformat().replace("+00:00", "Z")
    assert (body["gpus"], body["gpus_known"]) == (5, 4), "half of a day of one was not seen"
    found = {(hint["kind"], hint["subject"]): hint for hint in body["hints"]}
    assert set(found) == {
        ("give_back", SPARE),
        ("put_together", "host-00"),
        ("scale_down", "model-0"),
        ("price_jump", "NVIDIA L40S"),
        ("coverage_drop", "host-01"),
        ("spend_jump", "model-9"),
    }
    spare = found["give_back", SPARE]
    assert (spare["week_nusd"], spare["month_nusd"]) == (
        money(made, {SPARE}),
        money(made, {SPARE}, since=START),
    )
    together = found["put_together", "host-00"]
    assert together["gpus"] == [LITTLE_A, LITTLE_B]
    assert together["week_nusd"] == money(made, {LITTLE_A}), "the one that is used most stays"
    assert together["models"] == ["model-1", "model-2"]
    down = found["scale_down", "model-0"]
    night = [*range(20, 24), *range(8)]
    assert down["hours"] == night
    assert down["week_nusd"] == money(made, {DAYTIME}, set(night)) > 0
    assert down["month_nusd"] == money(made, {DAYTIME}, set(night), since=START)
    assert "from 20:00 to 08:00 (UTC)" in down["says"]
    assert found["price_jump", "NVIDIA L40S"]["value"] == pytest.approx(
        2 * found["price_jump", "NVIDIA L40S"]["before"], rel=1e-6
    )
    drop = found["coverage_drop", "host-01"]
    assert (drop["value"], drop["before"]) == (0.5, 1.0)
    assert "2026-02-10" in drop["says"]
    assert [hint["week_nusd"] for hint in body["hints"]] == sorted(
        (hint["week_nusd"] for hint in body["hints"]), reverse=True
    )
    assert {threshold["name"]: threshold["value"] for threshold in body["thresholds"]}[
        "little_used"
    ] == 0.25


def test_sentences_are_told_in_pieces_whose_amounts_can_be_converted(
    made: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands_at(NOW, monkeypatch)
    hints = made.reader.get("/v1/hints").json()["hints"]
    assert all(in_usd(hint["sentence"]) == hint["says"] for hint in hints)
    of_kind = {hint["kind"]: hint for hint in hints}
    jump, price = of_kind["spend_jump"], of_kind["price_jump"]
    assert jump["sentence"][1] == jump["week_nusd"] > 0
    assert price["sentence"][1::2] == [round(price[name] * 1e9) for name in ("value", "before")]
    new = NewRate(currency="EUR", units_per_usd=Decimal("0.5"), valid_from=START)
    append_rate(made.services.desk, new, "cli")
    text = runner(made.store, made.settings)("hints", "--wide", "--currency", "EUR").stdout
    for hint in (jump, price):
        assert hint["says"] not in text
        halved = worded(hint["sentence"], lambda nusd: with_unit(round(nusd / 2), "EUR"))
        assert halved in text
    assert "is known of 1 of 5 GPUs" in text
    made.store[Collection.EXCHANGE_RATES].delete_many({})


def test_hours_are_those_of_the_zone(made: Api) -> None:
    body = made.reader.get("/v1/hints", params={"time_zone": "Asia/Tokyo"}).json()
    (down,) = [hint for hint in body["hints"] if hint["kind"] == "scale_down"]
    assert down["hours"] == [*range(5, 17)]


def test_what_is_behind_a_hint_can_be_asked_for(made: Api) -> None:
    hints = made.reader.get("/v1/hints").json()["hints"]
    assert hints
    for hint in hints:
        answer = made.reader.get(hint["cells"])
        assert answer.status_code == 200, hint["cells"]
        body = answer.json()
        assert body.get("cells") or body.get("rows")
        assert all(cell["gpu"] in hint["gpus"] for cell in body.get("cells", ()))


def test_the_command_says_the_same_to_the_nano_dollar_and_tenants_see_none(
    made: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands_at(NOW, monkeypatch)
    run = runner(made.store, made.settings)
    told = made.reader.get("/v1/hints").json()
    assert len(told["hints"]) == 6
    assert json.loads(run("hints", "--json").stdout) == told
    rows = list(csv.DictReader(io.StringIO(run("hints", "--csv").stdout)))
    names = ("kind", "subject", "week_nusd", "month_nusd")
    assert [[row[name] for name in names] for row in rows] == [
        ["" if hint[name] is None else str(hint[name]) for name in names] for hint in told["hints"]
    ]
    assert made.client(KeyScope.READ, tenant="tenant-00").get("/v1/hints").status_code == 403


def test_an_empty_store_has_no_hints(make_store: Callable[[], tuple[Store, Settings]]) -> None:
    run = runner(*make_store())
    assert json.loads(run("hints", "--json").stdout)["hints"] == []
    assert "nothing stands out" in run("hints").stdout
