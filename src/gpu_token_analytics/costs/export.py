"""Rows as files: those of /v1/costs, or of FOCUS 1.2, as CSV or Parquet, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gpu_token_analytics.costs import focus
from gpu_token_analytics.costs.choices import ExportFormat, ExportLayout
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.files import Column, ColumnKind, csv_chunks, parquet_chunks, usd
from gpu_token_analytics.costs.query import Chunked, CostQuery, Row
from gpu_token_analytics.costs.questions import EXPORT, check_cost
from gpu_token_analytics.costs.row_rates import RowRates, classes_in
from gpu_token_analytics.costs.rows import elapsed_seconds, gpu_seconds, money_of, rates_of
from gpu_token_analytics.costs.whose import with_books
from gpu_token_analytics.documents import COUNTS, MoneyClass
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import Step

_MONEY = tuple(f"{name}_nusd" for name in MoneyClass)
_DOUBTS = ("default_price_nusd", "unknown_gpu_requests", "unknown_gpu_tokens")
_RATES = (
    "active_usd_per_million",
    "loaded_usd_per_million",
    "input_usd_per_million",
    "output_usd_per_million",
)


@dataclass(frozen=True)
class Export:
    """A file that is about to be written."""

    name: str
    chunks: Iterator[bytes]


def export_file(
    desk: Desk,
    query: CostQuery,
    file_format: ExportFormat,
    layout: ExportLayout,
    billing_account: str,
    notes: Mapping[str, str] | None = None,
    *,
    currency: str | None = None,
) -> Export:
    """A range as a file. billing_account: FOCUS BillingAccountId and -Name. notes: kept in the
    footer of Parquet.

    currency: money is also in this one, that of FOCUS in it alone. Raises Refused.
    """
    if layout is ExportLayout.FOCUS:
        query = focus_query(query)
    query = with_books(desk, query)
    check_cost(query, desk.reads.gpu_count(), EXPORT)
    now, rates = desk.now(), RowRates.over(desk, currency, query)
    rows = desk.exports.rows(query, now, chunked=Chunked.FINAL_BY_PIECES)
    columns, lines = table(query, layout, rows, now, billing_account, rates)
    span = f"{query.start:%Y%m%dT%H%MZ}-{query.end:%Y%m%dT%H%MZ}"
    name = f"gpu-tokens-{layout.value}-{span}.{file_format.value}"
    if file_format is ExportFormat.CSV:
        return Export(name, csv_chunks(columns, lines))
    return Export(name, parquet_chunks(columns, lines, notes))


def focus_query(query: CostQuery) -> CostQuery:
    """`query` in the grouping of FOCUS rows. Raises Refused for a tenant's key or another
    grouping."""
    if query.tenant_lock is not None:
        raise Refused("forbidden", "FOCUS rows name GPUs; a tenant's key exports layout=costs")
    if query.group_by:
        raise Refused(
            "invalid_parameter", "layout=focus has its own grouping: leave group_by out", "group_by"
        )
    return replace(query, group_by=focus.GROUP_BY, step=Step.HOUR)


def table(
    query: CostQuery,
    layout: ExportLayout,
    rows: Iterable[Row],
    now: datetime,
    billing_account: str,
    rates: RowRates | None = None,
) -> tuple[Sequence[Column], Iterator[Sequence[Any]]]:
    """Columns and lines of a file."""
    if layout is ExportLayout.FOCUS:
        return focus.COLUMNS, focus.focus_rows(
            rows, billing_account, None if rates is None else rates.total_of
        )
    if rates is None:
        return cost_columns(query), (_line(query, row, now) for row in rows)
    columns = [*cost_columns(query), *_CONVERTED]
    return columns, ([*_line(query, row, now), *_converted(rates, row)] for row in rows)


_CONVERTED = (
    Column("currency", ColumnKind.TEXT),
    Column("units_per_usd", ColumnKind.DECIMAL),
    Column("rate_valid_from", ColumnKind.TIME),
    *(
        Column(f"{name.removesuffix('_nusd')}_converted", ColumnKind.DECIMAL)
        for name in (*_MONEY, "total_nusd")
    ),
)


def _converted(rates: RowRates, row: Row) -> list[Any]:
    rate = rates.of(row)
    values = classes_in(rate, row)
    unknown = ("attributed_nusd", "total_nusd") if row.is_unpriced else ()
    money = [
        None if name in unknown else usd(nano)
        for name, nano in zip((*_MONEY, "total_nusd"), (*values, sum(values)), strict=True)
    ]
    return [rates.currency, rate.units_per_usd, rate.valid_from, *money]


def cost_columns(query: CostQuery) -> list[Column]:
    """The columns of layout=costs."""
    columns = [Column("bucket_start", ColumnKind.TIME), Column("bucket_end", ColumnKind.TIME)]
    columns += [Column(name, ColumnKind.TEXT) for name in query.group_by]
    columns += [Column(name, ColumnKind.INTEGER) for name in (*_MONEY, "total_nusd", *COUNTS)]
    columns.append(Column("gpu_seconds", ColumnKind.FLOAT))
    columns += [Column(name, ColumnKind.FLOAT) for name in _RATES]
    columns.append(Column("provisional", ColumnKind.BOOLEAN))
    return [*columns, *(Column(name, ColumnKind.INTEGER) for name in _DOUBTS)]


def _line(query: CostQuery, row: Row, now: datetime) -> list[Any]:
    money = money_of(row)
    rates = rates_of(row, elapsed_seconds(row, now), loaded=query.tenant_lock is None)
    return [
        row.start,
        row.end,
        *row.key,
        *(getattr(money, name) for name in _MONEY),
        money.total_nusd,
        *(row[name] for name in COUNTS),
        gpu_seconds(query, row),
        *(getattr(rates, name) for name in _RATES),
        row["provisional_cells"] > 0,
        row.default_price_nusd,
        row["unknown_gpu_requests"],
        row["unknown_gpu_tokens"],
    ]
