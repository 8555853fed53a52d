"""From a request to the cells, price rows and GPUs its money came from, and from a GPU to its
requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from gpu_token_analytics.costs.answers.base import timestamp
from gpu_token_analytics.costs.answers.costs import Tokens
from gpu_token_analytics.costs.answers.requests import (
    RequestCell,
    RequestDetail,
    RequestEvent,
    RequestResponse,
    RequestsResponse,
)
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.questions import check_range
from gpu_token_analytics.costs.rows import usd_per_million
from gpu_token_analytics.documents import NUSD_PER_USD, CellId, CellState, Method
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.names import spellings
from gpu_token_analytics.wire.times import from_us, to_us

if TYPE_CHECKING:  # the desk has it computed
    from gpu_token_analytics.closing.request_view import RequestPart

Json = dict[str, Any]
MAX_EVENTS = 20
MAX_RANGE = timedelta(hours=24)


def trace(desk: Desk, request_id: str, tenant: str | None) -> RequestResponse:
    """What is stored under a request id, of one tenant where it is given, with its money. Raises
    Refused."""
    documents = desk.reads.requests_by_id(request_id, tenant, MAX_EVENTS)
    if not documents:
        raise Refused(
            "not_found",
            f"no request {request_id!r} is stored (raw events are kept RAW_RETENTION_DAYS)",
        )
    now = desk.now()
    return RequestResponse(
        request_id, now, [_detail(desk, document, now, tenant) for document in documents]
    )


def requests_of_gpu(
    desk: Desk, start: datetime, end: datetime, gpu: str, limit: int
) -> RequestsResponse:
    """The newest requests that ended on a GPU in a range of at most MAX_RANGE. Raises Refused."""
    low, high = check_range(start, end)
    if high - low > MAX_RANGE:
        nearest = (timestamp(high - MAX_RANGE), timestamp(high), "none")
        raise Refused("range_too_long", "requests are listed for at most 24 hours", nearest=nearest)
    names = sorted(spellings(gpu))
    row: Json = next(filter(None, map(desk.books.gpu, names)), {})
    if row.get("host") and row.get("gpu_index") is not None:
        names.append(f"{row['host']}/{row['gpu_index']}")
    documents = desk.reads.requests_of_gpu(names, to_us(low), to_us(high), limit)
    return RequestsResponse(low, high, gpu, [_event(document) for document in documents], None)


def _event(document: Json) -> RequestEvent:
    prompt, completion = document["prompt_tokens"], document["completion_tokens"]
    return RequestEvent(
        event_id=event_id_of(document),
        request_id=document["request_id"],
        ts=document["ts"],
        started_at=from_us(document["start_us"]),
        host=document["host"],
        gpus=document["gpus"],
        model=document["model"],
        tenant=document["tenant"],
        finish_reason=document.get("finish_reason"),
        latency_ms=document.get("latency_ms"),
        queue_ms=document.get("queue_ms"),
        ttft_ms=document.get("ttft_ms"),
        tokens=Tokens(
            prompt,
            document["cached_tokens"],
            completion,
            document["reasoning_tokens"],
            prompt + completion,
        ),
        ingested_at=document.get("ingested_at") or document["ts"],
        live_cost_per_token_usd=_five_digits(document.get("cost_per_token")),
    )


def _five_digits(estimate: float | None) -> float | None:
    """As many as are stored of it (raw/encoding.py)."""
    return None if estimate is None else float(f"{estimate:.5g}")


def _detail(desk: Desk, document: Json, now: datetime, tenant: str | None) -> RequestDetail:
    parts = desk.request_parts(document, to_us(now))
    cells = desk.reads.cells_by_id([part.cell for part in parts])
    known = [part for part in parts if part.cell in cells and cells[part.cell].get("computed_at")]
    priced = [part for part in parts if part.cost_nusd is not None]
    unpriced_gpus = sorted({part.gpu for part in parts if part.cost_nusd is None})
    cost = sum(part.cost_nusd or 0 for part in priced)
    tokens = sum(part.prompt_tokens + part.completion_tokens for part in priced)
    note = None
    if unpriced_gpus:
        note = (
            f"Nobody sampled or declared {', '.join(map(visible, unpriced_gpus[:5]))}: what it "
            "cost there is not known. "
            "Run the agent, or `gpu-tokens gpus declare`."
        )
    elif len(known) < len(parts):
        note = (
            "Some of its cells are not in the ledger yet; the figures are what they will be with "
            "the events stored now."
        )
    elif not parts:
        note = "It is in no cell yet: its GPU is not known, or its events were stored a moment ago."
    return RequestDetail(
        **asdict(_event(document)),
        method=(priced or parts)[0].method if parts else None,
        cost_nusd=cost if priced else None,
        usd_per_million=usd_per_million(cost, tokens) if priced else None,
        provisional=not parts
        or any(_state(cells.get(part.cell)) != CellState.FINAL for part in parts),
        cells=_cells(parts, cells, tenant),
        note=note,
    )


def _state(cell: CellDocument | None) -> str:
    return CellState.PENDING.value if cell is None else cell["state"]


def _cells(
    parts: Sequence[RequestPart], stored: dict[CellId, CellDocument], tenant: str | None
) -> list[RequestCell]:
    """The cells of a request. A tenant's key is shown no prices."""
    cells = []
    for part in parts:
        cell = stored.get(part.cell)
        hourly = part.nusd_per_hour if tenant is None else None
        cells.append(
            RequestCell(
                cell=part.cell,
                gpu=part.gpu,
                minute=from_us(part.minute_us),
                cost_nusd=part.cost_nusd,
                prefill_cost_nusd=part.prefill_cost_nusd if part.method == Method.SWEEP else None,
                energy_mj=part.energy_mj,
                state=_state(cell),
                price_row=part.price_row if tenant is None else None,
                usd_per_hour=None if hourly is None else hourly / NUSD_PER_USD,
                revision=None if cell is None else cell["revision"],
            )
        )
    return cells
