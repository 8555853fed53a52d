"""What /v1 and the commands answer over one store whose every fact is fixed is, byte for byte, what
same_answers.json holds.

Whoever changes an answer on purpose writes the file anew, and reads the difference:

    WRITE_ANSWERS=1 .venv/bin/python -m pytest tests/integration/api/test_same_answers.py
"""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench.synthetic_cells import cells
from fastapi.testclient import TestClient
from rich.console import Console
from tests.integration.ledger_support import Pipeline, sample, usage
from typer.testing import CliRunner

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.cli import app as command_line
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.terminal import top
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

from .conftest import FLEET, MINUTES, NOW, START, _inventory, roll_all

ANSWERS = Path(__file__).with_name("same_answers.json")
KEPT = datetime(2099, 1, 1, tzinfo=UTC)  # no TTL takes it while the test runs
AT = START + timedelta(hours=2)
FROM, TO = "2026-01-30T00:00:00Z", "2026-01-30T03:00:00Z"
RANGE = {"from": FROM, "to": TO}
LAST = {"from": "2026-01-31T22:30:00Z", "to": "2026-02-01T01:30:00Z"}

GETS: dict[str, tuple[str, dict[str, Any]]] = {
    "me": ("/v1/me", {}),
    "costs": ("/v1/costs", {**RANGE, "group_by": ["model", "class"], "bucket": "1h", "limit": 3}),
    "costs by gpu": ("/v1/costs", {**RANGE, "group_by": ["gpu", "host", "gpu_name"]}),
    "costs by tenant": (
        "/v1/costs",
        {
            **LAST,
            "group_by": "tenant",
            "model": "model-1",
            "bucket": "1d",
            "time_zone": "Asia/Kolkata",
        },
    ),
    "costs of nothing": ("/v1/costs", {"from": "2020-01-01T00:00Z", "to": "2020-01-02T00:00Z"}),
    "dimensions": ("/v1/dimensions", RANGE),
    "break-even": (
        "/v1/break-even",
        {**RANGE, "api_usd_per_million": 0.6, "usd_per_gpu_hour": 1.3},
    ),
    "break-even of a model": (
        "/v1/break-even",
        {**RANGE, "api_usd_per_million": 0.6, "model": "model-2"},
    ),
    "gpus": ("/v1/gpus", {"time_zone": "Asia/Kolkata"}),
    "gpus paged": ("/v1/gpus", {"limit": 1, "host": "host-01"}),
    "requests": ("/v1/requests", {**RANGE, "gpu": "GPU-a"}),
    "request": ("/v1/requests/r1", {}),
    "request on an unknown GPU": ("/v1/requests/r2", {}),
    "cells": ("/v1/ledger/cells", {**RANGE, "limit": 3}),
    "corrections": ("/v1/ledger/corrections", LAST),
    "audit": ("/v1/audit", RANGE),
    "quality": ("/v1/quality", LAST),
    "prices": ("/v1/prices", {"limit": 2}),
    "declarations": ("/v1/declarations", {}),
    "placements": ("/v1/placements", {}),
    "export": ("/v1/export", {**RANGE, "group_by": ["model"], "bucket": "none"}),
    "export focus": (
        "/v1/export",
        {"from": FROM, "to": "2026-01-30T01:00:00Z", "layout": "focus", "gpu": "GPU-0000"},
    ),
    "openapi": ("/v1/openapi.json", {}),
    "bad bucket": ("/v1/costs", {**RANGE, "bucket": "5m"}),
    "no range": ("/v1/costs", {}),
    "naive time": ("/v1/audit", {"from": "2026-01-30T00:00:00", "to": TO}),
    "misspelt": ("/v1/costs", {**RANGE, "groupby": "model"}),
    "too long": (
        "/v1/costs",
        {"from": "2020-01-01T00:00Z", "to": "2026-01-01T00:00Z", "bucket": "1m"},
    ),
    "backwards": ("/v1/costs", {"from": TO, "to": FROM}),
    "bad cursor": ("/v1/ledger/cells", {**RANGE, "cursor": "AAAA"}),
    "focus grouped": ("/v1/export", {**RANGE, "layout": "focus", "group_by": "model"}),
    "bad class": ("/v1/costs", {**RANGE, "class": "warm"}),
    "twice": ("/v1/costs", {**RANGE, "group_by": ["model", "model"]}),
}
OF_A_TENANT = (
    "me",
    "costs",
    "costs by gpu",
    "dimensions",
    "request",
    "export",
    "export focus",
    "gpus",
)
BODIES: dict[str, tuple[str, Any]] = {
    "a price too many": (
        "/v1/prices",
        {"scope": "default", "key": "x", "usd_per_hour": "1", "valid_from": FROM},
    ),
    "no price": ("/v1/prices", {"scope": "default", "usd_per_hour": "cheap", "valid_from": FROM}),
    "a declaration": (
        "/v1/declarations",
        {"gpu": "node8/0", "host": "node8", "valid_from": "2026-01-01T00:00:30Z"},
    ),
    "a retirement": ("/v1/declarations/retire", {"gpu": "node9/9", "valid_to": FROM}),
    "a placement": (
        "/v1/placements",
        [{"instance": "n:1", "gpus": ["GPU-a", "n/0"], "valid_from": FROM}],
    ),
}
SPAN = ("--from", FROM, "--to", TO)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("report", *SPAN),
    ("report", "--by", "gpu,class", "--bucket", "1h", "--wide", "--limit", "5", *SPAN),
    ("report", "--by", "tenant", "--model", "model-1", "--json", *SPAN),
    ("report", "--csv", *SPAN),
    ("break-even", "0.6", *SPAN),
    ("break-even", "0.6", "--usd-per-gpu-hour", "1.3", "--json", *SPAN),
    ("break-even", "0.6", "--csv", *SPAN),
    ("export", "--by", "gpu", *SPAN),
    ("prices", "list"),
    ("prices", "list", "--json"),
    ("prices", "list", "--csv"),
    ("gpus", "list"),
    ("gpus", "list", "--json"),
    ("gpus", "list", "--csv"),
    ("placements", "list"),
    ("placements", "list", "--json"),
    ("placements", "list", "--csv"),
    ("top", "--json"),
    ("top", "--csv"),
)


@pytest.fixture(scope="module")
def fixed(mongod: EmbeddedMongod) -> Iterator[Pipeline]:
    """Cells of two days, one request with samples around it and one on a GPU nobody knows, a price
    book, placements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "now", lambda self: NOW)
        patch.setattr(Store, "clock_ahead", property(lambda self: timedelta(seconds=1.5)))
        patch.setattr("gpu_token_analytics.mongo.client.check_skew", lambda *_, **__: False)
        pipeline = Pipeline(
            mongod.uri,
            f"test_{uuid.uuid4().hex[:16]}",
            api_requests_per_second=1e5,
            api_request_burst=100_000,
        )
        store = pipeline.store
        samples = [
            sample(n, AT + timedelta(seconds=10 * n), utilization=0.8, gpu_uuid="GPU-a")
            for n in range(13)
        ]
        requests = [
            usage(
                1,
                AT + timedelta(seconds=90),
                50.0,
                ttft_ms=900.0,
                queue_ms=20.0,
                finish_reason="stop",
                cached_tokens=64,
            ),
            usage(
                2, AT + timedelta(seconds=30), gpu_uuids=["GPU-nobody-knows"], tenant="tenant-01"
            ),
            usage(3, AT + timedelta(seconds=80), 30.0, tenant="tenant-01"),
        ]
        pipeline.ingest([*samples, *requests])
        store[USAGE.collection].update_many({}, {"$set": {"ingested_at": KEPT}})
        store[SAMPLE.collection].update_many({}, {"$set": {"ingested_at": KEPT}})
        store[Collection.LEDGER_CELLS].delete_many({})
        stored = list(cells(FLEET, START, MINUTES, now=NOW))
        moved = {
            "revision": 2,
            "at": NOW,
            "moved_nusd": {"attributed": 5, "cold_idle": -5},
            "lines": [],
        }
        stored[-7] |= {"corrections": [moved], "due_at": NOW, "rolled": False}
        store[Collection.LEDGER_CELLS].insert_many(stored)
        store[Collection.INVENTORY].insert_many(_inventory())
        store[Collection.INVENTORY].update_many({"kind": "name"}, {"$set": {"first_named_at": AT}})
        _books(store)
        roll_all(store)
        yield pipeline
        store.client.drop_database(store.database.name)
        store.close()


def _books(store: Store) -> None:
    store[Collection.PRICES].delete_many({})  # the default price that this pipeline wrote, of now
    for number, (scope, key, mode) in enumerate(
        (("default", None, "on_demand"), ("gpu", "GPU-a", "owned"), ("host", "nowhere", "spot"))
    ):
        row = {
            "_id": f"price-{number}",
            "scope": scope,
            "key": key,
            "usd_per_hour": f"{number + 1}.25",
            "mode": mode,
            "usd_per_kwh": "0.29" if mode == "owned" else None,
            "pue": 1.25 if mode == "owned" else None,
            "valid_from": START - timedelta(days=number),
            "valid_to": None if number else START + timedelta(days=30),
            "created_at": START,
            "source": "test",
            "pending": number == 2,
        }
        store[Collection.PRICES].insert_one(row)
    placed = {
        "_id": "placement-7",
        "instance": "node1:8000",
        "gpus": ["GPU-a"],
        "host": "h1",
        "model": None,
        "counted_by": "any",
        "valid_from": START,
        "valid_to": None,
        "created_at": START,
        "source": "test",
    }
    store[Collection.PLACEMENTS].insert_one(placed)
    declared = {
        "_id": "declaration|node9/0",
        "kind": "declaration",
        "key": "node9/0",
        "gpu": "node9/0",
        "host": "node9",
        "name": None,
        "valid_from": None,
        "valid_to": START,
        "withdrawn": False,
        "declared_at": START,
        "source": "test",
        "pending": False,
    }
    named = {
        "_id": "name|node5/1",
        "kind": "name",
        "name": "node5/1",
        "tenant": "t",
        "first_named_at": START,
    }
    store[Collection.INVENTORY].insert_many([declared, named])


def answered(pipeline: Pipeline) -> dict[str, str]:
    """Name of a question -> status and body, or what a command prints."""
    store = pipeline.store
    services = Services.of(store, pipeline.settings)
    keys = KeyStore(store.database)
    store[Collection.API_KEYS].delete_many({})
    said: dict[str, str] = {}
    with TestClient(create_app(services)) as client:
        for tenant, names in ((None, tuple(GETS)), ("tenant-01", OF_A_TENANT)):
            _, text = keys.create("k", frozenset({KeyScope.READ}), tenant, NOW)
            for name in names:
                path, params = GETS[name]
                answer = client.get(
                    path, params=params, headers={"Authorization": f"Bearer {text}"}
                )
                said[f"{name} for {tenant or 'all'}"] = f"{answer.status_code} {answer.text}"
        _, text = keys.create("k", frozenset(KeyScope), None, NOW)
        for name, (path, body) in BODIES.items():
            answer = client.post(path, json=body, headers={"Authorization": f"Bearer {text}"})
            said[name] = f"{answer.status_code} {answer.text}"
    environment = {
        "MONGODB_URI": pipeline.settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": store.database.name,
        "COLUMNS": "220",
    }
    for command in COMMANDS:
        ran = CliRunner().invoke(command_line, list(command), env=environment)
        assert ran.exit_code == 0, (command, ran.output, ran.exception)
        said[" ".join(command)] = ran.stdout
    console = Console(width=160, height=40, record=True, file=io.StringIO())
    console.print(top.screen(*top.snapshot(services.desk), "h", console, 0)[0])
    said["top"] = console.export_text()
    return {name: _without_chance(text) for name, text in said.items()}


def _without_chance(text: str) -> str:
    """Ids of requests and of keys are made anew each time."""
    text = re.sub(r'"instance":"[0-9a-f-]{36}"', '"instance":"-"', text)
    return re.sub(r'^200 {"key":"[0-9a-z]{8}"', '200 {"key":"-"', text)


def test_answers_are_what_they_were(fixed: Pipeline) -> None:
    said = answered(fixed)
    said |= {name: _in_order(text) for name, text in said.items() if name.startswith("openapi")}
    if os.environ.get("WRITE_ANSWERS"):
        ANSWERS.write_text(json.dumps(said, indent=0, ensure_ascii=False) + "\n")
    kept = json.loads(ANSWERS.read_text())
    assert list(said) == list(kept)
    for name, text in said.items():
        assert text == kept[name], name


def _in_order(text: str) -> str:
    """OpenAPI with names and required fields in order: there the order says nothing."""
    status, _, document = text.partition(" ")
    return f"{status} {json.dumps(_sorted(json.loads(document)), sort_keys=True)}"


def _sorted(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _sorted(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return sorted(value) if name == "required" else [_sorted(item) for item in value]
    return value
