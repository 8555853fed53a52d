"""/v1/prices: the price book."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi.responses import Response

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.errors import field_problem
from gpu_token_analytics.api.models.prices import NewPrice
from gpu_token_analytics.api.queries import check_period, page_of_rows
from gpu_token_analytics.api.render import json_response, timestamp
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.ledger.prices import Scope, canonical_key
from gpu_token_analytics.mongo.client import store_errors

Json = dict[str, Any]


def prices(ask: AskDep, limit: p.CellLimit = 1000, cursor: p.Cursor = None) -> Response:
    """Every row ever written, newest valid_from first. The most specific row in force wins: gpu, host, name, default."""
    rows, following = page_of_rows(ask.services.prices.rows(), limit, cursor)
    known = known_gpus(ask.services)
    return json_response({"prices": [price(row, known) for row in rows], "next": following})


def add_price(ask: AskDep, new: NewPrice) -> Response:
    """Append a row. With valid_from in the past, open cells are computed again and final ones get corrections, as far back as
    raw events are kept (RAW_RETENTION_DAYS); older cells keep their price."""
    check_price(new)
    services = ask.services
    with store_errors("append a price"):
        row = services.prices.append(**price_fields(new), created_at=services.now(), source="api")
    return json_response(price(row, known_gpus(services)), 201)


def price_fields(new: NewPrice) -> Json:
    """A new row as the store takes it."""
    return {
        "scope": new.scope,
        "key": new.key,
        "usd_per_hour": format(new.usd_per_hour, "f"),
        "mode": new.mode,
        "usd_per_kwh": None if new.usd_per_kwh is None else format(new.usd_per_kwh, "f"),
        "pue": new.pue,
        "valid_from": new.valid_from,
        "valid_to": new.valid_to,
    }


def known_gpus(services: Services) -> list[Json]:
    """What price rows can be about: {_id, host, name} of every GPU that was sampled or declared."""
    declared = [{"_id": row["gpu"], "host": row["host"], "name": row.get("name")} for row in services.declarations.rows()]
    return [*services.reads.gpus(), *declared]


def prices_something(inventory: Iterable[Json], scope: str, key: str | None) -> bool:
    """Whether a GPU of `known_gpus` is what a row of this scope and key is about."""
    field = {"gpu": "_id", "host": "host", "name": "name"}.get(scope)
    wanted = canonical_key(Scope(scope), key)
    return field is None or any(row.get(field) == wanted for row in inventory)


def check_price(new: NewPrice) -> None:
    """Rules between the fields. Raises ApiProblem."""
    if (new.scope == "default") != (new.key is None):
        rule = "must be left out" if new.scope == "default" else "is needed"
        raise field_problem("invalid_body", "key", f"key={new.key!r} {rule} with scope={new.scope}")
    if new.key is not None and "\0" in new.key:
        raise field_problem("invalid_body", "key", "key holds a NUL character")
    check_period(new.valid_from, new.valid_to)
    if new.mode != "owned" and (new.usd_per_kwh is not None or new.pue is not None):
        raise field_problem(
            "invalid_body", "usd_per_kwh", f"usd_per_kwh and pue need mode=owned, not {new.mode}: rent includes energy"
        )


def price(row: Json, known: Sequence[Json]) -> Json:
    """A stored row as /v1 shows it. known: see `known_gpus`."""
    until, kwh = row.get("valid_to"), row.get("usd_per_kwh")
    return {
        "id": str(row["_id"]),
        "scope": row["scope"],
        "key": row.get("key"),
        "usd_per_hour": str(row["usd_per_hour"]),
        "mode": row["mode"],
        "usd_per_kwh": None if kwh is None else str(kwh),
        "pue": row.get("pue"),
        "valid_from": timestamp(row["valid_from"]),
        "valid_to": None if until is None else timestamp(until),
        "created_at": timestamp(row.get("created_at") or row["valid_from"]),
        "source": row.get("source") or "unknown",
        "pending": bool(row.get("pending")),
        "matches": prices_something(known, row["scope"], row.get("key")),
    }
