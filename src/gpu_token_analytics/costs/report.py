"""Money, tokens and rates of a range, grouped and bucketed: /v1/costs and `gpu-tokens report`; a
range beside the period before it; and the values to filter by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from heapq import nlargest
from itertools import chain, dropwhile, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace as replace_struct

from gpu_token_analytics.costs.answers.compared import ComparedResponse, ComparedRow
from gpu_token_analytics.costs.answers.costs import (
    CostRow,
    CostsResponse,
    DimensionsResponse,
    Scope,
)
from gpu_token_analytics.costs.cursors import RowPosition, read_row_position, row_position
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.periods import range_before
from gpu_token_analytics.costs.query import (
    CLASSLESS_COLUMNS,
    ROW,
    Chunked,
    CostQuery,
    Row,
    Sight,
    sort_key,
)
from gpu_token_analytics.costs.questions import BUCKETS, check_cost, check_range, cost_query
from gpu_token_analytics.costs.rows import Total, cost_rows, ratio, total_row
from gpu_token_analytics.costs.whose import with_books
from gpu_token_analytics.errors import LinesReplaced, Refused
from gpu_token_analytics.rollups.spans import Step

if TYPE_CHECKING:  # the desk has one
    from gpu_token_analytics.costs.read import CostReads

T = TypeVar("T")

MAX_GROUPS = 10_000
ROWS_AT_ONCE = 4_000
PAGE_TRIES = 9  # and once more: sums that are written anew while a page of them is read


def costs_of(
    desk: Desk, query: CostQuery, limit: int, cursor: str | None = None, top: int | None = None
) -> CostsResponse:
    """The answer of /v1/costs: at most `limit` rows, after `cursor`; or the `top` first of each
    bucket's groups by money. Raises Refused."""
    now = desk.now()
    query = with_books(desk, query)
    check_cost(query, desk.reads.gpu_count())
    if top is None:
        page = read_page(desk.costs, query, now, limit, cursor)
    else:
        if cursor is not None:
            raise Refused(
                "invalid_parameter", f"top={top} is of a whole range: leave cursor out", "top"
            )
        page = read_top(desk.costs, query, now, top)
    low_volume_tokens = desk.settings.low_volume_tokens
    shared = query.tenant_lock is None  # a tenant's key is not told what others cost
    return CostsResponse(
        from_=query.start,
        to=query.end,
        bucket=BUCKETS[query.step].value,
        time_zone=query.zone.key,
        group_by=list(query.group_by),
        as_of=now,
        rows=list(cost_rows(page.rows, query, now, low_volume_tokens)),
        totals=next(cost_rows((page.total,), query.whole(), now, low_volume_tokens)),
        scope=Scope(
            cost_nusd=page.sight.cost_nusd if shared else None,
            selected_nusd=page.total.money_nusd,
            left_out_nusd=page.sight.cost_nusd - page.total.money_nusd if shared else None,
            cells=page.sight.cells if shared else None,
            cells_not_rolled=desk.costs.not_rolled(query.start, query.end),
        ),
        next=page.next,
        changed=page.changed,
        row_count=page.row_count,
    )


def compared(desk: Desk, query: CostQuery) -> ComparedResponse:
    """The answer of /v1/costs/compared; query: without buckets. Raises Refused."""
    start, end = range_before(query.start, query.end, query.zone)
    now = costs_of(desk, query, MAX_GROUPS)
    before = costs_of(desk, replace(query, start=start, end=end), MAX_GROUPS)
    if now.next or before.next:
        raise too_many_groups()
    pairs: dict[tuple[str | None, ...], list[CostRow | None]] = {}
    for side, rows in enumerate((now.rows, before.rows)):
        for row in rows:
            pairs.setdefault(tuple(row.group.values()), [None, None])[side] = row
    return ComparedResponse(
        from_=now.from_,
        to=now.to,
        before_from=before.from_,
        before_to=before.to,
        time_zone=now.time_zone,
        group_by=now.group_by,
        rows=[_compared_row(*pairs[key]) for key in sorted(pairs, key=sort_key)],
        totals=_compared_row(now.totals, before.totals),
    )


def too_many_groups() -> Refused:
    """What whoever asks for more than MAX_GROUPS groups at once is told."""
    return Refused(
        "range_too_long", f"there are more than {MAX_GROUPS:,} groups; group by less, or filter"
    )


def _compared_row(now: CostRow | None, before: CostRow | None) -> ComparedRow:
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


def values_of(desk: Desk, start: datetime, end: datetime, tenant: str | None) -> DimensionsResponse:
    """The values that occur in the hours of a range; for a tenant only itself and its models.
    Raises Refused."""
    low, high = check_range(start, end)
    check_cost(cost_query(low, high, group_by=() if tenant else ("gpu",)), desk.reads.gpu_count())
    values = desk.reads.values(low, high, tenant)
    return DimensionsResponse(
        from_=low,
        to=high,
        next=None,
        models=sorted(values.models),
        tenants=sorted(values.tenants),
        gpus=sorted(values.gpus),
        hosts=sorted(values.hosts),
        gpu_names=sorted(values.gpu_names),
    )


@dataclass(frozen=True)
class CostPage:
    """Rows of one page, the total of all pages. changed: the bucket that the page before ended in
    is no longer what it was then. row_count: of all pages; None: nobody counted."""

    rows: list[Row]
    total: Row
    sight: Sight
    next: str | None
    changed: bool = False
    row_count: int | None = None


def read_page(
    reads: CostReads, query: CostQuery, now: datetime, limit: int, cursor: str | None
) -> CostPage:
    """One page. A page that is everything is read once; else the total is read for itself (from
    coarser sums). Rows of a bucket are of one state of it."""
    after = None if cursor is None else read_row_position(cursor, query)
    return of_one_state(lambda: _page(reads, query, now, limit, after))


def read_top(reads: CostReads, query: CostQuery, now: datetime, top: int) -> CostPage:
    """The first `top` rows by bucket, then by money, dearest first: of one state, as is their
    total. All of a bucket are looked at, a few in memory at a time; where there are more than
    MAX_GROUPS, no bucket after the one in which there are enough: the total is then read for
    itself."""

    def read() -> CostPage:
        sight, total = Sight(), Total(query)
        rows = groupby(reads.rows(query, now, sight, Chunked.BY_PIECES), key=attrgetter("start"))
        first: list[Row] = []
        for _, of_bucket in rows:
            if len(first) >= top and total.rows >= MAX_GROUPS:
                whole = reads.total(query, now, sight := Sight(), Chunked.BY_PIECES)
                return CostPage(first, whole, sight, None)
            room = top - len(first)
            dearest: list[Row] = []
            while some := list(islice(of_bucket, ROWS_AT_ONCE)):
                total.add(some)
                dearest = nlargest(room, chain(dearest, some), key=attrgetter("money_nusd"))
            first += dearest
        whole = _with_classless(reads, query, now, total.row())
        return CostPage(first, whole, sight, None, row_count=total.rows)

    return of_one_state(read)


def of_one_state(read: Callable[[], T]) -> T:
    """What `read` makes of rows by pieces, read again where the sums were written anew meanwhile.
    Raises LinesReplaced when they always are."""
    for _ in range(PAGE_TRIES):
        with suppress(LinesReplaced):
            return read()
    return read()


def _page(
    reads: CostReads, query: CostQuery, now: datetime, limit: int, after: RowPosition | None
) -> CostPage:
    sight = Sight()
    page = list(islice(_rows(reads, query, now, sight, after), limit + 1))
    more = len(page) > limit
    page = page[:limit]
    if after is None and not more:
        whole = _with_classless(reads, query, now, total_row(query, page))
        return CostPage(page, whole, sight, None, row_count=len(page))
    upto = row_position(query, page[-1], sight.states[page[-1].start]) if more else None
    changed = after is not None and sight.states.get(after.start) != after.state
    sight = Sight()
    total = reads.total(query, now, sight, Chunked.BY_PIECES)
    return CostPage(page, total, sight, upto, changed)


def _with_classless(reads: CostReads, query: CostQuery, now: datetime, total: Row) -> Row:
    """The total of rows, with what no row has where rows are classes: what was measured of a whole
    GPU. Without it the total would say 0 for what is known."""
    if "class" not in query.group_by:
        return total
    whole, values = reads.total(query, now, chunked=Chunked.BY_PIECES), list(total.values)
    for name in CLASSLESS_COLUMNS:
        values[ROW[name]] = whole[name]
    return replace_struct(total, values=values)


def _rows(
    reads: CostReads, query: CostQuery, now: datetime, sight: Sight, after: RowPosition | None
) -> Iterator[Row]:
    if after is None:
        return reads.rows(query, now, sight, Chunked.BY_PIECES)
    # The bucket of the cursor is a border of the query's buckets: going on there cuts none in two.
    rest = query if query.step is Step.NONE else replace(query, start=after.start)
    rows = reads.rows(rest, now, sight, Chunked.BY_PIECES, after.order)
    return dropwhile(
        lambda row: row.start == after.start and sort_key(row.key) <= after.order, rows
    )
