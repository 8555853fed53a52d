"""/v1/stream: one `live` event every few seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, NanoUsd


class LiveModel(Answer):
    """One model in the window."""

    model: str
    attributed_nusd: Annotated[
        NanoUsd | None,
        Meta(description="Null: all of it ran on GPUs that nobody sampled or declared."),
    ]
    tokens: Count
    tokens_per_second: float
    active_usd_per_million: float | None
    loaded_usd_per_million: float | None


class Live(Answer):
    """The last minutes, from the ledger. Sent as `event: live`; `event: heartbeat` keeps idle lines
    open."""

    at: datetime
    window_from: datetime
    window_to: datetime
    tokens_per_second: float | None
    active_usd_per_million: float | None
    loaded_usd_per_million: float | None
    cost_nusd: NanoUsd
    default_price_nusd: Annotated[
        NanoUsd, Meta(description="The part of it at the default price: nobody priced these GPUs.")
    ]
    unknown_gpu_tokens: Annotated[
        Count,
        Meta(description="Tokens on GPUs that nobody sampled or declared: their money is unknown."),
    ]
    models: list[LiveModel]
    changed: Annotated[
        bool,
        Meta(description="The figures differ from the event before: a page may reload its tables."),
    ]
    usd_per_hour: Annotated[
        float | None, Meta(description="Spend rate now, from the newest minutes; null: no cell.")
    ]
    classes: Annotated[
        dict[str, int] | None,
        Meta(description="Money of the window by class; null for a tenant's key."),
    ]
    gpus: Annotated[
        Count | None, Meta(description="GPUs with a cell in the window; null for a tenant's key.")
    ]
    cells_due: Count | None
    watermark: Annotated[datetime | None, Meta(description="Newest computed minute.")]
