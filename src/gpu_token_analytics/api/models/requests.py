"""/v1/requests: from a request down to the cells and price rows its money came from."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gpu_token_analytics.api.models.base import Count, Model, NanoUsd, Ranged
from gpu_token_analytics.api.models.costs import Tokens


class RequestCell(Model):
    """The part of a request's money that one cell holds."""

    cell: str = Field(examples=["GPU-1f|2026-01-31T12:00Z"])
    gpu: str
    minute: datetime
    cost_nusd: NanoUsd | None = Field(description="Null: nobody sampled or declared the GPU.")
    prefill_cost_nusd: NanoUsd | None = Field(description="Null where the first token's time is not known.")
    energy_mj: int | None
    state: str = Field(examples=["final"])
    price_row: str | None = Field(description="Null for a tenant's key.")
    usd_per_hour: float | None = Field(description="Null for a tenant's key.")
    revision: Count | None


class RequestEvent(Model):
    """One stored usage event of the request id (a client may re-use an id; each event is shown)."""

    event_id: str
    request_id: str
    ts: datetime = Field(description="End of the request.")
    started_at: datetime = Field(description="Since when it used its GPUs (after the queue).")
    host: str
    gpus: list[str]
    model: str
    tenant: str
    finish_reason: str | None
    latency_ms: float | None
    queue_ms: float | None
    ttft_ms: float | None
    tokens: Tokens
    ingested_at: datetime
    live_cost_per_token_usd: float | None = Field(description="The estimate of the moment it was stored.")


class RequestDetail(RequestEvent):
    """One event with its money."""

    method: str | None = Field(description="How its money was found; null: not in the ledger yet.", examples=["sweep"])
    cost_nusd: NanoUsd | None = Field(
        description="Sum of the cells whose GPU is known; null: none is, or not in the ledger yet."
    )
    usd_per_million: float | None = Field(description="Over the tokens of the same cells.")
    provisional: bool
    cells: list[RequestCell]
    note: str | None = Field(description="Why something is missing, such as raw events that have expired.")


class RequestResponse(Model):
    """Everything stored under one request id, newest first."""

    request_id: str
    as_of: datetime
    events: list[RequestDetail]


class RequestsResponse(Ranged):
    """Requests that ended on one GPU in a range, newest first: from a cell down to its requests."""

    gpu: str
    requests: list[RequestEvent]
