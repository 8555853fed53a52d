"""/v1/requests: from a request down to the cells and price rows its money came from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, End, NanoUsd, Next, Start, field
from gpu_token_analytics.costs.answers.costs import Tokens


class RequestCell(Answer):
    """The part of a request's money that one cell holds."""

    cell: Annotated[str, Meta(examples=["GPU-1f|2026-01-31T12:00Z"])]
    gpu: str
    minute: datetime
    cost_nusd: Annotated[
        NanoUsd | None, Meta(description="Null: nobody sampled or declared the GPU.")
    ]
    prefill_cost_nusd: Annotated[
        NanoUsd | None, Meta(description="Null where the first token's time is not known.")
    ]
    energy_mj: int | None
    state: Annotated[str, Meta(examples=["final"])]
    price_row: Annotated[str | None, Meta(description="Null for a tenant's key.")]
    usd_per_hour: Annotated[float | None, Meta(description="Null for a tenant's key.")]
    revision: Count | None


class RequestEvent(Answer):
    """One stored usage event of the request id (a client may re-use an id; each event is shown)."""

    event_id: str
    request_id: str
    ts: Annotated[datetime, Meta(description="End of the request.")]
    started_at: Annotated[
        datetime, Meta(description="Since when it used its GPUs (after the queue).")
    ]
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
    live_cost_per_token_usd: Annotated[
        float | None, Meta(description="The estimate of the moment it was stored.")
    ]


class RequestDetail(RequestEvent):
    """One event with its money."""

    method: Annotated[
        str | None,
        Meta(
            description="How its money was found; null: not in the ledger yet.", examples=["sweep"]
        ),
    ]
    cost_nusd: Annotated[
        NanoUsd | None,
        Meta(
            description=(
                "Sum of the cells whose GPU is known; null: none is, or not in the ledger yet."
            )
        ),
    ]
    usd_per_million: Annotated[float | None, Meta(description="Over the tokens of the same cells.")]
    provisional: bool
    cells: list[RequestCell]
    note: Annotated[
        str | None,
        Meta(description="Why something is missing, such as raw events that have expired."),
    ]


class RequestResponse(Answer):
    """Everything stored under one request id, newest first."""

    request_id: str
    as_of: datetime
    events: list[RequestDetail]


class RequestsResponse(Answer):
    """Requests that ended on one GPU in a range, newest first: from a cell down to its requests."""

    from_: Start = field(name="from")
    to: End
    gpu: str
    requests: list[RequestEvent]
    next: Next
