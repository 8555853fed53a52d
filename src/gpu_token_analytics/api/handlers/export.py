"""/v1/export: the rows of /v1/costs, or FOCUS 1.2 rows, as CSV or Parquet; streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import StreamingResponse

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.errors import ApiProblem, field_problem
from gpu_token_analytics.api.queries import EXPORT, check_cost
from gpu_token_analytics.api.selection import SelectDep
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs import focus
from gpu_token_analytics.costs.files import Column, Kind, csv_chunks, parquet_chunks
from gpu_token_analytics.costs.read import CostQuery, Row
from gpu_token_analytics.costs.rows import elapsed_seconds, gpu_seconds, money_of, rates_of
from gpu_token_analytics.mongo.client import store_errors
from gpu_token_analytics.rollups.spans import Step

MEDIA_TYPES = {
    p.ExportFormat.CSV: "text/csv; charset=utf-8",
    p.ExportFormat.PARQUET: "application/vnd.apache.parquet",
}
_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_MONEY = ("attributed_nusd", "unmetered_work_nusd", "warm_idle_nusd", "cold_idle_nusd", "unobserved_nusd")
_DOUBTS = ("default_price_nusd", "unknown_gpu_requests", "unknown_gpu_tokens")
_RATES = ("active_usd_per_million", "loaded_usd_per_million", "input_usd_per_million", "output_usd_per_million")


def export(
    ask: AskDep,
    select: SelectDep,
    start: p.From,
    to: p.To,
    file_format: Annotated[p.ExportFormat, Query(alias="format", description="Kind of file.")] = p.ExportFormat.CSV,
    layout: Annotated[
        p.ExportLayout, Query(description="`focus` fixes grouping and bucket (hours) and needs a key for all tenants.")
    ] = p.ExportLayout.COSTS,
    bucket: p.BucketOf = p.Bucket.HOUR,
    billing_account: Annotated[
        str, Query(min_length=1, max_length=64, description="FOCUS BillingAccountId and -Name.")
    ] = "self-hosted",
) -> StreamingResponse:
    """A range as a file, streamed: money exact to the nano-dollar, the same rows as /v1/costs (`layout=costs`) or FOCUS
    1.2 (`layout=focus`). A connection that ends early has no valid end of file: compare with the totals of /v1/costs.
    """
    query = select(start, to, bucket, ask.tenant)
    if layout is p.ExportLayout.FOCUS:
        query = focus_query(query)
    services = ask.services
    check_cost(query, services.reads.gpu_count(), EXPORT)
    now = services.now()
    columns, lines = table(query, layout, services.exports.rows(query, now), now, billing_account)
    chunks = (csv_chunks if file_format is p.ExportFormat.CSV else parquet_chunks)(columns, lines)
    name = f"gpu-tokens-{layout.value}-{query.start:%Y%m%dT%H%MZ}-{query.end:%Y%m%dT%H%MZ}.{file_format.value}"
    # The first piece is read before the answer starts: an error can still be an error.
    with store_errors("read an export"):
        first = next(chunks, b"")
    return StreamingResponse(
        chain((first,), chunks),
        media_type=MEDIA_TYPES[file_format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def focus_query(query: CostQuery) -> CostQuery:
    """`query` in the grouping of FOCUS rows. Raises ApiProblem for a tenant's key or another grouping."""
    if query.tenant_lock is not None:
        raise ApiProblem("forbidden", "FOCUS rows name GPUs; a tenant's key exports layout=costs")
    if query.group_by:
        raise field_problem("invalid_parameter", "group_by", "layout=focus has its own grouping: leave group_by out")
    return replace(query, group_by=focus.GROUP_BY, step=Step.HOUR)


def table(
    query: CostQuery, layout: p.ExportLayout, rows: Iterable[Row], now: datetime, billing_account: str
) -> tuple[Sequence[Column], Iterator[Sequence[Any]]]:
    """Columns and lines of a file."""
    if layout is p.ExportLayout.FOCUS:
        return focus.COLUMNS, focus.focus_rows(rows, billing_account)
    return cost_columns(query), (_line(query, row, now) for row in rows)


def cost_columns(query: CostQuery) -> list[Column]:
    """The columns of layout=costs."""
    found = [Column("bucket_start", Kind.TIME), Column("bucket_end", Kind.TIME)]
    found += [Column(name, Kind.TEXT) for name in query.group_by]
    found += [Column(name, Kind.INTEGER) for name in (*_MONEY, "total_nusd", *_COUNTS)]
    found.append(Column("gpu_seconds", Kind.FLOAT))
    found += [Column(name, Kind.FLOAT) for name in _RATES]
    found.append(Column("provisional", Kind.BOOLEAN))
    return [*found, *(Column(name, Kind.INTEGER) for name in _DOUBTS)]


def _line(query: CostQuery, row: Row, now: datetime) -> list[Any]:
    money = money_of(row)
    rates = rates_of(row, elapsed_seconds(row, now), loaded=query.tenant_lock is None)
    return [
        row.start,
        row.end,
        *row.key,
        *(getattr(money, name) for name in _MONEY),
        money.total_nusd,
        *(row[name] for name in _COUNTS),
        gpu_seconds(query, row),
        *(getattr(rates, name) for name in _RATES),
        row["provisional_cells"] > 0,
        row.default_price_nusd,
        row["unknown_gpu_requests"],
        row["unknown_gpu_tokens"],
    ]
