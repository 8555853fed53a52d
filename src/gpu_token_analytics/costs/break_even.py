"""When do own GPUs beat an API? Pure arithmetic over ledger sums.

With M the money of a time of H hours, T its tokens, p the API's USD per million tokens:

    own $/M              M / T
    break-even tokens/h  (M / H) / p      the GPUs cost the same whether busy or not
    break-even ratio     break-even tokens/h over T / H: 0.5 means that half of today's load would do
    break-even share     attributed share of the money now x ratio: load is taken to scale with busy time; above 1 the
                         GPUs cannot win at this price, however full
A what-if price per GPU-hour scales all money by (what-if x owned GPU hours) / M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gpu_token_analytics.costs.answers.costs import BreakEvenResponse, BreakEvenRow
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.questions import check_cost
from gpu_token_analytics.documents import NUSD_PER_USD, US_PER_HOUR


def against_api(desk: Desk, query: CostQuery, api_usd_per_million: float, usd_per_gpu_hour: float | None) -> BreakEvenResponse:
    """The answer of /v1/break-even. query: grouped by model. usd_per_gpu_hour: what if a GPU-hour cost this? Raises Refused."""
    check_cost(query, desk.reads.gpu_count())
    now = desk.now()
    rows = list(desk.costs.rows(query, now))
    whole = desk.costs.total(replace(query, models=frozenset()), now)
    return compared(query, rows, whole, now, api_usd_per_million, usd_per_gpu_hour)


def compared(
    query: CostQuery,
    rows: Sequence[Row],
    whole: Row,
    now: datetime,
    api_usd_per_million: float,
    usd_per_gpu_hour: float | None,
) -> BreakEvenResponse:
    """rows: by model, the null row may be among them. whole: everything."""
    hours = max(0.0, (min(query.end, now) - query.start).total_seconds() / 3600)
    gpu_hours = whole["gpu_us"] / US_PER_HOUR
    paid_usd = whole.money_nusd / NUSD_PER_USD
    own_price = paid_usd / gpu_hours if gpu_hours else None
    factor = 1.0 if usd_per_gpu_hour is None or not own_price else usd_per_gpu_hour / own_price
    compared_rows = [
        _row(row.key[0], row, row["cost_nusd"] + row["warm_idle_nusd"], factor, hours, api_usd_per_million)
        for row in rows
        if row.key[0] is not None
    ]
    if not query.models:
        compared_rows.append(_row(None, whole, whole.money_nusd, factor, hours, api_usd_per_million))
    return BreakEvenResponse(
        from_=query.start,
        to=query.end,
        next=None,
        usd_per_gpu_hour=usd_per_gpu_hour,
        own_usd_per_gpu_hour=own_price,
        rows=compared_rows,
    )


def _row(model: str | None, row: Row, nusd: int, factor: float, hours: float, api_usd_per_million: float) -> BreakEvenRow:
    tokens = row.priced_tokens  # those whose money is known
    own_usd = nusd * factor / NUSD_PER_USD
    api_usd = tokens * api_usd_per_million / 1e6
    per_hour = tokens / hours if hours else None
    even = own_usd / hours / api_usd_per_million * 1e6 if hours and api_usd_per_million else None
    load = even / per_hour if even is not None and per_hour else None
    used = row["cost_nusd"] / nusd if nusd else None
    needed = used * load if used is not None and load is not None else None
    return BreakEvenRow(
        model=model,
        tokens=tokens,
        tokens_per_hour=per_hour,
        own_usd_per_million=own_usd / tokens * 1e6 if tokens else None,
        api_usd_per_million=api_usd_per_million,
        own_wins=own_usd < api_usd if tokens else None,
        saved_nusd=round((api_usd - own_usd) * NUSD_PER_USD) if tokens else None,
        break_even_tokens_per_hour=even,
        break_even_ratio=load,
        break_even_utilization=needed if needed is not None and needed <= 1 else None,
        utilization=used,
    )
