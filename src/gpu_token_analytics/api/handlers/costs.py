"""/v1/costs and /v1/break-even."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any

from fastapi.responses import Response

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.queries import BUCKETS, check_cost, cost_query, read_row_position, row_position
from gpu_token_analytics.api.render import json_response, timestamp, total_row
from gpu_token_analytics.api.selection import SelectDep
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.costs import break_even as economics
from gpu_token_analytics.costs.read import CostQuery, CostReads, Row, Scope, sort_key
from gpu_token_analytics.costs.rows import cost_rows
from gpu_token_analytics.rollups.spans import Step

Json = dict[str, Any]


def costs(
    ask: AskDep,
    select: SelectDep,
    start: p.From,
    to: p.To,
    bucket: p.BucketOf = p.Bucket.NONE,
    limit: p.Limit = 1000,
    cursor: p.Cursor = None,
) -> Response:
    """Money, tokens, requests and rates of a range, grouped and bucketed.

    The money of all rows fills C: attributed + unmetered work + idle by class = price x owned time. Money that no model caused
    stays in the row whose model (tenant) is null; a filter on model, tenant or class leaves money out, and `scope` says how
    much.
    """
    query = select(start, to, bucket, ask.tenant)
    return json_response(costs_body(ask.services, query, limit, cursor))


def costs_body(services: Services, query: CostQuery, limit: int, cursor: str | None) -> Json:
    """The answer of /v1/costs, rows as structs of cost_rows.py; `gpu-tokens report --json` prints the same."""
    now = services.now()
    check_cost(query, services.reads.gpu_count())
    page = read_page(services.costs, query, now, limit, cursor)
    low = services.settings.low_volume_tokens
    scope: Json = {
        "cost_nusd": page.scope.cost_nusd,
        "selected_nusd": page.total.money_nusd,
        "left_out_nusd": page.scope.cost_nusd - page.total.money_nusd,
        "cells": page.scope.cells,
        "cells_not_rolled": services.costs.not_rolled(query.start, query.end),
    }
    if query.tenant_lock is not None:
        scope |= {"cost_nusd": None, "left_out_nusd": None, "cells": None}
    return {
        "from": timestamp(query.start),
        "to": timestamp(query.end),
        "bucket": BUCKETS[query.step].value,
        "time_zone": query.zone.key,
        "group_by": list(query.group_by),
        "as_of": timestamp(now),
        "rows": list(cost_rows(page.rows, query, now, low)),
        "totals": next(cost_rows((page.total,), query.whole(), now, low)),
        "scope": scope,
        "next": page.next,
    }


@dataclass(frozen=True)
class CostPage:
    """Rows of one page, the total of all pages."""

    rows: list[Row]
    total: Row
    scope: Scope
    next: str | None


def read_page(reads: CostReads, query: CostQuery, now: datetime, limit: int, cursor: str | None) -> CostPage:
    """One page. A page that is everything is read once; else the total is read for itself (from coarser sums)."""
    scope = Scope()
    found = reads.rows(query, now, scope) if cursor is None else _after(reads, query, now, cursor)
    page = list(islice(found, limit + 1))
    more = len(page) > limit
    page = page[:limit]
    if cursor is None and not more:
        return CostPage(page, total_row(query, page), scope, None)
    scope = Scope()
    total = reads.total(query, now, scope)
    return CostPage(page, total, scope, row_position(page[-1]) if more else None)


def _after(reads: CostReads, query: CostQuery, now: datetime, cursor: str) -> Iterator[Row]:
    start, order = read_row_position(cursor, query)
    # The bucket of the cursor is a border of the query's buckets: going on there cuts none in two.
    rest = query if query.step is Step.NONE else replace(query, start=start)
    rows = reads.rows(rest, now)
    for row in rows:
        if row.start > start or sort_key(row.key) > order:
            yield from chain((row,), rows)


def break_even(
    ask: AskDep,
    start: p.From,
    to: p.To,
    api_usd_per_million: p.ApiPrice,
    usd_per_gpu_hour: p.WhatIfPrice = None,
    models: p.Models = [],  # noqa: B006
) -> Response:
    """Own GPUs against an API price: who wins now, and from what load on.

    Rows by model use the loaded rate (attributed + its share of warm idle); the row with model null is all money of the
    GPUs over all tokens: what buying the same tokens from the API would really replace.
    """
    query = cost_query(start, to, group_by=("model",), models=models)
    return json_response(break_even_body(ask.services, query, api_usd_per_million, usd_per_gpu_hour))


def break_even_body(services: Services, query: CostQuery, api_usd_per_million: float, usd_per_gpu_hour: float | None) -> Json:
    """The answer of /v1/break-even. query: grouped by model."""
    check_cost(query, services.reads.gpu_count())
    now = services.now()
    rows = list(services.costs.rows(query, now))
    whole = services.costs.total(replace(query, models=frozenset()), now)
    result = economics.break_even(query, rows, whole, now, api_usd_per_million, usd_per_gpu_hour)
    return {"from": timestamp(query.start), "to": timestamp(query.end), "next": None, **result}
