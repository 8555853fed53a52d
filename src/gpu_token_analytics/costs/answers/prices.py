"""/v1/prices: the price book, append-only and effective-dated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Next


class Price(Answer):
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
    source: Annotated[str, Meta(examples=["api"])]
    pending: Annotated[
        bool, Meta(description="Cells it touches are not all marked for recomputation yet.")
    ]
    matches: Annotated[
        bool,
        Meta(
            description=(
                "False: no GPU known today has this key, so the row prices nothing. Is it misspelt?"
            ),
            examples=[True],
        ),
    ]


class PricesResponse(Answer):
    """Rows, newest valid_from first."""

    prices: list[Price]
    next: Next
