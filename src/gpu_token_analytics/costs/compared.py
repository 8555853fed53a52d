"""A range beside the period before it, by group: /v1/costs/compared and `gpu-tokens report --compare`."""

from __future__ import annotations

from dataclasses import replace

from gpu_token_analytics.costs.answers.compared import ComparedResponse, ComparedRow
from gpu_token_analytics.costs.answers.costs import CostRow
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.periods import range_before
from gpu_token_analytics.costs.query import CostQuery, sort_key
from gpu_token_analytics.costs.report import costs_of
from gpu_token_analytics.costs.rows import ratio
from gpu_token_analytics.errors import Refused

MAX_GROUPS = 10_000


def compared(desk: Desk, query: CostQuery) -> ComparedResponse:
    """The answer of /v1/costs/compared; query: without buckets. Raises Refused."""
    start, end = range_before(query.start, query.end, query.zone)
    now = costs_of(desk, query, MAX_GROUPS)
    before = costs_of(desk, replace(query, start=start, end=end), MAX_GROUPS)
    if now.next or before.next:
        raise Refused("range_too_long", f"there are more than {MAX_GROUPS:,} groups; group by less, or filter")
    pairs: dict[tuple[str | None, ...], list[CostRow | None]] = {}
    for place, rows in enumerate((now.rows, before.rows)):
        for row in rows:
            pairs.setdefault(tuple(row.group.values()), [None, None])[place] = row
    return ComparedResponse(
        from_=now.from_,
        to=now.to,
        before_from=before.from_,
        before_to=before.to,
        time_zone=now.time_zone,
        group_by=now.group_by,
        rows=[_row(*pairs[key]) for key in sorted(pairs, key=sort_key)],
        totals=_row(now.totals, before.totals),
    )


def _row(now: CostRow | None, before: CostRow | None) -> ComparedRow:
    some = now or before
    assert some is not None
    total, total_before = (0 if row is None else row.money.total_nusd for row in (now, before))
    changed = None if total is None or total_before is None else total - total_before
    return ComparedRow(
        group=some.group,
        money=now.money if now else None,
        before=before.money if before else None,
        changed_nusd=changed,
        changed_share=None if changed is None else ratio(changed, total_before or 0),
        tokens=now.tokens.total if now else 0,
        tokens_before=before.tokens.total if before else 0,
        requests=now.requests if now else 0,
        requests_before=before.requests if before else 0,
        active_usd_per_million=now.rates.active_usd_per_million if now else None,
        active_usd_per_million_before=before.rates.active_usd_per_million if before else None,
    )
