"""/v1/costs, /v1/dimensions, /v1/break-even and /v1/export."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

from fastapi import Query
from fastapi.responses import StreamingResponse

from gpu_token_analytics.api.params import (
    BreakEvenAsked,
    ComparedAsked,
    ConvertedAsked,
    CostsAsked,
    ExportAsked,
    Range,
)
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers import BreakEvenResponse, CostsResponse, DimensionsResponse
from gpu_token_analytics.costs.answers.compared import ComparedResponse
from gpu_token_analytics.costs.answers.rates import ConvertedResponse
from gpu_token_analytics.costs.break_even import ApiPrices, against_api
from gpu_token_analytics.costs.choices import Bucket, ExportFormat
from gpu_token_analytics.costs.export import export_file
from gpu_token_analytics.costs.questions import cost_query
from gpu_token_analytics.costs.rates import converted
from gpu_token_analytics.costs.report import compared, costs_of, values_of
from gpu_token_analytics.mongo.errors import store_errors

MEDIA_TYPES = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


def costs(ask: AskDep, asked: Annotated[CostsAsked, Query()]) -> CostsResponse:
    """Money, tokens, requests and rates of a range, grouped and bucketed.

    The money of all rows fills C: attributed + unmetered work + idle by class = price x owned time.
    Money that no model caused stays in the row whose model (tenant) is null; a filter on model,
    tenant or class leaves money out, and `scope` says how much.
    """
    query = asked.query(asked.start, asked.to, asked.bucket, ask.tenant)
    return costs_of(ask.desk, query, asked.limit, asked.cursor, asked.top)


def costs_compared(ask: AskDep, asked: Annotated[ComparedAsked, Query()]) -> ComparedResponse:
    """Money of a range beside that of the period before: a month beside the month before, days
    beside as many days, all by the calendar of `time_zone`; part of a month, week or day beside the
    same part; else as long, right before."""
    return compared(ask.desk, asked.query(asked.start, asked.to, Bucket.NONE, ask.tenant))


def costs_converted(ask: AskDep, asked: Annotated[ConvertedAsked, Query()]) -> ConvertedResponse:
    """Money of a range in another currency, each part of it at the rate that held then. The ledger
    stays in nano-USD."""
    return converted(
        ask.desk, asked.query(asked.start, asked.to, Bucket.NONE, ask.tenant), asked.currency
    )


def dimensions(ask: AskDep, asked: Annotated[Range, Query()]) -> DimensionsResponse:
    """The models, tenants, GPUs, hosts and GPU names that occur in the hours of a range."""
    return values_of(ask.desk, asked.start, asked.to, ask.tenant)


def break_even(ask: AskDep, asked: Annotated[BreakEvenAsked, Query()]) -> BreakEvenResponse:
    """Own GPUs against an API's prices, one for all tokens or a list by model and kind: who wins
    now, and from what load on.

    Rows by model use the loaded rate (attributed + its share of warm idle); the row with model null
    is all money of the GPUs over all tokens: what buying the same tokens from the API would really
    replace.
    """
    query = cost_query(asked.start, asked.to, group_by=("model",), models=asked.models)
    return against_api(
        ask.desk,
        query,
        ApiPrices.of(asked.api_usd_per_million, asked.prices),
        asked.usd_per_gpu_hour,
    )


def export(ask: AskDep, asked: Annotated[ExportAsked, Query()]) -> StreamingResponse:
    """A range as a file, streamed: money exact to the nano-dollar, the same rows as /v1/costs
    (`layout=costs`) or FOCUS 1.2 (`layout=focus`). A connection that ends early has no valid end of
    file: compare with the totals of /v1/costs.
    """
    query = asked.query(asked.start, asked.to, asked.bucket, ask.tenant)
    file = export_file(
        ask.desk,
        query,
        asked.file_format,
        asked.layout,
        asked.billing_account,
        currency=asked.currency,
    )
    # The first piece is read before the answer starts: an error can still be an error.
    with store_errors("read an export"):
        first = next(file.chunks, b"")
    return StreamingResponse(
        chain((first,), file.chunks),
        media_type=MEDIA_TYPES[asked.file_format],
        headers={"Content-Disposition": f'attachment; filename="{file.name}"'},
    )
