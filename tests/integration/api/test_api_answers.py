"""What every route answers: the declared shape, problems for everything else, and figures that mean
what they say."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from bench.synthetic_cells import Fleet
from tests.conftest import ROOT

from gpu_token_analytics.api.errors import CODES
from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.problem import Problem
from gpu_token_analytics.api.routes import ROUTES
from gpu_token_analytics.costs import answers as m
from gpu_token_analytics.costs.focus import COLUMNS
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.usage import TokenUsage

from .conftest import FLEET, MINUTES, NOW, START, Api, served

RANGE = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
GOOD: list[tuple[str, dict[str, Any], type[Any]]] = [
    ("/v1/me", {}, m.Me),
    (
        "/v1/costs",
        {**RANGE, "group_by": ["model", "class"], "bucket": "1h", "limit": 3},
        m.CostsResponse,
    ),
    ("/v1/costs", {**RANGE, "group_by": ["gpu", "host", "gpu_name"]}, m.CostsResponse),
    ("/v1/costs", {"from": "2020-01-01T00:00Z", "to": "2020-01-02T00:00Z"}, m.CostsResponse),
    ("/v1/dimensions", RANGE, m.DimensionsResponse),
    (
        "/v1/break-even",
        {**RANGE, "api_usd_per_million": 0.6, "usd_per_gpu_hour": 1.3},
        m.BreakEvenResponse,
    ),
    (
        "/v1/break-even",
        {"from": "2020-01-01T00:00Z", "to": "2020-01-02T00:00Z", "api_usd_per_million": 0},
        m.BreakEvenResponse,
    ),
    ("/v1/gpus", {"time_zone": "Asia/Kolkata"}, m.GpusResponse),
    ("/v1/gpus", {"limit": 1}, m.GpusResponse),
    ("/v1/requests", {**RANGE, "gpu": "GPU-0000"}, m.RequestsResponse),
    ("/v1/ledger/cells", {**RANGE, "limit": 5}, m.CellsResponse),
    ("/v1/ledger/corrections", RANGE, m.CorrectionsResponse),
    ("/v1/audit", RANGE, m.AuditResponse),
    ("/v1/quality", RANGE, m.QualityResponse),
    ("/v1/prices", {}, m.PricesResponse),
]


@pytest.mark.parametrize(("path", "params", "model"), GOOD)
def test_answers_have_the_declared_shape(
    api: Api, path: str, params: dict[str, Any], model: type[Any]
) -> None:
    answer = api.reader.get(path, params=params)
    assert answer.status_code == 200, answer.text
    msgspec.json.decode(answer.text, type=model)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/costs", {}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "bucket": "5m"}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "time_zone": "Mars/Olympus"}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "group_by": ["model", "model"]}, "invalid_parameter"),
    ("/v1/costs", {"from": RANGE["to"], "to": RANGE["from"]}, "invalid_range"),
    ("/v1/costs", {**RANGE, "from": "2026-01-30T00:00:01Z"}, "invalid_range"),
    ("/v1/costs", {**RANGE, "from": "0001-01-01T00:00:00+14:00"}, "invalid_range"),
    ("/v1/costs", {**RANGE, "from": "2026-01-30T00:00:00"}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "limit": 0}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "limit": ["5", "6"]}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "bucket": ["1h", "1h"]}, "invalid_parameter"),
    ("/v1/costs", {**RANGE, "cursor": "AAAA"}, "invalid_cursor"),
    ("/v1/costs", {**RANGE, "cursor": "W10"}, "invalid_cursor"),
    (
        "/v1/costs",
        {"from": "2020-01-01T00:00Z", "to": "2026-01-01T00:00Z", "bucket": "1m"},
        "range_too_long",
    ),
    ("/v1/gpus", {"cursor": "WyJ4Il0"}, "invalid_cursor"),
    ("/v1/prices", {"cursor": "WyJ4Il0"}, "invalid_cursor"),
    ("/v1/ledger/cells", {**RANGE, "cursor": "WyJ4IiwieSJd"}, "invalid_cursor"),
    (
        "/v1/requests",
        {"from": "2026-01-01T00:00Z", "to": "2026-01-03T00:00Z", "gpu": "x"},
        "range_too_long",
    ),
    ("/v1/requests/unknown", {}, "not_found"),
    ("/v1/nothing", {}, "not_found"),
    ("/v1/export", {**RANGE, "layout": "focus", "group_by": "model"}, "invalid_parameter"),
]


@pytest.mark.parametrize(("path", "params", "code"), BAD)
def test_errors_are_problems_that_name_the_field(
    api: Api, path: str, params: dict[str, Any], code: str
) -> None:
    answer = api.reader.get(path, params=params)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(answer.text)
    assert (problem.code, problem.status) == (code, answer.status_code)
    assert problem.status == CODES[code][0]
    assert problem.instance == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


def test_a_wrong_method_is_a_problem(api: Api) -> None:
    answer = api.reader.delete("/v1/costs")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "params",
    [
        {"from": "2020-01-01T00:00Z", "to": "2026-01-01T00:00Z", "bucket": "1m"},
        {"from": "2015-01-01T00:00Z", "to": "2026-01-01T00:00Z", "bucket": "1h", "group_by": "gpu"},
        {
            "from": "2020-01-01T00:00Z",
            "to": "2026-01-01T00:00Z",
            "bucket": "1h",
            "time_zone": "Asia/Kolkata",
        },
        {"from": "2015-01-01T00:30Z", "to": "2099-01-01T00:00Z", "bucket": "1h"},
    ],
)
def test_the_nearest_range_is_accepted(api: Api, params: dict[str, Any]) -> None:
    refused = api.reader.get("/v1/costs", params=params)
    assert refused.status_code == 400, refused.text
    nearest = refused.json()["nearest"]
    assert api.reader.get("/v1/costs", params={**params, **nearest, "limit": 1}).status_code == 200


def test_an_unexpected_error_shows_no_insides(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(api.services.desk.prices, "rows", broken)
    answer = api.reader.get("/v1/prices")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


def test_ratios_are_sums_over_sums_and_null_without_tokens(api: Api) -> None:
    body = api.reader.get("/v1/costs", params={**RANGE, "group_by": "model"}).json()
    for row in body["rows"]:
        money, tokens, rates = row["money"], row["tokens"]["total"], row["rates"]
        if not tokens:
            assert rates["active_usd_per_million"] is None
            continue
        assert rates["active_usd_per_million"] == pytest.approx(
            money["attributed_nusd"] / tokens / 1000
        )
        loaded = (money["attributed_nusd"] + money["warm_idle_nusd"]) / tokens / 1000
        assert rates["loaded_usd_per_million"] == pytest.approx(loaded)
        assert rates["tokens_per_second"] == pytest.approx(tokens / (3 * 3600))
    sweeps = [
        line
        for cell in api.cells
        if cell["minute"] < START + timedelta(hours=3)
        for line in cell["lines"]
        if line["method"] == "sweep"
    ]
    prefill, cost = (
        sum(line[name] for line in sweeps) for name in ("prefill_cost_nusd", "cost_nusd")
    )
    prompt, completion = (
        sum(line[name] for line in sweeps) for name in ("prompt_tokens", "completion_tokens")
    )
    assert body["totals"]["rates"]["input_usd_per_million"] == pytest.approx(
        prefill / prompt / 1000
    )
    assert body["totals"]["rates"]["output_usd_per_million"] == pytest.approx(
        (cost - prefill) / completion / 1000
    )
    empty = api.reader.get(
        "/v1/costs", params={"from": "2020-01-01T00:00Z", "to": "2020-01-02T00:00Z"}
    ).json()["totals"]
    assert set(empty["rates"].values()) == {None, 0.0}
    assert empty["quality"]["coverage"] is None


def test_cells_become_final_by_time_alone(api: Api) -> None:
    """The rollups were made when the cells were younger; the clock of the answer decides."""
    first = {"from": START.isoformat(), "to": (START + timedelta(hours=1)).isoformat()}
    last = {"from": (NOW - timedelta(hours=1)).isoformat(), "to": NOW.isoformat()}
    assert (
        api.reader.get("/v1/costs", params=first).json()["totals"]["quality"]["provisional"]
        is False
    )
    assert (
        api.reader.get("/v1/costs", params=last).json()["totals"]["quality"]["provisional"] is True
    )


def test_cells_are_paged_once_each(api: Api) -> None:
    params: dict[str, Any] = {
        "from": START.isoformat(),
        "to": (START + timedelta(minutes=9)).isoformat(),
        "limit": 7,
    }
    seen: list[str] = []
    while True:
        body = api.reader.get("/v1/ledger/cells", params=params).json()
        seen += [cell["cell"] for cell in body["cells"]]
        if body["next"] is None:
            break
        params["cursor"] = body["next"]
    assert len(seen) == len(set(seen)) == 9 * FLEET.gpus


@pytest.mark.parametrize(
    ("path", "asked", "other"),
    [
        ("/v1/ledger/cells", {}, {"from": (START + timedelta(minutes=30)).isoformat()}),
        ("/v1/ledger/cells", {}, {"to": (START + timedelta(minutes=1)).isoformat()}),
        ("/v1/costs", {"group_by": "model"}, {"group_by": "tenant"}),
        ("/v1/costs", {"group_by": "model"}, {"group_by": ["model", "tenant"]}),
        ("/v1/costs", {"group_by": "model", "bucket": "1h"}, {"bucket": "1d"}),
        ("/v1/costs", {"bucket": "1h"}, {"from": (START + timedelta(hours=2)).isoformat()}),
    ],
)
def test_a_cursor_of_another_question_leaves_nothing_out_silently(
    api: Api, path: str, asked: dict[str, Any], other: dict[str, Any]
) -> None:
    params = {**RANGE, **asked, "limit": 5 if path == "/v1/ledger/cells" else 1}
    following = api.reader.get(path, params=params).json()["next"]
    assert api.reader.get(path, params={**params, "cursor": following}).status_code == 200
    answer = api.reader.get(path, params={**params, **other, "cursor": following})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), answer.text


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/v1/ledger/cells", (RANGE["from"], "\ud800")),
        ("/v1/ledger/corrections", (RANGE["from"], "\ud800")),
        ("/v1/costs", ("NONE,model", RANGE["from"], ["\ud800"], 1)),
        ("/v1/gpus", ("\ud800",)),
    ],
)
def test_half_a_character_in_a_cursor_is_refused(
    api: Api, path: str, parts: tuple[Any, ...]
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
    params = {"cursor": cursor} | ({} if path == "/v1/gpus" else RANGE)
    params |= {"group_by": "model"} if path == "/v1/costs" else {}
    assert api.reader.get(path, params=params).json()["code"] == "invalid_cursor"


def test_the_dearest_groups_come_first_bucket_by_bucket(api: Api) -> None:
    params: dict[str, Any] = {
        "from": START.isoformat(),
        "to": (START + timedelta(hours=5)).isoformat(),
        "group_by": ["model", "tenant"],
    }
    every = api.reader.get("/v1/costs", params=params).json()
    body = api.reader.get("/v1/costs", params={**params, "top": 3}).json()
    dearest = sorted(every["rows"], key=lambda row: -row["money"]["total_nusd"])
    assert body["rows"] == dearest[:3]
    assert body["totals"] == every["totals"]
    assert body["next"] is None
    assert body["row_count"] == every["row_count"] == len(every["rows"]) > 3
    assert api.reader.get("/v1/costs", params={**params, "limit": 2}).json()["row_count"] is None
    hourly = {**params, "bucket": "1h"}
    hours = api.reader.get("/v1/costs", params=hourly).json()
    ranked = sorted(hours["rows"], key=lambda row: (row["bucket"], -row["money"]["total_nusd"]))
    first = api.reader.get("/v1/costs", params={**hourly, "top": 7}).json()
    assert first["rows"] == ranked[:7]
    assert first["totals"] == hours["totals"]
    refusals: list[dict[str, Any]] = [
        {"top": 0},
        {"top": 3, "cursor": "WzFd"},
    ]
    for refused in refusals:
        answer = api.reader.get("/v1/costs", params={**params, **refused})
        assert answer.status_code in {400, 422}, answer.text
        assert "top" in answer.json()["detail"], answer.text


# Those of 1.2, and those that 1.3 added.
FOCUS_SPEC: dict[str, dict[str, Any]] = {
    name: rule
    for version in ("1_2", "1_3")
    for name, rule in json.loads(
        (Path(__file__).parent / f"focus_{version}_columns.json").read_text()
    ).items()
}
# Conditional or recommended, and their condition is not met; costs/focus.py says why.
FOCUS_LEFT_OUT = {
    *("AvailabilityZone", "RegionId", "RegionName"),
    *("BillingAccountType", "SubAccountType"),
    *(
        f"CommitmentDiscount{name}"
        for name in ("Category", "Id", "Name", "Quantity", "Type", "Unit")
    ),
    *("ContractedUnitPrice", "ListUnitPrice"),
    *(
        "PricingCurrency",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
    ),
}


def test_focus_columns_have_the_types_of_the_specification(api: Api, tmp_path: Path) -> None:
    """FOCUS 1.2, specification/columns: presence and data types, as a Parquet file shows them."""
    import pyarrow.parquet as pq

    path = tmp_path / "focus.parquet"
    path.write_bytes(
        api.reader.get(
            "/v1/export", params={**RANGE, "layout": "focus", "format": "parquet"}
        ).content
    )
    found = pq.read_table(path)
    names = [column.name for column in COLUMNS]
    assert found.column_names == names
    standard = [name for name in names if not name.startswith("x_")]
    assert set(standard) == set(FOCUS_SPEC) - FOCUS_LEFT_OUT
    assert standard == sorted(standard)
    assert not {name for name in FOCUS_LEFT_OUT if FOCUS_SPEC[name]["level"] == "Mandatory"}
    types = {
        "String": "string",
        "JSON": "string",
        "Decimal": "decimal128(38, 9)",
        "Date/Time": "timestamp[ms, tz=UTC]",
    }
    for name in standard:
        assert str(found.schema.field(name).type) == types[FOCUS_SPEC[name]["type"]], name


def test_focus_rows_keep_the_rules_of_the_specification(api: Api) -> None:
    """FOCUS 1.2, specification/columns: allowed values, nulls only where allowed, keys of JSON; and
    costs are exact."""
    answer = api.reader.get("/v1/export", params={**RANGE, "layout": "focus"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    for row in rows:
        assert (row["ChargeCategory"], row["ChargeClass"]) == ("Usage", "")
        for name, rule in FOCUS_SPEC.items():
            if name in row:
                assert row[name] != "" or (rule["nullable"] and "not_null_for_usage" not in rule), (
                    name
                )
                assert row[name] == "" or row[name] in rule.get("values", [row[name]]), name
        # The cells of these tests are all paid for on demand.
        assert (row["PricingCategory"], row["SkuPriceId"]) == (
            "Standard",
            f"{row['SkuId']}/on_demand",
        )
        assert json.loads(row["SkuPriceDetails"]) == {"GpuCount": 1, "x_PricingMode": "on_demand"}
        for name in ("ResourceType", "ResourceName"):
            assert (row["ResourceId"] == "") <= (row[name] == ""), name
        assert (row["SubAccountId"] == "") == (row["SubAccountName"] == "")
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        assert row["ChargePeriodStart"].endswith("00:00Z")
        assert (row["CapacityReservationStatus"] == "") == (row["CapacityReservationId"] == "")
        allocated = json.loads(row["AllocatedTags"] or "{}")
        assert not allocated.keys() & json.loads(row["Tags"]).keys()
        assert len({row[name] == "" for name in row if name.startswith("Allocated")}) == 1
    shares: dict[tuple[str, ...], float] = defaultdict(float)
    for row in rows:
        if row["AllocatedMethodDetails"]:
            (element,) = json.loads(row["AllocatedMethodDetails"])["Elements"]
            origin = (row["ResourceId"], row["ChargePeriodStart"], row["x_MoneyClass"])
            shares[origin] += element["AllocatedRatio"]
    assert len(shares) > 10
    assert all(math.isclose(share, 1) for share in shares.values())
    within = [cell for cell in api.cells if cell["minute"] < START + timedelta(hours=3)]
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(
        sum(c["cost_nusd"] for c in within)
    ).scaleb(-9)
    hours = sum(Decimal(row["PricingQuantity"]) for row in rows)
    assert abs(hours - Decimal(len(within)) / 60) < Decimal("1e-6")
    tokens = sum(
        line["prompt_tokens"] + line["completion_tokens"]
        for cell in within
        for line in cell["lines"]
    )
    assert sum(Decimal(row["ConsumedQuantity"]) for row in rows) == tokens


def test_parquet_holds_what_csv_holds(api: Api, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    params = {**RANGE, "group_by": ["gpu", "model", "tenant"], "bucket": "1m"}
    path = tmp_path / "rows.parquet"
    path.write_bytes(api.reader.get("/v1/export", params={**params, "format": "parquet"}).content)
    found = pq.read_table(path)
    rows = list(csv.DictReader(io.StringIO(api.reader.get("/v1/export", params=params).text)))
    assert found.num_rows == len(rows)
    assert sum(found.column("total_nusd").to_pylist()) == sum(
        int(row["total_nusd"]) for row in rows
    )
    assert found.column("model").to_pylist() == [row["model"] or None for row in rows]


def test_names_that_a_spreadsheet_would_run_are_text() -> None:
    from gpu_token_analytics.costs.files import Column, ColumnKind, csv_chunks

    columns = [Column("model", ColumnKind.TEXT), Column("n", ColumnKind.INTEGER)]
    text = b"".join(
        csv_chunks(columns, [["=cmd|' /C calc'!A0", -1], ["-1", 0], [None, None], ["plain", 2]])
    )
    assert text.decode().splitlines() == [
        "model,n",
        "'=cmd|' /C calc'!A0,-1",
        "'-1,0",
        ",",
        "plain,2",
    ]


def usage(number: int, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "event_id": f"event-{number}",
        "ts": START + timedelta(minutes=1),
        "host": "host-00",
        "model": "model-1",
        "request_id": f"r-{number}",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "gpu_uuids": ["GPU-0000"],
        "tenant": "tenant-01",
    }
    return encode(TokenUsage(**{**fields, **changes}))


def test_events_reach_kafka_byte_for_byte_before_the_answer(api: Api) -> None:
    client = api.client(KeyScope.INGEST)
    records = [usage(1), usage(2, host="host-01")]
    odd = b'{ "schema":"token.usage.v1", ' + usage(3)[len(b'{"schema":"token.usage.v1",') :]
    bodies = [
        (records[0], "application/json", 1),
        (b"[" + b", ".join([*records, odd]) + b"]", "application/json", 3),
        (b"\n".join(records) + b"\n\n", "application/x-ndjson", 2),
    ]
    for body, kind, count in bodies:
        api.sink.records.clear()
        flushes = len(api.sink.flushes)
        answer = client.post("/v1/events", content=body, headers={"Content-Type": kind})
        assert answer.json() == {"accepted": count, "rejected": 0, "errors": [], "warnings": []}
        assert len(api.sink.records) == count
        assert len(api.sink.flushes) == flushes + 1
    api.sink.records.clear()
    client.post(
        "/v1/events", content=b"[" + odd + b"]", headers={"Content-Type": "application/json"}
    )
    assert api.sink.records == [("host-00", odd)]


def test_bad_records_are_named_and_the_good_ones_sent(api: Api) -> None:
    api.sink.records.clear()
    body = b"\n".join(
        [
            usage(1),
            b"{nonsense",
            usage(2, cached_tokens=9).replace(b'"cached_tokens":9', b'"cached_tokens":99'),
        ]
    )
    answer = api.client(KeyScope.INGEST).post(
        "/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"}
    )
    found = msgspec.json.decode(answer.text, type=m.EventsResponse)
    assert (found.accepted, found.rejected) == (1, 2)
    assert [(error.index, error.reason, error.field) for error in found.errors] == [
        (1, "not_json", None),
        (2, "inconsistent", "cached_tokens"),
    ]
    assert len(api.sink.records) == 1


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "application/json", 422, "invalid_body"),
        (b"[]", "application/json", 422, "invalid_body"),
        (b"[1, 2", "application/json", 422, "invalid_body"),
        (b"[" * 100_000, "application/json", 422, "invalid_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/json", 422, "all_records_invalid"),
        (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413, "too_many_records"),
        (b" " * (8 * 1024 * 1024 + 1), "application/json", 413, "body_too_large"),
    ],
)
def test_bodies_that_cannot_be_used(
    api: Api, content: bytes, kind: str, status: int, code: str
) -> None:
    api.sink.records.clear()
    answer = api.client(KeyScope.INGEST).post(
        "/v1/events", content=content, headers={"Content-Type": kind}
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not api.sink.records


def test_a_chunked_body_is_counted_too(api: Api) -> None:
    def endless() -> Any:
        for _ in range(200):
            yield b"x" * 65_536

    client = api.client(KeyScope.ADMIN)
    try:
        answer = client.post(
            "/v1/prices", content=endless(), headers={"Content-Type": "application/json"}
        )
    except (httpx.WriteError, httpx.ReadError):
        return  # the server answered and closed while we were still sending
    assert answer.status_code == 413


def test_a_tenants_key_sends_only_its_own(api: Api) -> None:
    client = api.client(KeyScope.INGEST, tenant="tenant-01")
    api.sink.records.clear()
    body = b"\n".join([usage(1), usage(2, tenant="tenant-02"), usage(3, tenant="default")])
    answer = client.post(
        "/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"}
    ).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 2)
    assert {error["status"] for error in answer["errors"]} == {"forbidden"}
    sample = (
        b'{"schema":"gpu.metrics.v1","event_id":"s","ts":"2026-01-30T00:00:00Z","host":"h",'
        b'"gpu_index":0,"source":"seed"}'
    )
    refused = client.post(
        "/v1/events", content=sample, headers={"Content-Type": "application/json"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "all_records_invalid")
    assert len(api.sink.records) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"scope": "name", "key": "NVIDIA L40S"}, 201),
        ({"scope": "name"}, 422),
        ({"key": "x"}, 422),
        ({"usd_per_hour": "-1"}, 422),
        ({"usd_per_hour": "NaN"}, 422),
        ({"usd_per_hour": "0.0000000001"}, 422),
        ({"valid_to": "2025-01-01T00:00:00Z"}, 422),
        ({"usd_per_kwh": "0.3"}, 422),
        ({"mode": "owned", "usd_per_kwh": "0.3", "pue": 1.2}, 201),
        ({"surprise": 1}, 422),
    ],
)
def test_price_rows_are_checked_and_appended(api: Api, change: dict[str, Any], status: int) -> None:
    row = {
        "scope": "default",
        "usd_per_hour": "2.49",
        "valid_from": "2026-01-01T00:00:00Z",
        **change,
    }
    answer = api.client(KeyScope.ADMIN).post("/v1/prices", json=row)
    assert answer.status_code == status, answer.text
    if status == 201:
        price = msgspec.json.decode(answer.text, type=m.Price)
        assert (price.usd_per_hour, price.pending, price.source) == ("2.49", True, "api")
        listed = api.reader.get("/v1/prices").json()["prices"]
        assert price.id in {item["id"] for item in listed}


def test_gpus_show_unknown_as_unknown(api: Api) -> None:
    body = msgspec.json.decode(api.reader.get("/v1/gpus").text, type=m.GpusResponse)
    assert [gpu.gpu for gpu in body.gpus] == [FLEET.gpu(index)[0] for index in range(FLEET.gpus)]
    first = body.gpus[0]
    # no sample is stored
    assert (first.state, first.utilization, first.power_w) == ("silent", None, None)
    assert first.today is not None
    assert len([one for one in first.newest_minutes if one]) == 60
    today = [
        c for c in api.cells if c["gpu"] == first.gpu and c["minute"] >= START + timedelta(days=2)
    ]
    assert len(today) == MINUTES - 2 * 1440
    assert first.today.total_nusd == sum(cell["cost_nusd"] for cell in today)


def test_break_even_against_a_price_list_bills_every_kind_of_token(api: Api) -> None:
    prices = {"model-0": (0.1, 0.05, 0.4), "*": (60.0, 30.0, 240.0)}
    listed = [f"{model}={'/'.join(map(str, amounts))}" for model, amounts in prices.items()]
    answer = api.reader.get("/v1/break-even", params={**RANGE, "price": listed}).json()
    rows_of = api.reader.get("/v1/costs", params={**RANGE, "group_by": "model"}).json()["rows"]
    costs = {
        row["group"]["model"]: row["tokens"] for row in rows_of if row["group"]["model"] is not None
    }
    bills = {}
    for model, tokens in costs.items():
        fresh, cached, output = prices.get(model, prices["*"])
        bills[model] = (
            (tokens["prompt"] - tokens["cached"]) * fresh
            + tokens["cached"] * cached
            + tokens["completion"] * output
        )
    rows = {row["model"]: row for row in answer["rows"]}
    for model, bill in bills.items():
        row = rows[model]
        assert row["api_usd_per_million"] == pytest.approx(bill / costs[model]["total"])
        assert row["own_wins"] == (row["own_usd_per_million"] < row["api_usd_per_million"])
        assert row["says"].startswith(
            f"{'Own GPUs win' if row['own_wins'] else 'The API wins'} for {model}: "
        )
        assert " tokens an hour" in row["says"]
    assert {row["own_wins"] for row in rows.values()} == {True, False}
    assert rows["model-0"]["input_usd_per_million"] == 0.1
    whole = sum(tokens["total"] for tokens in costs.values())
    assert rows[None]["api_usd_per_million"] == pytest.approx(sum(bills.values()) / whole)
    assert " a GPU-hour instead of " in rows["model-0"]["says"]
    only = api.reader.get("/v1/break-even", params={**RANGE, "price": listed[:1]}).json()["rows"]
    assert [row["own_wins"] for row in only if row["model"] in (None, "model-1")] == [None, None]
    assert "some models have no API price" in only[-1]["says"]


@pytest.mark.parametrize(
    "price", ["model-0", "=1/1/1", "m=1/1", "m=1/1/x", "m=-1/1/1", "m=nan/1/1", "m=1/1/2000000"]
)
def test_a_price_that_is_none_is_named(api: Api, price: str) -> None:
    answer = api.reader.get("/v1/break-even", params={**RANGE, "price": price})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "price")
    assert api.reader.get("/v1/break-even", params=RANGE).status_code == 422


def test_break_even_is_what_its_formula_says(api: Api) -> None:
    answer = api.reader.get("/v1/break-even", params={**RANGE, "api_usd_per_million": 0.5}).json()
    whole = answer["rows"][-1]
    cost = sum(c["cost_nusd"] for c in api.cells if c["minute"] < START + timedelta(hours=3)) / 1e9
    assert whole["model"] is None
    assert whole["own_usd_per_million"] == pytest.approx(cost / whole["tokens"] * 1e6)
    assert whole["break_even_tokens_per_hour"] == pytest.approx(cost / 3 / 0.5 * 1e6)
    assert whole["saved_nusd"] == pytest.approx((whole["tokens"] * 0.5e-6 - cost) * 1e9, rel=1e-9)
    cheaper = api.reader.get(
        "/v1/break-even",
        params={
            **RANGE,
            "api_usd_per_million": 0.5,
            "usd_per_gpu_hour": answer["own_usd_per_gpu_hour"] / 2,
        },
    ).json()["rows"][-1]
    assert cheaper["own_usd_per_million"] == pytest.approx(whole["own_usd_per_million"] / 2)


def test_the_document_lists_every_route(api: Api) -> None:
    document = httpx.get(f"{api.url}/v1/openapi.json", trust_env=False).json()
    listed = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert listed == {(route.method, route.path) for route in ROUTES}
    assert document["components"]["securitySchemes"]


def test_the_page_of_metrics_lists_those_of_the_api(api: Api) -> None:
    """Every family that a running API serves, with its type; and no other."""
    page = (ROOT / "docs/metrics.md").read_text().split("\n## api\n", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE))
    served = set(
        re.findall(
            r"^# TYPE (\w+) (\w+)$",
            httpx.get(f"{api.url}/metrics", trust_env=False).text,
            re.MULTILINE,
        )
    )
    assert {(name, kind) for name, kind in served if not name.endswith("_created")} == listed


def test_probes_and_metrics_need_no_key_and_name_no_one(api: Api) -> None:
    assert httpx.get(f"{api.url}/health", trust_env=False).json()["status"] == "ok"
    assert httpx.get(f"{api.url}/ready", trust_env=False).status_code == 200
    api.reader.get("/v1/me")
    text = httpx.get(f"{api.url}/metrics", trust_env=False).text
    assert 'gpu_tokens_api_requests_total{method="GET",route="/v1/me",status="200"}' in text
    assert "tenant-" not in text


@pytest.mark.parametrize(
    ("path", "asked", "nearest"),
    [
        ("/v1/costs", {"groupby": "tenant"}, "group_by"),
        ("/v1/costs", {"timezone": "Europe/Berlin"}, "time_zone"),
        ("/v1/export", {"formt": "csv"}, "format"),
        ("/v1/dimensions", {"form": "x"}, "from"),
        ("/v1/gpus", {"Gpu": "GPU-a"}, "gpu"),
        ("/v1/openapi.json", {"x[/b]\x1b": "1"}, None),
    ],
)
def test_a_parameter_that_a_route_does_not_read_is_refused_with_the_nearest(
    api: Api, path: str, asked: dict[str, str], nearest: str | None
) -> None:
    answer = api.reader.get(
        path, params={**RANGE, **asked} if path not in ("/v1/gpus", "/v1/openapi.json") else asked
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    (problem,) = answer.json()["errors"]
    assert problem["field"] == next(iter(asked)).replace("\x1b", "\\x1b")
    if nearest is not None and nearest in str(api.app.openapi()["paths"][path]):
        assert f"did you mean `{nearest}`?" in problem["message"]


def test_every_route_refuses_what_it_does_not_read(api: Api) -> None:
    admin = api.client(KeyScope.ADMIN)
    for route in ROUTES:
        if route.name == "stream":
            continue  # would not end if it were answered; its parameters are those of the next test
        path = route.path.replace("{request_id}", "r-1")
        answer = admin.request(route.method, path, params={"zzz_unknown": "1"}, json={})
        assert answer.status_code == 422, route.path
        assert "zzz_unknown" in answer.text, route.path
    assert admin.get("/v1/stream", params={"zzz_unknown": "1"}).status_code == 422


def test_a_misspelt_field_is_accepted_told_counted_and_refused_on_request(api: Api) -> None:
    api.sink.records.clear()
    record = json.loads(usage(1)) | {"tennant": "acme", "latency_msec": 12, "x" * 300: 1}
    client = api.client(KeyScope.INGEST)
    before = (
        api.services.metrics.registry.get_sample_value("gpu_tokens_api_unknown_fields_total") or 0
    )
    body = msgspec.json.decode(
        client.post("/v1/events", json=[json.loads(usage(2)), record]).text, type=m.EventsResponse
    )
    assert (body.accepted, body.rejected) == (2, 0)
    assert [(warning.index, warning.field) for warning in body.warnings][:2] == [
        (1, "tennant"),
        (1, "latency_msec"),
    ]
    assert "did you mean `tenant`?" in body.warnings[0].message
    assert "did you mean `latency_ms`?" in body.warnings[1].message
    assert len(body.warnings[2].field) <= 80
    assert (
        api.services.metrics.registry.get_sample_value("gpu_tokens_api_unknown_fields_total")
        == before + 3
    )
    assert len(api.sink.records) == 2

    answer = client.post(
        "/v1/events", params={"strict": "true"}, json=[json.loads(usage(3)), record]
    )
    body = msgspec.json.decode(answer.text, type=m.EventsResponse)
    assert (body.accepted, body.rejected, body.warnings) == (1, 1, [])
    assert (body.errors[0].index, body.errors[0].reason, body.errors[0].field) == (
        1,
        "unknown_field",
        "tennant",
    )


@pytest.mark.parametrize("identity", ["a\nb", "a\n", "[/INST]", "x\x1b[2J", "a/b c?d#e", "é"])
def test_a_request_of_any_name_opens(api: Api, identity: str) -> None:
    answer = api.reader.get(f"/v1/requests/{quote(identity, safe='')}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "openapi.json lists what does" not in answer.json()["detail"], (
        "the route took it: there is no such request"
    )


def test_totals_are_the_same_whatever_the_rows_are(
    make_store: Callable[[], tuple[Store, Settings]],
) -> None:
    """Rows of classes have no part of what was measured of a whole GPU; their total has all of
    it."""

    def unread(cell: dict[str, Any]) -> dict[str, Any]:
        return cell | {"memory_unknown_us": cell["class_us"]["cold_idle"]}

    with served(*make_store(), Fleet(gpus=2), START, 90, reshaped=unread) as api:
        span = {"from": START.isoformat(), "to": (START + timedelta(minutes=90)).isoformat()}
        questions: list[dict[str, Any]] = [
            {},
            {"group_by": "class"},
            {"group_by": ["class", "model"], "limit": 2},
            {"group_by": "class", "top": 1},
            {"group_by": "gpu", "top": 1},
            {"group_by": "class", "bucket": "1h"},
        ]
        found = [
            api.reader.get("/v1/costs", params={**span, **asked}).json()["totals"]
            for asked in questions
        ]
    assert found[0]["quality"]["memory_unknown_share"] > 0
    assert all(totals == found[0] for totals in found)
