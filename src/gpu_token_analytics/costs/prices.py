"""The price book: its rows as they are shown, and what may be appended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any

from gpu_token_analytics.costs.answers.prices import Price, PricesResponse
from gpu_token_analytics.costs.cursors import page_of_rows
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import NewPrice, check_price, price_fields
from gpu_token_analytics.ledger.prices import PriceScope, canonical_key

Json = dict[str, Any]


def price_page(desk: Desk, limit: int, cursor: str | None = None) -> PricesResponse:
    """One page of every row ever written, newest valid_from first. Raises Refused."""
    rows, following = page_of_rows(desk.prices.rows(), limit, cursor)
    known = known_gpus(desk)
    return PricesResponse(prices=[price(row, known) for row in rows], next=following)


def every_price(desk: Desk) -> list[Price]:
    """Every row ever written, newest valid_from first."""
    known = known_gpus(desk)
    return [price(row, known) for row in desk.prices.rows()]


def append_price(desk: Desk, new: NewPrice, source: str) -> Price:
    """Append a row. source: who says so (`api`, `cli`). Raises Refused."""
    check_price(new)
    row = desk.prices.append(**price_fields(new), created_at=desk.now(), source=source)
    return price(row, known_gpus(desk))


def known_gpus(desk: Desk) -> list[Json]:
    """What price rows can be about: {_id, host, name} of every GPU that was sampled or declared."""
    declared = [
        {"_id": row["gpu"], "host": row["host"], "name": row.get("name")}
        for row in desk.declarations.rows()
    ]
    return [*desk.reads.gpus(), *declared]


def prices_something(inventory: Iterable[Json], scope: str, key: str | None) -> bool:
    """Whether a GPU of `known_gpus` is what a row of this scope and key is about."""
    field = {"gpu": "_id", "host": "host", "name": "name"}.get(scope)
    wanted = canonical_key(PriceScope(scope), key)
    return field is None or any(row.get(field) == wanted for row in inventory)


def price(row: Json, known: Sequence[Json]) -> Price:
    """A stored row as /v1 shows it. known: see `known_gpus`."""
    until, kwh = row.get("valid_to"), row.get("usd_per_kwh")
    return Price(
        id=str(row["_id"]),
        scope=row["scope"],
        key=row.get("key"),
        usd_per_hour=str(row["usd_per_hour"]),
        mode=row["mode"],
        usd_per_kwh=None if kwh is None else str(kwh),
        pue=row.get("pue"),
        valid_from=row["valid_from"].astimezone(UTC),
        valid_to=None if until is None else until.astimezone(UTC),
        created_at=(row.get("created_at") or row["valid_from"]).astimezone(UTC),
        source=row.get("source") or "unknown",
        pending=bool(row.get("pending")),
        matches=prices_something(known, row["scope"], row.get("key")),
    )
