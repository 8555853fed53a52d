"""Sums agree everywhere, to the nano-dollar: any range, grouping and bucket, against a sum made
here from the cells."""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gpu_token_analytics.ledger.money import split_exactly

from .conftest import MINUTES, START, Api

CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")
DIMENSIONS = ("model", "tenant", "gpu", "host", "gpu_name", "class")
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York")
TOKENS = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "completion": "completion_tokens",
    "reasoning": "reasoning_tokens",
}

Key = tuple[Any, ...]


def warm_weights(
    cells: list[dict[str, Any]],
) -> dict[tuple[str, datetime], dict[tuple[str, str], int]]:
    """What was attributed on a GPU in a UTC hour, by model and tenant: the weights of its warm idle
    money."""
    found: dict[tuple[str, datetime], dict[tuple[str, str], int]] = defaultdict(
        lambda: defaultdict(int)
    )
    for cell in cells:
        for line in cell["lines"]:
            hour = cell["minute"].replace(minute=0)
            found[cell["gpu"], hour][line["model"], line["tenant"]] += line["cost_nusd"]
    return found


def warm_parts(
    amount: int, weights: Mapping[tuple[str, str], int]
) -> Iterator[tuple[str | None, str | None, int]]:
    """An oracle of its own: by model, then by tenant, largest remainder."""
    models = sorted({model for (model, _), cost in weights.items() if cost})
    if not models:
        yield None, None, amount
        return
    per_model = [
        sum(cost for (model, _), cost in weights.items() if model == name) for name in models
    ]
    for model, part in zip(models, split_exactly(amount, per_model), strict=True):
        tenants = sorted(
            tenant for (name, tenant), cost in weights.items() if name == model and cost
        )
        for tenant, nusd in zip(
            tenants, split_exactly(part, [weights[model, t] for t in tenants]), strict=True
        ):
            yield model, tenant, nusd


def oracle(
    cells: list[dict[str, Any]],
    start: datetime,
    end: datetime,
    group_by: tuple[str, ...],
    bucket: str,
    zone: str,
) -> tuple[dict[Key, dict[str, int]], dict[Key, dict[str, int]]]:
    """(money by class, tokens) of every group, straight from the cells."""
    weights = warm_weights(cells)
    money: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    tokens: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for cell in cells:
        if not start <= cell["minute"] < end:
            continue
        label = bucket_label(cell["minute"], bucket, zone)
        hour = cell["minute"].replace(minute=0)

        def key(
            model: str | None,
            tenant: str | None,
            name: str,
            cell: dict[str, Any] = cell,
            label: Any = label,
        ) -> Key:
            values = {"model": model, "tenant": tenant, "class": name} | {
                k: cell[k] for k in ("gpu", "host", "gpu_name")
            }
            return (label, *(values[dimension] for dimension in group_by))

        for line in cell["lines"]:
            at = key(line["model"], line["tenant"], "attributed")
            money[at]["attributed"] += line["cost_nusd"]
            for name, column in TOKENS.items():
                tokens[at][name] += line[column]
        for model, tenant, nusd in warm_parts(
            cell["classes"]["warm_idle"], weights[cell["gpu"], hour]
        ):
            money[key(model, tenant, "warm_idle")]["warm_idle"] += nusd
        for name in ("unmetered_work", "cold_idle", "unobserved"):
            money[key(None, None, name)][name] += cell["classes"][name]
    return money, tokens


def bucket_label(minute: datetime, bucket: str, zone: str) -> str | None:
    if bucket == "none":
        return None
    local = minute.astimezone(ZoneInfo(zone))
    if bucket == "1h":
        local = local.replace(minute=0)
    if bucket == "1d":
        local = local.replace(hour=0, minute=0)
    return local.isoformat()


def all_rows(api: Api, **params: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every page of /v1/costs, and the last body."""
    rows: list[dict[str, Any]] = []
    while True:
        answer = api.reader.get("/v1/costs", params=params)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        rows += body["rows"]
        if body["next"] is None:
            return rows, body
        params["cursor"] = body["next"]


def money_of(row: dict[str, Any]) -> dict[str, int]:
    return {name: row["money"][f"{name}_nusd"] for name in CLASSES if row["money"][f"{name}_nusd"]}


def cases() -> list[tuple[int, int, tuple[str, ...], str, str, int]]:
    rng = random.Random(20260131)
    found = []
    for _ in range(28):
        low, high = sorted(rng.sample(range(0, MINUTES + 1), 2))
        if rng.random() < 0.3:
            low, high = low // 60 * 60, high // 60 * 60 + 60
        group_by = tuple(rng.sample(DIMENSIONS, rng.randint(0, 4)))
        bucket = rng.choice(("none", "1h", "1d"))
        found.append(
            (
                low,
                min(high, MINUTES),
                group_by,
                bucket,
                rng.choice(ZONES),
                rng.choice((7, 100, 10_000)),
            )
        )
    return [case for case in found if case[0] < case[1]]


@pytest.mark.parametrize(("low", "high", "group_by", "bucket", "zone", "limit"), cases())
def test_costs_and_export_equal_the_cells(
    api: Api, low: int, high: int, group_by: tuple[str, ...], bucket: str, zone: str, limit: int
) -> None:
    start, end = START + timedelta(minutes=low), START + timedelta(minutes=high)
    money, tokens = oracle(api.cells, start, end, group_by, bucket, zone)
    params: dict[str, Any] = {
        "from": start.isoformat(),
        "to": end.isoformat(),
        "group_by": list(group_by),
        "bucket": bucket,
        "time_zone": zone,
    }
    pages = max(limit, len(money) // 12)
    rows, last = all_rows(api, **params, limit=pages)
    found = {(row["bucket"], *(row["group"][name] for name in group_by)): row for row in rows}
    assert len(found) == len(rows)
    for key, expected in money.items():
        if not any(expected.values()):
            continue
        assert money_of(found[key]) == {name: nusd for name, nusd in expected.items() if nusd}, key
    for key, row in found.items():
        assert money_of(row) == {name: nusd for name, nusd in money.get(key, {}).items() if nusd}, (
            key
        )
        assert {name: row["tokens"][name] for name in TOKENS if row["tokens"][name]} == {
            name: count for name, count in tokens.get(key, {}).items() if count
        }
        assert row["money"]["total_nusd"] == sum(money_of(row).values())
    whole = sum(cell["cost_nusd"] for cell in api.cells if start <= cell["minute"] < end)
    assert sum(row["money"]["total_nusd"] for row in rows) == whole
    assert last["totals"]["money"]["total_nusd"] == whole == last["scope"]["cost_nusd"]
    assert last["scope"]["left_out_nusd"] == 0
    for row in rows:  # time is owned by GPUs; a line of a model or tenant has none that is known
        of_lines = row["group"].get("model") or row["group"].get("tenant")
        assert (row["gpu_seconds"] is None) == bool(of_lines)
    assert sum(row["gpu_seconds"] or 0 for row in rows) == pytest.approx(
        60 * last["scope"]["cells"]
    )

    answer = api.reader.get("/v1/export", params={**params, "format": "csv"})
    assert answer.status_code == 200, answer.text
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(line["total_nusd"]) for line in lines] == [
        row["money"]["total_nusd"] for row in rows
    ]
    assert [int(line["prompt_tokens"]) for line in lines] == [
        row["tokens"]["prompt"] for row in rows
    ]


def test_minutes_sum_to_their_hours_and_days(api: Api) -> None:
    """Warm idle shares too: the weights are those of the whole hour whatever the bucket."""
    start, end = START + timedelta(hours=3), START + timedelta(hours=5)
    params = {"from": start.isoformat(), "to": end.isoformat(), "group_by": ["model", "tenant"]}
    by_minute, _ = all_rows(api, **params, bucket="1m", limit=10_000)
    whole, _ = all_rows(api, **params, bucket="none")
    summed: dict[Key, int] = defaultdict(int)
    for row in by_minute:
        summed[tuple(row["group"].values())] += row["money"]["warm_idle_nusd"]
    assert {key: nusd for key, nusd in summed.items() if nusd} == {
        tuple(row["group"].values()): row["money"]["warm_idle_nusd"]
        for row in whole
        if row["money"]["warm_idle_nusd"]
    }


def test_filters_leave_out_what_scope_says(api: Api) -> None:
    params = {"from": START.isoformat(), "to": (START + timedelta(days=1)).isoformat()}
    body = api.reader.get(
        "/v1/costs", params={**params, "model": "model-1", "group_by": "tenant"}
    ).json()
    cost = sum(
        cell["cost_nusd"] for cell in api.cells if cell["minute"] < START + timedelta(days=1)
    )
    attributed = sum(
        line["cost_nusd"]
        for cell in api.cells
        if cell["minute"] < START + timedelta(days=1)
        for line in cell["lines"]
        if line["model"] == "model-1"
    )
    assert body["scope"]["cost_nusd"] == cost
    assert body["totals"]["money"]["attributed_nusd"] == attributed
    assert body["scope"]["selected_nusd"] + body["scope"]["left_out_nusd"] == cost
    gpu = api.reader.get("/v1/costs", params={**params, "gpu": "GPU-0001"}).json()
    assert gpu["scope"]["cost_nusd"] == sum(
        c["cost_nusd"]
        for c in api.cells
        if c["gpu"] == "GPU-0001" and c["minute"] < START + timedelta(days=1)
    )
    warm = api.reader.get("/v1/costs", params={**params, "class": "warm_idle"}).json()
    assert warm["totals"]["money"]["total_nusd"] == sum(
        c["classes"]["warm_idle"] for c in api.cells if c["minute"] < START + timedelta(days=1)
    )


def test_the_audit_route_agrees(api: Api) -> None:
    params = {"from": START.isoformat(), "to": (START + timedelta(hours=49)).isoformat()}
    body = api.reader.get("/v1/audit", params=params).json()
    cost = sum(
        cell["cost_nusd"] for cell in api.cells if cell["minute"] < START + timedelta(hours=49)
    )
    assert body["holds"], body
    assert body["cost_nusd"] == sum(body["classes"].values()) == body["rollups_nusd"] == cost
    assert body["lines_nusd"] == body["classes"]["attributed"]
