"""Other currencies: what a USD is worth, and costs in one of them. The ledger, and every sum of it,
stays in nano-USD.

A time is cut where a rate changes. In each piece the money of each group and class is converted at
the rate that holds there and rounded half to even, to a billionth of a unit; totals are sums of
what was rounded, so columns and rows add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from functools import reduce
from operator import add
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from gpu_token_analytics.costs import report
from gpu_token_analytics.costs.answers.rates import (
    ConvertedMoney,
    ConvertedResponse,
    ConvertedRow,
    RateRow,
    RatesResponse,
    RateUsed,
)
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import (
    Instant,
    Model,
    PriceText,
    appended,
    check_instant,
    dated,
)
from gpu_token_analytics.costs.query import NO_ROWS, Chunked, CostQuery, Key, Known, sort_key
from gpu_token_analytics.costs.questions import check_cost
from gpu_token_analytics.costs.row_rates import CLASS_COLUMNS, USD, classes_in, rate_at
from gpu_token_analytics.costs.whose import with_books
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import HOUR, floor

ROUNDING = (
    "each class of each group, between two changes of the rate, half to even to a billionth of a "
    "unit; sums of these"
)
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class NewRate(Model):
    """A row to append. Nothing is ever edited: the next row of the currency takes over."""

    currency: Currency = Field(description="ISO 4217.", examples=["EUR"])
    units_per_usd: PriceText = Field(
        gt=0, description="How many units a USD is worth.", examples=["0.92"]
    )
    valid_from: Instant = Field(
        description="RFC 3339, on a whole UTC hour; may lie in the past.",
        examples=["2026-01-01T00:00:00Z"],
    )


def rate_rows(desk: Desk) -> RatesResponse:
    """The answer of GET /v1/rates."""
    return RatesResponse([_row(row) for row in desk.rates.rows()])


def append_rate(desk: Desk, new: NewRate, source: str) -> RateRow:
    """Append a row. source: who says so (`api`, `cli`). Raises Refused."""
    check_rate(new)
    said = {"currency": new.currency, "units_per_usd": format(new.units_per_usd, "f")}
    return _row(
        appended(desk.rates, said, valid_from=new.valid_from, now=desk.now(), source=source)
    )


def check_rate(new: NewRate) -> None:
    """Rules beyond those of the fields. Raises Refused."""
    if new.currency == USD:
        raise Refused("invalid_body", f"currency={USD} is what the ledger counts in", "currency")
    check_instant("valid_from", new.valid_from)
    if floor(new.valid_from, HOUR) != new.valid_from:
        said = (
            f"valid_from={new.valid_from.isoformat()} is not on a whole UTC hour; exports have a "
            "rate for each hour"
        )
        raise Refused("invalid_body", said, "valid_from")


def converted(desk: Desk, query: CostQuery, currency: str) -> ConvertedResponse:
    """The answer of /v1/costs/converted; query: without buckets. Raises Refused."""
    query = with_books(desk, query)
    gpus = desk.reads.gpu_count()
    check_cost(query, gpus)
    return report.of_one_state(lambda: _converted(desk, query, currency, gpus))


def _converted(desk: Desk, query: CostQuery, currency: str, gpus: int) -> ConvertedResponse:
    book, now = desk.rates.book(currency), desk.now()
    groups: dict[Key, list[int]] = {}
    known: dict[Key, Known] = {}
    used = []
    for low, high in book.pieces(query.start, query.end):
        rate = rate_at(book, currency, low)
        used.append(
            RateUsed(low, high, format(rate.units_per_usd, "f"), rate.valid_from.astimezone(UTC))
        )
        piece: CostQuery = replace(query, start=low, end=high)
        check_cost(piece, gpus)
        for row in desk.costs.rows(piece, now, chunked=Chunked.BY_PIECES):
            values = classes_in(rate, row)
            groups[row.key] = (
                list(map(add, groups[row.key], values)) if row.key in groups else values
            )
            known[row.key] = known.get(row.key, NO_ROWS).plus(row.known)
            if len(groups) > report.MAX_GROUPS:
                raise report.too_many_groups()
    totals = [sum(column) for column in zip(*groups.values(), strict=True)] or [0] * len(
        CLASS_COLUMNS
    )
    return ConvertedResponse(
        from_=query.start,
        to=query.end,
        currency=currency,
        rounding=ROUNDING,
        rates=used,
        group_by=list(query.group_by),
        rows=[
            ConvertedRow(
                dict(zip(query.group_by, key, strict=True)), _money(groups[key], known[key])
            )
            for key in sorted(groups, key=sort_key)
        ],
        totals=_money(totals, reduce(Known.plus, known.values(), NO_ROWS)),
    )


def _money(values: list[int], known: Known) -> ConvertedMoney:
    attributed, unmetered_work, warm_idle, cold_idle, unobserved = values
    unknown = known.is_unpriced
    return ConvertedMoney(
        None if unknown else attributed,
        unmetered_work,
        warm_idle,
        cold_idle,
        unobserved,
        None if unknown else sum(values),
    )


def _row(row: Mapping[str, Any]) -> RateRow:
    return RateRow(
        currency=row["currency"],
        units_per_usd=row["units_per_usd"],
        **dated(row),
    )
