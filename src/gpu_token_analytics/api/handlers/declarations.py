"""/v1/declarations: GPUs that are known without samples."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi.responses import Response

from gpu_token_analytics.api.errors import ApiProblem, field_problem
from gpu_token_analytics.api.handlers.prices import check_price, price_fields
from gpu_token_analytics.api.models.declarations import NewDeclaration, Retirement, Withdrawal
from gpu_token_analytics.api.models.prices import NewPrice
from gpu_token_analytics.api.queries import check_instant, check_period
from gpu_token_analytics.api.render import json_response, timestamp, unknown_gpu
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.books.unknown_names import unknown_names
from gpu_token_analytics.mongo.client import store_errors
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.times import from_us

Json = dict[str, Any]
SHOWN_NAMES = 100


def declarations(ask: AskDep) -> Response:
    """GPUs that operators declared; and the names that requests gave to GPUs nobody sampled or declared."""
    return json_response(declarations_body(ask.services))


def declare(ask: AskDep, new: NewDeclaration) -> Response:
    """Declare a GPU that sends no samples: requests that named it get their money, those stored before, too."""
    with store_errors("declare a GPU"):
        return json_response(declared(ask.services, new, "api"), 201)


def retire(ask: AskDep, end: Retirement) -> Response:
    """End a declaration: from that minute on the GPU is not known, unless samples tell of it."""
    with store_errors("retire a GPU"):
        return json_response(retired(ask.services, end))


def withdraw(ask: AskDep, which: Withdrawal) -> Response:
    """Take a declaration back as if it had never been made."""
    with store_errors("take a declaration back"):
        return json_response(withdrawn(ask.services, which))


def declarations_body(services: Services) -> Json:
    """The answer of GET /v1/declarations."""
    count, names = unknown_names(services.store, services.ledger.books, SHOWN_NAMES)
    return {
        "declarations": [declaration(row) for row in services.declarations.rows()],
        "unknown_count": count,
        "unknown": [unknown_gpu(name) for name in names],
    }


def check_declaration(new: NewDeclaration) -> None:
    """Rules beyond those of the fields. Raises ApiProblem."""
    for name, text in (("gpu", new.gpu), ("host", new.host), ("name", new.name)):
        if text is not None and "\0" in text:
            raise field_problem("invalid_body", name, f"{name} holds a NUL character")
    check_period(new.valid_from, new.valid_to, _check_minute)


def declared(services: Services, new: NewDeclaration, source: str) -> Json:
    """Declare a GPU. Raises ApiProblem."""
    check_declaration(new)
    gpu, now = canonical_gpu(new.gpu), services.now()
    if new.usd_per_hour is not None:
        price = NewPrice(
            scope="gpu",
            key=gpu,
            usd_per_hour=new.usd_per_hour,
            valid_from=from_us(0) if new.valid_from is None else new.valid_from,
            valid_to=new.valid_to,
        )
        check_price(price)
        services.prices.append(**price_fields(price), created_at=now, source=source)
    row = services.declarations.declare(
        gpu=gpu,
        host=canonical_host(new.host),
        name=new.name,
        valid_from=new.valid_from,
        valid_to=new.valid_to,
        declared_at=now,
        source=source,
    )
    return declaration(row)


def retired(services: Services, end: Retirement) -> Json:
    """End a declaration. Raises ApiProblem."""
    _check_minute("valid_to", end.valid_to)
    row = services.declarations.retire(canonical_gpu(end.gpu), end.valid_to)
    if row is None:
        raise ApiProblem("not_found", f"no declaration of gpu={end.gpu!r} begins before {end.valid_to.isoformat()}")
    return declaration(row)


def withdrawn(services: Services, which: Withdrawal) -> Json:
    """Take a declaration back. Raises ApiProblem."""
    row = services.declarations.withdraw(canonical_gpu(which.gpu))
    if row is None:
        raise ApiProblem("not_found", f"gpu={which.gpu!r} is not declared")
    return declaration(row)


def declaration(row: Json) -> Json:
    """A stored declaration as /v1 shows it."""
    begin, end = row.get("valid_from"), row.get("valid_to")
    return {
        "gpu": row["gpu"],
        "host": row["host"],
        "name": row.get("name"),
        "valid_from": None if begin is None else timestamp(begin),
        "valid_to": None if end is None else timestamp(end),
        "declared_at": timestamp(row["declared_at"]),
        "source": row["source"],
        "withdrawn": row["withdrawn"],
        "pending": row["pending"],
    }


def _check_minute(name: str, at: datetime) -> None:
    check_instant(name, at)
    if at.second or at.microsecond:
        raise field_problem("invalid_body", name, f"{name}={at.isoformat()} is not on a whole minute; cells are UTC minutes")
