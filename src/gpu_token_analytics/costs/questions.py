"""From what is asked to a CostQuery that is affordable, or the nearest range that would be.

What a query costs is what it reads: cells (a GPU and a minute), GPU documents (a GPU and an hour or
day), fleet documents (an hour or day). Each has a budget; see `check_cost`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gpu_token_analytics.costs.choices import Bucket
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import DAY, HOUR, MINUTE, Grain, Step, ceil, floor, zone
from gpu_token_analytics.wire.names import canonical_host, spellings

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
MAX_BUCKETS = 20_000

STEPS = {
    Bucket.NONE: Step.NONE,
    Bucket.MINUTE: Step.MINUTE,
    Bucket.HOUR: Step.HOUR,
    Bucket.DAY: Step.DAY,
}
BUCKETS = {step: bucket for bucket, step in STEPS.items()}


@dataclass(frozen=True)
class ReadBudget:
    """Most documents one query may read."""

    cells: int
    gpu_documents: int
    fleet_documents: int


PAGE = ReadBudget(cells=120_000, gpu_documents=50_000, fleet_documents=10_000)
# streamed in constant memory
EXPORT = ReadBudget(cells=6_000_000, gpu_documents=1_000_000, fleet_documents=100_000)


def check_range(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The range in UTC. Raises Refused: order, whole minutes, years."""
    try:
        start, end = start.astimezone(UTC), end.astimezone(UTC)
    except OverflowError:
        raise Refused(
            "invalid_range", "from and to must lie between 2015 and 2100", "from"
        ) from None
    for name, at in (("from", start), ("to", end)):
        if at.second or at.microsecond:
            raise Refused(
                "invalid_range",
                (
                    f"{name}={at.isoformat()} is not on a whole minute; the ledger's cells are UTC "
                    "minutes"
                ),
                name,
            )
        if not EARLIEST <= at <= LATEST:
            raise Refused(
                "invalid_range", f"{name}={at.isoformat()} is not between 2015 and 2100", name
            )
    if start >= end:
        raise Refused(
            "invalid_range", f"to={end.isoformat()} is not after from={start.isoformat()}", "to"
        )
    return start, end


def gpus_asked(names: Iterable[str]) -> frozenset[str]:
    """GPUs as they are stored, of names as people write them."""
    return frozenset(name for asked in names for name in spellings(asked))


def hosts_asked(names: Iterable[str]) -> frozenset[str]:
    """Hosts as they are stored, of names as people write them."""
    return frozenset(name for asked in names for name in (asked, canonical_host(asked)))


def check_zone(name: str) -> Any:
    """The zone of an IANA name. Raises Refused."""
    try:
        return zone(name)
    except ValueError as error:
        raise Refused("invalid_parameter", str(error), "time_zone") from None


def cost_query(
    start: datetime,
    end: datetime,
    bucket: Bucket = Bucket.NONE,
    time_zone: str = "UTC",
    group_by: Sequence[str] = (),
    *,
    models: Sequence[str] = (),
    tenants: Sequence[str] = (),
    gpus: Sequence[str] = (),
    hosts: Sequence[str] = (),
    gpu_names: Sequence[str] = (),
    classes: Sequence[str] = (),
    tenant_lock: str | None = None,
) -> CostQuery:
    """The query of these parameters. Raises Refused for a range, zone or grouping that cannot be
    used."""
    start, end = check_range(start, end)
    groups = tuple(str(dimension) for dimension in group_by)
    if len(set(groups)) != len(groups):
        raise Refused(
            "invalid_parameter", f"group_by={','.join(groups)} names a dimension twice", "group_by"
        )
    query = CostQuery(
        start=start,
        end=end,
        step=STEPS[bucket],
        zone=check_zone(time_zone),
        group_by=groups,
        models=frozenset(models),
        tenants=frozenset(tenants),
        gpus=gpus_asked(gpus),
        hosts=hosts_asked(hosts),
        gpu_names=frozenset(gpu_names),
        classes=frozenset(str(name) for name in classes),
        tenant_lock=tenant_lock,
    )
    if tenant_lock is not None and (
        query.by_place or "class" in groups or "team" in groups or classes
    ):
        raise Refused(
            "forbidden",
            (
                "a tenant's key can group and filter by model and tenant only: GPUs and idle money "
                "are shared"
            ),
        )
    return query


def check_cost(query: CostQuery, gpus: int, budget: ReadBudget = PAGE) -> None:
    """Raise Refused with the nearest accepted range when `query` reads more than `budget` on a
    fleet of `gpus` GPUs."""
    width = max(1, min(gpus, len(query.gpus)) if query.gpus else gpus)
    over = _over(query, width, budget)
    if over is None:
        return
    limit, nearest = over[1], query
    while over is not None and over[0] < nearest.end - nearest.start:
        nearest = _shortened(nearest, over[0])
        over = _over(nearest, width, budget)
    bucket = BUCKETS[query.step].value
    raise Refused(
        "range_too_long",
        f"bucket={bucket} from {_text(query.start)} to {_text(query.end)} reads more than {limit}; "
        f"ask from {_text(nearest.start)}, or use a coarser bucket, whole UTC hours, or fewer GPUs",
        nearest=(_text(nearest.start), _text(nearest.end), bucket),
    )


def _over(query: CostQuery, width: int, budget: ReadBudget) -> tuple[timedelta, str] | None:
    """(longest time that could pass, the limit in words) when a query reads too much; None: it does
    not."""
    if (
        query.step is not Step.NONE
        and (query.end - query.start) / _length(query.step) > MAX_BUCKETS
    ):
        return MAX_BUCKETS * _length(query.step), f"{MAX_BUCKETS:,} buckets"
    # By arithmetic first: a refusal must not cost the list of what would have been read.
    most_days = (budget.gpu_documents // width if query.by_place else budget.fleet_documents) + 2
    if query.end - query.start > most_days * DAY:
        return most_days * DAY, f"{most_days:,} daily sums"
    read = dict.fromkeys(Grain, 0)
    for span in query.spans:
        read[span.grain] += span.units
    if read[Grain.MINUTES] * width > budget.cells:
        return budget.cells // width * MINUTE, f"{budget.cells:,} GPU-minutes"
    per_unit = width if query.by_place else 1
    most = (budget.gpu_documents if query.by_place else budget.fleet_documents) // per_unit
    hours = read[Grain.HOURS] + (read[Grain.HALF_HOURS] + 1) // 2  # both halves are in one document
    if hours + read[Grain.DAYS] > most:
        unit = HOUR if hours > read[Grain.DAYS] else DAY
        return most * unit, f"{most * per_unit:,} hourly or daily sums"
    return None


def _shortened(query: CostQuery, most: timedelta) -> CostQuery:
    """The end of `query`, at most `most` long, on whole hours where there is room for one."""
    unit = max(_length(query.step), HOUR if most >= 2 * HOUR else MINUTE)
    end = floor(query.end, MINUTE)
    start = max(query.start, ceil(end - max(unit, most), unit))
    return replace(query, start=start if start < end else end - unit)


def _length(step: Step) -> timedelta:
    return {Step.NONE: timedelta(0), Step.MINUTE: MINUTE, Step.HOUR: HOUR, Step.DAY: DAY}[step]


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
