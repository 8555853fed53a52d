"""/v1/stream: one `live` event every few seconds."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gpu_token_analytics.api.models.base import Count, Model, NanoUsd


class LiveModel(Model):
    """One model in the window."""

    model: str
    attributed_nusd: NanoUsd | None = Field(description="Null: all of it ran on GPUs that nobody sampled or declared.")
    tokens: Count
    tokens_per_second: float
    active_usd_per_million: float | None
    loaded_usd_per_million: float | None


class Live(Model):
    """The last minutes, from the ledger. Sent as `event: live`; `event: heartbeat` keeps idle lines open."""

    at: datetime
    window_from: datetime
    window_to: datetime
    usd_per_hour: float | None = Field(description="Spend rate now, from the newest minutes; null: no cell.")
    tokens_per_second: float | None
    active_usd_per_million: float | None
    loaded_usd_per_million: float | None
    classes: dict[str, int] | None = Field(description="Money of the window by class; null for a tenant's key.")
    cost_nusd: NanoUsd
    default_price_nusd: NanoUsd = Field(description="The part of it at the default price: nobody priced these GPUs.")
    unknown_gpu_tokens: Count = Field(description="Tokens on GPUs that nobody sampled or declared: their money is unknown.")
    models: list[LiveModel]
    gpus: Count | None = Field(description="GPUs with a cell in the window; null for a tenant's key.")
    cells_due: Count | None
    changed: bool = Field(description="The figures differ from the event before: a page may reload its tables.")
    watermark: datetime | None = Field(description="Newest computed minute.")
