"""Rows of /v1/costs as they are answered: money by class, tokens, ratios, quality.

A page may have 10,000 of them: structs are made and written as JSON three times as fast as dicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from gpu_token_analytics.costs.answers.costs import CostRow, Money, Quality, Rates, Tokens
from gpu_token_analytics.costs.query import (
    FLAG_COLUMNS,
    MODEL_DIMENSIONS,
    ROW,
    ROW_COLUMNS,
    TENANT_DIMENSIONS,
    CostQuery,
    Row,
)

US_PER_SECOND = 1_000_000
# nano-USD per token x 1e6 tokens / 1e9 nano-USD
USD_PER_MILLION = 1e-3
# What idle money is, everywhere: unmetered work is none, as the GPU worked.
IDLE_COLUMNS = ("warm_idle_nusd", "cold_idle_nusd", "unobserved_nusd")

# Dimensions whose rows may have money of GPUs without having their time.
OF_LINES = TENANT_DIMENSIONS | MODEL_DIMENSIONS

_REQUESTS = ROW["requests"]
_PROMPT, _CACHED = ROW["prompt_tokens"], ROW["cached_tokens"]
_COMPLETION, _REASONING = ROW["completion_tokens"], ROW["reasoning_tokens"]
_COST, _WARM, _COLD = ROW["cost_nusd"], ROW["warm_idle_nusd"], ROW["cold_idle_nusd"]
_COUNTED, _UNMEASURED, _UNOBSERVED = (
    ROW["counted_nusd"],
    ROW["unmeasured_tokens"],
    ROW["unobserved_nusd"],
)
_SPLIT_COST, _SPLIT_PREFILL = ROW["split_cost_nusd"], ROW["split_prefill_nusd"]
_SPLIT_PROMPT, _SPLIT_COMPLETION = ROW["split_prompt_tokens"], ROW["split_completion_tokens"]
_ENERGY_MJ, _ENERGY_TOKENS = ROW["energy_mj"], ROW["energy_tokens"]
_GPU_US, _UNOBSERVED_US, _UNREAD_US = ROW["gpu_us"], ROW["unobserved_us"], ROW["memory_unknown_us"]
_UNKNOWN_REQUESTS, _UNKNOWN_TOKENS = ROW["unknown_gpu_requests"], ROW["unknown_gpu_tokens"]
_FIRST_FLAG = len(ROW_COLUMNS) - len(FLAG_COLUMNS)
_PROVISIONAL, _CORRECTED = ROW["provisional_cells"], ROW["corrected_cells"]


def ratio(numerator: float, denominator: float) -> float | None:
    """Null instead of a division by zero."""
    return numerator / denominator if denominator else None


def usd_per_million(nusd: int, tokens: int) -> float | None:
    """USD per million tokens."""
    return nusd / tokens * USD_PER_MILLION if tokens else None


def gpu_seconds(query: CostQuery, row: Row) -> float | None:
    """Owned GPU time of a row. None where it is not known: time is owned by a GPU, a model or
    tenant has only money of it."""
    gpu_us = row.values[_GPU_US]
    if gpu_us:
        return gpu_us / US_PER_SECOND
    named = any(
        value is not None and name in OF_LINES
        for name, value in zip(query.group_by, row.key, strict=False)
    )
    of_lines = named or query.tenant_lock is not None or bool(query.models or query.tenants)
    return None if of_lines else 0.0


def money_of(row: Row) -> Money:
    """The money of a row; unknown where all of it ran on GPUs nobody told of."""
    v = row.values
    if row.is_unpriced:
        return Money(None, row["unmetered_work_nusd"], v[_WARM], v[_COLD], v[_UNOBSERVED], None)
    return Money(
        v[_COST], row["unmetered_work_nusd"], v[_WARM], v[_COLD], v[_UNOBSERVED], row.money_nusd
    )


def rates_of(row: Row, elapsed_seconds: float, *, loaded: bool) -> Rates:
    """The rates of a row over `elapsed_seconds`. loaded: whether warm idle money may be seen."""
    v = row.values
    tokens = v[_PROMPT] + v[_COMPLETION]
    priced = row.priced_tokens
    return Rates(
        usd_per_million(row.work_nusd, priced),
        usd_per_million(row.loaded_nusd, priced) if loaded else None,
        usd_per_million(v[_SPLIT_PREFILL], v[_SPLIT_PROMPT]),
        usd_per_million(v[_SPLIT_COST] - v[_SPLIT_PREFILL], v[_SPLIT_COMPLETION]),
        tokens / elapsed_seconds if elapsed_seconds > 0 else None,
        ratio(v[_ENERGY_MJ] / 1000, v[_ENERGY_TOKENS]),
    )


def elapsed_seconds(row: Row, now: datetime) -> float:
    """How much of the row's time is over."""
    return (min(row.end, now) - row.start).total_seconds()


def cost_rows(
    rows: Iterable[Row], query: CostQuery, now: datetime, low_volume_tokens: int
) -> Iterator[CostRow]:
    """Rows of /v1/costs. low_volume_tokens: below this many a row is marked."""
    start: datetime | None = None
    bucket: str | None = None
    elapsed, loaded = 0.0, query.tenant_lock is None
    of_classes = "class" in query.group_by or bool(query.classes)  # not counted by class
    for row in rows:
        if row.start is not start:  # rows come bucket by bucket
            start, elapsed = row.start, elapsed_seconds(row, now)
            bucket = None if row.bucket is None else row.bucket.isoformat()
        v = row.values
        tokens, gpu_us = v[_PROMPT] + v[_COMPLETION], v[_GPU_US]
        money = money_of(row)
        yield CostRow(
            bucket,
            dict(zip(query.group_by, row.key, strict=True)),
            money,
            Tokens(v[_PROMPT], v[_CACHED], v[_COMPLETION], v[_REASONING], tokens),
            v[_REQUESTS],
            gpu_seconds(query, row),
            rates_of(row, elapsed, loaded=loaded),
            Quality(
                v[_PROVISIONAL] > 0,
                v[_CORRECTED],
                tokens < low_volume_tokens,
                ratio(money.unobserved_nusd, money.total_nusd or 0) if gpu_us else None,
                1 - v[_UNOBSERVED_US] / gpu_us if gpu_us else None,
                v[_UNREAD_US] / gpu_us if gpu_us and not of_classes else None,
                row.default_price_nusd,
                v[_UNKNOWN_REQUESTS],
                v[_UNKNOWN_TOKENS],
            ),
        )


class Total:
    """Rows of a query as one, as they come. Flags are those of the buckets, each once."""

    def __init__(self, query: CostQuery) -> None:
        self._query = query
        self._values = [0] * len(ROW_COLUMNS)
        self._last_start: datetime | None = None
        self.rows = 0  # so many were added

    def add(self, rows: Sequence[Row]) -> None:
        """Add some rows; those of a bucket follow one another."""
        self.rows += len(rows)
        columns = zip(*[row.values[:_FIRST_FLAG] for row in rows], strict=True)
        for index, column in enumerate(columns):  # by columns: six times as fast as by rows
            self._values[index] += sum(column)
        for row in rows:
            if row.start != self._last_start:
                for index in range(_FIRST_FLAG, len(ROW_COLUMNS)):
                    self._values[index] += row.values[index]
                self._last_start = row.start

    def row(self) -> Row:
        """All that was added."""
        return Row(None, self._query.start, self._query.end, (), self._values)


def total_row(query: CostQuery, rows: Sequence[Row]) -> Row:
    """All rows as one."""
    total = Total(query)
    total.add(rows)
    return total.row()
