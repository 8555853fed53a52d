"""/v1/gpus, /v1/requests, /v1/ledger, /v1/audit and /v1/quality: what figures are made of, and how
far to trust it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from gpu_token_analytics.api.params import CellsAsked, GpusAsked, Range, RequestId, RequestsAsked
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers import (
    AuditResponse,
    CellsResponse,
    CorrectionsResponse,
    GpusResponse,
    QualityResponse,
    RequestResponse,
    RequestsResponse,
)
from gpu_token_analytics.costs.gpus import fleet
from gpu_token_analytics.costs.ledger import corrected_cells, identity, stored_cells
from gpu_token_analytics.costs.quality import quality_of
from gpu_token_analytics.costs.requests import requests_of_gpu, trace


def gpus(ask: AskDep, asked: Annotated[GpusAsked, Query()]) -> GpusResponse:
    """Each GPU's newest sample, price, models, and today's money by class; `today` begins at
    midnight of the time zone."""
    return fleet(ask.desk, asked.time_zone, asked.gpus, asked.hosts, asked.limit, asked.cursor)


def requests(ask: AskDep, asked: Annotated[RequestsAsked, Query()]) -> RequestsResponse:
    """The newest requests that ended on a GPU in a range of at most 24 hours: from a cell down to
    its requests."""
    return requests_of_gpu(ask.desk, asked.start, asked.to, asked.gpu, asked.limit)


def request(ask: AskDep, request_id: RequestId) -> RequestResponse:
    """One request id: its tokens, the live estimate, and its final cost by cell and GPU with the
    price rows used.

    The cost is computed again from the raw events, by the ledger's own function; it equals the
    request's part of the stored cells. A tenant's key sees its own requests, without price rows.
    """
    return trace(ask.desk, request_id, ask.tenant)


def cells(ask: AskDep, asked: Annotated[CellsAsked, Query()]) -> CellsResponse:
    """Cells as stored, by minute then GPU: every figure of /v1 is a sum of these."""
    return stored_cells(ask.desk, asked.start, asked.to, asked.gpus, asked.limit, asked.cursor)


def corrections(ask: AskDep, asked: Annotated[CellsAsked, Query()]) -> CorrectionsResponse:
    """Cells that were changed after they were final, with what moved between the classes."""
    return corrected_cells(ask.desk, asked.start, asked.to, asked.gpus, asked.limit, asked.cursor)


def audit(ask: AskDep, asked: Annotated[Range, Query()]) -> AuditResponse:
    """The identity, checked now in every stored cell of the range and in total, and against the
    hourly sums.

    `gpu-tokens audit` also computes every cell again from raw events.
    """
    return identity(ask.desk, asked.start, asked.to)


def quality(ask: AskDep, asked: Annotated[Range, Query()]) -> QualityResponse:
    """Coverage, provisional, late and corrected cells by hour, and the dead letters by reason."""
    return quality_of(ask.desk, asked.start, asked.to)
