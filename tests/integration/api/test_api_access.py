"""Who may see what: every route of the application, with every kind of key."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.errors import OTLP_PATHS
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.api.route import Access, Route
from gpu_token_analytics.api.routes import PLAIN_PATHS, ROUTES
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.usage import USAGE

from .conftest import START, Api

TENANT = "tenant-01"
RANGE = {"from": START.isoformat(), "to": (START + timedelta(hours=2)).isoformat()}
PARAMS: dict[str, dict[str, Any]] = {
    "costs": {**RANGE, "group_by": ["model", "tenant"], "bucket": "1h"},
    "export": {**RANGE, "group_by": ["model", "tenant"]},
    "requests": {**RANGE, "gpu": "GPU-0000"},
    "break_even": {**RANGE, "api_usd_per_million": 1},
}
GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]
NO_STREAM = [route for route in GUARDED if route.name != "stream"]


def params_of(route: Route) -> dict[str, Any]:
    return PARAMS.get(route.name, RANGE)


def ask(client: httpx.Client, route: Route) -> httpx.Response:
    path = route.path.replace("{request_id}", "r-1")
    if route.method == "POST":
        return client.post(path, json={})
    return client.get(path, params=params_of(route))


def paths(app: FastAPI) -> set[tuple[str, str]]:
    found = set()
    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            found.add((method, getattr(route, "path_format", getattr(route, "path", ""))))
    return found


def test_nothing_answers_that_the_table_does_not_name(api: Api) -> None:
    known = {(route.method, route.path) for route in ROUTES} | {
        ("GET", path) for path in PLAIN_PATHS
    }
    others = {
        (method, path)
        for method, path in paths(api.app)
        if (method, path) not in known and method != "HEAD"
    }
    # What is left is the dashboard's static pages and assets; none of it lies under /v1 or takes
    # anything in.
    assert all(method == "GET" and not path.startswith("/v1") for method, path in others), others


def test_every_guarded_route_has_its_check(api: Api) -> None:
    checked = {
        (min(route.methods or ()), route.path_format)
        for route in api.app.routes
        if isinstance(route, APIRoute)
        for needed in route.dependant.dependencies
        if needed.call is not None and "_check" in needed.call.__qualname__
    }
    assert checked == {(route.method, route.path) for route in GUARDED}


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
def test_without_a_key_nothing_is_told(api: Api, route: Route) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer gta_00000000_" + "a" * 43},
        {"Authorization": "Basic eDp5"},
    ):
        answer = httpx.request(
            route.method,
            api.url + route.path.replace("{request_id}", "r"),
            headers=headers,
            trust_env=False,
        )
        assert answer.status_code == 401, answer.text
        form = "application/json" if route.path in OTLP_PATHS else "application/problem+json"
        assert answer.headers["content-type"] == form
        assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize("route", NO_STREAM, ids=lambda route: f"{route.method} {route.path}")
def test_a_scope_opens_only_its_routes(api: Api, route: Route) -> None:
    for scope in (KeyScope.READ, KeyScope.INGEST):
        answer = ask(api.client(scope), route)
        allowed = route.access in (Access.ANY_KEY, Access(scope.value))
        assert (answer.status_code == 403) == (not allowed), answer.text
    assert ask(api.client(KeyScope.ADMIN), route).status_code != 403


@pytest.mark.parametrize("route", NO_STREAM, ids=lambda route: f"{route.method} {route.path}")
def test_a_tenants_key_never_sees_another_tenant(api: Api, route: Route) -> None:
    answer = ask(api.client(KeyScope.READ, KeyScope.INGEST, tenant=TENANT), route)
    if not route.tenant_keys:
        assert answer.status_code == 403
        return
    assert answer.status_code in (200, 404, 415, 422), answer.text
    others = re.findall(r"tenant-\d\d", answer.text)
    assert set(others) <= {TENANT}
    assert "GPU-" not in answer.text
    assert "host-" not in answer.text


def test_a_tenants_costs_are_its_lines_and_nothing_else(api: Api) -> None:
    client = api.client(KeyScope.READ, tenant=TENANT)
    body = client.get("/v1/costs", params={**RANGE, "group_by": "model", "bucket": "1h"}).json()
    expected = sum(
        line["cost_nusd"]
        for cell in api.cells
        if cell["minute"] < START + timedelta(hours=2)
        for line in cell["lines"]
        if line["tenant"] == TENANT
    )
    assert sum(row["money"]["total_nusd"] for row in body["rows"]) == expected > 0
    for row in [*body["rows"], body["totals"]]:
        assert row["money"]["total_nusd"] == row["money"]["attributed_nusd"]
        assert row["rates"]["loaded_usd_per_million"] is None
        assert row["gpu_seconds"] is None  # not 0: what a tenant had of the GPUs is not known
    assert body["scope"] == {
        "cost_nusd": None,
        "selected_nusd": expected,
        "left_out_nusd": None,
        "cells": None,
        "cells_not_rolled": 0,
    }


@pytest.mark.parametrize(
    "extra",
    [
        {"tenant": "tenant-02"},
        {"tenant": ["tenant-02", "tenant-03"], "group_by": ["tenant"]},
    ],
)
def test_a_filter_does_not_lift_the_lock(api: Api, extra: dict[str, Any]) -> None:
    client = api.client(KeyScope.READ, tenant=TENANT)
    body = client.get("/v1/costs", params={**RANGE, **extra}).json()
    assert body["totals"]["money"]["total_nusd"] == 0
    assert body["totals"]["tokens"]["total"] == 0


@pytest.mark.parametrize(
    "extra", [{"group_by": "gpu"}, {"gpu": "GPU-0000"}, {"host": "host-00"}, {"class": "warm_idle"}]
)
def test_a_tenants_key_cannot_ask_about_gpus_or_idle_money(api: Api, extra: dict[str, str]) -> None:
    client = api.client(KeyScope.READ, tenant=TENANT)
    for path in ("/v1/costs", "/v1/export"):
        assert client.get(path, params={**RANGE, **extra}).status_code == 403
    assert client.get("/v1/export", params={**RANGE, "layout": "focus"}).status_code == 403


def test_requests_of_other_tenants_do_not_exist(api: Api) -> None:
    usage = api.store[USAGE.collection]
    base = {
        "ts": START,
        "ts_us": 1_769_731_200_000_000,
        "start_us": 1_769_731_190_000_000,
        "host": "host-00",
        "gpus": ["GPU-0000"],
        "model": "model-1",
        "request_id": "shared/id",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "latency_ms": 10_000.0,
        "ingested_at": START,
    }
    usage.insert_many(
        [
            {**base, "_id": "e1", "event_id": "e1", "tenant": TENANT},
            {**base, "_id": "e2", "event_id": "e2", "tenant": "tenant-02"},
        ]
    )
    try:
        own = api.client(KeyScope.READ, tenant=TENANT).get("/v1/requests/shared%2Fid").json()
        assert [event["tenant"] for event in own["events"]] == [TENANT]
        assert all(cell["price_row"] is None for event in own["events"] for cell in event["cells"])
        both = api.reader.get("/v1/requests/shared%2Fid").json()
        assert {event["tenant"] for event in both["events"]} == {TENANT, "tenant-02"}
        other = api.client(KeyScope.READ, tenant="tenant-03").get("/v1/requests/shared%2Fid")
        assert other.status_code == 404
    finally:
        usage.delete_many({"_id": {"$in": ["e1", "e2"]}})


def test_a_tenants_stream_shows_its_own(api: Api) -> None:
    with api.client(KeyScope.READ, tenant=TENANT).stream("GET", "/v1/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = next(line for line in answer.iter_lines() if line.startswith("data: "))
    figures = json.loads(data.removeprefix("data: "))
    assert figures["classes"] is None
    assert figures["gpus"] is None
    assert "tenant-0" not in data.replace(TENANT, "")


def test_streams_are_bounded_and_give_their_place_back(
    make_store: Callable[[], tuple[Store, Settings]],
) -> None:
    store, settings = make_store()
    services = Services.of(store, settings.model_copy(update={"api_max_streams": 1}))
    _, key = KeyStore(store.database).create("k", frozenset([KeyScope.READ]), None, store.now())
    with (
        serving(create_app(services)) as url,
        httpx.Client(
            base_url=url, headers={"X-API-Key": key}, timeout=20, trust_env=False
        ) as client,
    ):
        with client.stream("GET", "/v1/stream") as first:
            lines = first.iter_lines()  # held: a dropped iterator would close the stream
            assert next(lines) == "event: live"
            with client.stream("GET", "/v1/stream") as second:
                assert second.status_code == 503
        until = time.monotonic() + 10
        while True:  # the server notices the closed connection within a nap or two
            with client.stream("GET", "/v1/stream") as again:
                if again.status_code == 200:
                    break
            assert time.monotonic() < until, "the place was not given back"
        services.stopping.set()


def test_revoked_expired_and_rotated_keys(make_store: Callable[[], tuple[Store, Settings]]) -> None:
    store, settings = make_store()
    services = Services.of(store, settings)
    keys = KeyStore(store.database)
    now = store.now()
    old, text = keys.create("app", frozenset([KeyScope.READ]), None, now)
    _, expired = keys.create(
        "old", frozenset([KeyScope.READ]), None, now, now - timedelta(seconds=1)
    )
    stored = store[Collection.API_KEYS].find_one({"_id": old.id})
    assert stored is not None
    assert text.encode() not in json.dumps(stored, default=repr).encode()
    with (
        serving(create_app(services)) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):

        def status(key: str) -> int:
            return client.get("/v1/me", headers={"X-API-Key": key}).status_code

        assert status(text) == 200
        assert status(text[:-1] + ("a" if text[-1] != "a" else "b")) == 401
        assert status(expired) == 401
        _, successor = keys.rotate(old.id, store.now(), timedelta(hours=1))
        assert (status(text), status(successor)) == (200, 200)
        keys.revoke(old.id, store.now())
        services.authority._cache.clear()  # what CACHE_SECONDS would do
        assert (status(text), status(successor)) == (401, 200)
    with pytest.raises(KeyError):
        keys.rotate(old.id, store.now() + timedelta(seconds=1), timedelta(0))


def test_requests_over_the_rate_are_told_when_to_come_back(
    make_store: Callable[[], tuple[Store, Settings]],
) -> None:
    store, settings = make_store()
    slow = settings.model_copy(update={"api_requests_per_second": 0.001, "api_request_burst": 3})
    services = Services.of(store, slow)
    _, key = KeyStore(store.database).create("k", frozenset([KeyScope.READ]), None, store.now())
    with serving(create_app(services)) as url:
        answers = [
            httpx.get(f"{url}/v1/me", headers={"X-API-Key": key}, trust_env=False) for _ in range(5)
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) >= 500  # however slow the machine is


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "same"}, 200),
        ({"Host": "evil.example"}, 401),
        ({"Origin": "http://evil.example"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"X-Forwarded-For": "10.0.0.1"}, 401),
        ({"Forwarded": "for=10.0.0.1"}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
    ],
)
def test_loopback_without_a_key_is_for_local_callers_only(
    make_store: Callable[[], tuple[Store, Settings]], headers: dict[str, str], status: int
) -> None:
    store, settings = make_store()
    services = Services.of(
        store,
        settings.model_copy(update={"api_allow_anonymous_loopback": True}),
        loopback_only=True,
    )
    with serving(create_app(services)) as url:
        sent = {name: url if value == "same" else value for name, value in headers.items()}
        answer = httpx.get(f"{url}/v1/me", headers=sent, trust_env=False)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["anonymous"] is True


def test_bound_elsewhere_anonymous_access_does_not_exist(
    make_store: Callable[[], tuple[Store, Settings]],
) -> None:
    store, settings = make_store()
    services = Services.of(
        store,
        settings.model_copy(update={"api_allow_anonymous_loopback": True}),
        loopback_only=False,
    )
    with serving(create_app(services)) as url:
        assert httpx.get(f"{url}/v1/me", trust_env=False).status_code == 401
