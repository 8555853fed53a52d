"""/v1/prices: the price book, append-only and effective-dated."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, PlainSerializer

from gpu_token_analytics.api.models.base import Model, Page
from gpu_token_analytics.units import MAX_USD_PER_HOUR

PriceText = Annotated[
    Decimal,
    Field(ge=0, le=int(MAX_USD_PER_HOUR), max_digits=15, decimal_places=9, allow_inf_nan=False, examples=["2.49"]),
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
]


class NewPrice(Model):
    """A row to append. Nothing is ever edited: a new row with a later (or back-dated) valid_from takes over."""

    scope: Literal["gpu", "host", "name", "default"] = Field(examples=["name"])
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="GPU id, host or GPU name; left out for the default row.",
        examples=["NVIDIA H100 80GB HBM3"],
    )
    usd_per_hour: PriceText = Field(description="USD per GPU-hour.")
    mode: Literal["on_demand", "reserved", "spot", "owned"] = "on_demand"
    usd_per_kwh: PriceText | None = Field(default=None, description="Only with mode=owned: energy is paid on top.")
    pue: Annotated[float, Field(ge=1, le=5)] | None = Field(default=None, description="Only with mode=owned.")
    valid_from: AwareDatetime = Field(description="RFC 3339; may lie in the past.", examples=["2026-01-01T00:00:00Z"])
    valid_to: AwareDatetime | None = Field(default=None, description="Exclusive; null: until another row takes over.")


class Price(Model):
    """A stored row."""

    id: str
    scope: str
    key: str | None
    usd_per_hour: str
    mode: str
    usd_per_kwh: str | None
    pue: float | None
    valid_from: datetime
    valid_to: datetime | None
    created_at: datetime
    source: str = Field(examples=["api"])
    pending: bool = Field(description="Cells it touches are not all marked for recomputation yet.")
    matches: bool = Field(
        description="False: no GPU known today has this key, so the row prices nothing. Is it misspelt?", examples=[True]
    )


class PricesResponse(Page):
    """Rows, newest valid_from first."""

    prices: list[Price]
