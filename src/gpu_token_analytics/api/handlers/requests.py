"""/v1/requests: from a request to the cells, price rows and GPUs its money came from, and from a GPU to its requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import Response

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.models.problem import Nearest
from gpu_token_analytics.api.queries import check_range
from gpu_token_analytics.api.render import json_response, timestamp
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.closing.request_view import RequestPart, request_parts
from gpu_token_analytics.costs.rows import usd_per_million
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.times import from_us, to_us

Json = dict[str, Any]
MAX_EVENTS = 20
MAX_RANGE = timedelta(hours=24)


def request(ask: AskDep, request_id: p.RequestId) -> Response:
    """One request id: its tokens, the live estimate, and its final cost by cell and GPU with the price rows used.

    The cost is computed again from the raw events, by the ledger's own function; it equals the request's part of the
    stored cells. A tenant's key sees its own requests, without price rows.
    """
    services = ask.services
    documents = services.reads.requests_by_id(request_id, ask.tenant, MAX_EVENTS)
    if not documents:
        raise ApiProblem("not_found", f"no request {request_id!r} is stored (raw events are kept RAW_RETENTION_DAYS)")
    now = services.now()
    body = {
        "request_id": request_id,
        "as_of": timestamp(now),
        "events": [_detail(services, document, now, ask.tenant) for document in documents],
    }
    return json_response(body)


def requests_of_gpu(
    ask: AskDep,
    start: p.From,
    to: p.To,
    gpu: Annotated[str, Query(min_length=1, max_length=256, description="GPU id, as in /v1/gpus.")],
    limit: p.CellLimit = 100,
) -> Response:
    """The newest requests that ended on a GPU in a range of at most 24 hours: from a cell down to its requests."""
    low, high = check_range(start, to)
    if high - low > MAX_RANGE:
        nearest = Nearest.model_validate({"from": timestamp(high - MAX_RANGE), "to": timestamp(high), "bucket": "none"})
        raise ApiProblem("range_too_long", "requests are listed for at most 24 hours", nearest=nearest)
    services = ask.services
    row = services.ledger.books.gpu(gpu) or {}
    names = [gpu, *([f"{row['host']}/{row['gpu_index']}"] if row.get("host") and row.get("gpu_index") is not None else [])]
    found = services.reads.requests_of_gpu(names, to_us(low), to_us(high), limit)
    body = {
        "from": timestamp(low),
        "to": timestamp(high),
        "gpu": gpu,
        "requests": [_event(document) for document in found],
        "next": None,
    }
    return json_response(body)


def _event(document: Json) -> Json:
    prompt, completion = document["prompt_tokens"], document["completion_tokens"]
    return {
        "event_id": event_id_of(document),
        "request_id": document["request_id"],
        "ts": timestamp(document["ts"]),
        "started_at": timestamp(from_us(document["start_us"])),
        "host": document["host"],
        "gpus": document["gpus"],
        "model": document["model"],
        "tenant": document["tenant"],
        "finish_reason": document.get("finish_reason"),
        "latency_ms": document.get("latency_ms"),
        "queue_ms": document.get("queue_ms"),
        "ttft_ms": document.get("ttft_ms"),
        "tokens": {
            "prompt": prompt,
            "cached": document["cached_tokens"],
            "completion": completion,
            "reasoning": document["reasoning_tokens"],
            "total": prompt + completion,
        },
        "ingested_at": timestamp(document.get("ingested_at") or document["ts"]),
        "live_cost_per_token_usd": document.get("cost_per_token"),
    }


def _detail(services: Services, document: Json, now: datetime, tenant: str | None) -> Json:
    parts = request_parts(services.ledger, params_of(services.settings), document, to_us(now))
    stored = services.reads.cells_by_id([part.cell for part in parts])
    known = [part for part in parts if part.cell in stored and stored[part.cell].get("computed_at")]
    priced = [part for part in parts if part.cost_nusd is not None]
    unpriced_gpus = sorted({part.gpu for part in parts if part.cost_nusd is None})
    cost = sum(part.cost_nusd or 0 for part in priced)
    tokens = sum(part.prompt_tokens + part.completion_tokens for part in priced)
    note = None
    if unpriced_gpus:
        note = (
            f"Nobody sampled or declared {', '.join(map(visible, unpriced_gpus[:5]))}: what it cost there is not known. "
            "Run the agent, or `gpu-tokens gpus declare`."
        )
    elif len(known) < len(parts):
        note = "Some of its cells are not in the ledger yet; the figures are what they will be with the events stored now."
    elif not parts:
        note = "It is in no cell yet: its GPU is not known, or its events were stored a moment ago."
    return {
        **_event(document),
        "method": (priced or parts)[0].method if parts else None,
        "cost_nusd": cost if priced else None,
        "usd_per_million": usd_per_million(cost, tokens) if priced else None,
        "provisional": any(stored.get(part.cell, {}).get("state") != "final" for part in parts) or not parts,
        "cells": _cells(parts, stored, tenant),
        "note": note,
    }


def _cells(parts: Sequence[RequestPart], stored: dict[str, Json], tenant: str | None) -> list[Json]:
    found = []
    for part in parts:
        cell = stored.get(part.cell, {})
        shown = tenant is None
        hourly = part.nusd_per_hour
        found.append(
            {
                "cell": part.cell,
                "gpu": part.gpu,
                "minute": timestamp(datetime.fromtimestamp(part.minute_us / 1e6, UTC)),
                "cost_nusd": part.cost_nusd,
                "prefill_cost_nusd": part.prefill_cost_nusd if part.method == "sweep" else None,
                "energy_mj": part.energy_mj,
                "state": cell.get("state") or "pending",
                "price_row": part.price_row if shown else None,
                "usd_per_hour": hourly / NUSD_PER_USD if shown and hourly is not None else None,
                "revision": cell.get("revision"),
            }
        )
    return found
