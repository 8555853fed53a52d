"""/v1/rates and /v1/costs/converted: what a USD is worth in other currencies, and costs in one of
them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, End, Part, Start, field

Nano: TypeAlias = Annotated[
    int, Meta(description="Billionths of a unit of `currency`.", examples=[21_377_188])
]


class RateRow(Answer):
    """A stored row; it holds until the next one of its currency."""

    id: str
    currency: Annotated[str, Meta(description="ISO 4217.", examples=["EUR"])]
    units_per_usd: Annotated[str, Meta(description="Decimal text.", examples=["0.92"])]
    valid_from: datetime
    created_at: datetime
    source: Annotated[str, Meta(examples=["api"])]


class RatesResponse(Answer):
    """Every row, newest valid_from first."""

    rates: list[RateRow]


class RateUsed(Answer):
    """A rate and the part of the range in which it held."""

    from_: Start = field(name="from")
    to: End
    units_per_usd: str
    valid_from: Annotated[datetime, Meta(description="Since when its row holds.")]


class ConvertedMoney(Part):
    """Money in `currency`, one column per class; the columns sum to `total_nano`."""

    attributed_nano: Annotated[Nano | None, Meta(description="Null: unknown, as in /v1/costs.")]
    unmetered_work_nano: Nano
    warm_idle_nano: Nano
    cold_idle_nano: Nano
    unobserved_nano: Nano
    total_nano: Annotated[Nano | None, Meta(description="Null as `attributed_nano`.")]


class ConvertedRow(Part):
    """One group."""

    group: dict[str, str | None]
    money: ConvertedMoney


class ConvertedResponse(Answer):
    """Costs in another currency: rows sum to the totals, classes to each total."""

    from_: Start = field(name="from")
    to: End
    currency: str
    rounding: Annotated[str, Meta(description="How and when was rounded.")]
    rates: list[RateUsed]
    group_by: list[str]
    rows: list[ConvertedRow]
    totals: ConvertedMoney
