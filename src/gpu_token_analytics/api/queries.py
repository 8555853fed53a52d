"""From query parameters to a CostQuery that is affordable, or the nearest range that would be.

What a query costs is what it reads: cells (a GPU and a minute), GPU documents (a GPU and an hour or day), fleet documents
(an hour or day). Each has a budget; see `check_cost`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gpu_token_analytics.api.errors import ApiProblem, field_problem
from gpu_token_analytics.api.models.problem import Nearest
from gpu_token_analytics.api.params import Bucket
from gpu_token_analytics.costs.read import CostQuery, Row, sort_key
from gpu_token_analytics.rollups.spans import DAY, HOUR, MINUTE, Grain, Step, ceil, floor, zone

EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
MAX_BUCKETS = 20_000

STEPS = {Bucket.NONE: Step.NONE, Bucket.MINUTE: Step.MINUTE, Bucket.HOUR: Step.HOUR, Bucket.DAY: Step.DAY}
BUCKETS = {step: bucket for bucket, step in STEPS.items()}


@dataclass(frozen=True)
class Budget:
    """Most documents one query may read."""

    cells: int
    gpu_documents: int
    fleet_documents: int


PAGE = Budget(cells=120_000, gpu_documents=50_000, fleet_documents=10_000)
EXPORT = Budget(cells=6_000_000, gpu_documents=1_000_000, fleet_documents=100_000)  # streamed in constant memory


def check_range(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The range in UTC. Raises ApiProblem: order, whole minutes, years."""
    try:
        start, end = start.astimezone(UTC), end.astimezone(UTC)
    except OverflowError:
        raise field_problem("invalid_range", "from", "from and to must lie between 2015 and 2100") from None
    for name, at in (("from", start), ("to", end)):
        if at.second or at.microsecond:
            raise field_problem(
                "invalid_range",
                name,
                f"{name}={at.isoformat()} is not on a whole minute; the ledger's cells are UTC minutes",
            )
        if not EARLIEST <= at <= LATEST:
            raise field_problem("invalid_range", name, f"{name}={at.isoformat()} is not between 2015 and 2100")
    if start >= end:
        raise field_problem("invalid_range", "to", f"to={end.isoformat()} is not after from={start.isoformat()}")
    return start, end


def check_zone(name: str) -> Any:
    """The zone of an IANA name. Raises ApiProblem."""
    try:
        return zone(name)
    except ValueError as error:
        raise field_problem("invalid_parameter", "time_zone", str(error)) from None


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
    """The query of these parameters. Raises ApiProblem for a range, zone or grouping that cannot be used."""
    start, end = check_range(start, end)
    groups = tuple(str(dimension) for dimension in group_by)
    if len(set(groups)) != len(groups):
        raise field_problem("invalid_parameter", "group_by", f"group_by={','.join(groups)} names a dimension twice")
    query = CostQuery(
        start=start,
        end=end,
        step=STEPS[bucket],
        zone=check_zone(time_zone),
        group_by=groups,
        models=frozenset(models),
        tenants=frozenset(tenants),
        gpus=frozenset(gpus),
        hosts=frozenset(hosts),
        gpu_names=frozenset(gpu_names),
        classes=frozenset(str(name) for name in classes),
        tenant_lock=tenant_lock,
    )
    if tenant_lock is not None and (query.by_place or "class" in groups or classes):
        raise ApiProblem(
            "forbidden", "a tenant's key can group and filter by model and tenant only: GPUs and idle money are shared"
        )
    return query


def check_cost(query: CostQuery, gpus: int, budget: Budget = PAGE) -> None:
    """Raise ApiProblem with the nearest accepted range when `query` reads more than `budget` on a fleet of `gpus` GPUs."""
    width = max(1, min(gpus, len(query.gpus)) if query.gpus else gpus)
    over = _over(query, width, budget)
    if over is None:
        return
    limit, nearest = over[1], query
    while over is not None and over[0] < nearest.end - nearest.start:
        nearest = _shortened(nearest, over[0])
        over = _over(nearest, width, budget)
    bucket = BUCKETS[query.step].value
    accepted = Nearest.model_validate({"from": _text(nearest.start), "to": _text(nearest.end), "bucket": bucket})
    raise ApiProblem(
        "range_too_long",
        f"bucket={bucket} from {_text(query.start)} to {_text(query.end)} reads more than {limit}; "
        f"ask from {_text(nearest.start)}, or use a coarser bucket, whole UTC hours, or fewer GPUs",
        nearest=accepted,
    )


def _over(query: CostQuery, width: int, budget: Budget) -> tuple[timedelta, str] | None:
    """(longest time that could pass, the limit in words) when a query reads too much; None: it does not."""
    if query.step is not Step.NONE and (query.end - query.start) / _length(query.step) > MAX_BUCKETS:
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


def encode_cursor(*parts: Any) -> str:
    """An opaque position."""
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(text: str, shapes: Sequence[type | tuple[type, ...]]) -> list[Any]:
    """The parts of a position. Raises ApiProblem unless they have these types."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        good = (
            isinstance(parts, list)
            and len(parts) == len(shapes)
            and all(isinstance(part, shape) for part, shape in zip(parts, shapes, strict=True))
        )
    except (ValueError, binascii.Error, RecursionError):
        good, parts = False, []
    if not good:
        raise field_problem("invalid_cursor", "cursor", "cursor is not a `next` of this query; leave it out to start anew")
    found: list[Any] = parts
    return found


def page_of_rows(rows: Sequence[dict[str, Any]], limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a whole list after a cursor, and the next page's cursor. Raises ApiProblem for a cursor of another list."""
    begin = 0
    if cursor is not None:
        (after,) = decode_cursor(cursor, (str,))
        ids = [row["_id"] for row in rows]
        if after not in ids:
            raise field_problem("invalid_cursor", "cursor", "cursor is not a `next` of this list")
        begin = ids.index(after) + 1
    page = list(rows[begin : begin + limit])
    return page, encode_cursor(page[-1]["_id"]) if begin + limit < len(rows) else None


def check_instant(name: str, at: datetime) -> None:
    """That something may be said to hold from or until then. Raises ApiProblem."""
    if not EARLIEST.replace(year=1970) <= at <= LATEST:
        raise field_problem("invalid_body", name, f"{name}={at.isoformat()} is not between 1970 and 2100")


def check_period(
    valid_from: datetime | None, valid_to: datetime | None, check: Callable[[str, datetime], None] = check_instant
) -> None:
    """That something may be said to hold from then until then; None has no end. check: of each end. Raises ApiProblem."""
    for name, at in (("valid_from", valid_from), ("valid_to", valid_to)):
        if at is not None:
            check(name, at)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise field_problem("invalid_body", "valid_to", f"valid_to={valid_to.isoformat()} is not after valid_from")


def cursor_time(text: str) -> datetime:
    """A time out of a cursor. Raises ApiProblem."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise field_problem("invalid_cursor", "cursor", "cursor holds no time") from None


def row_position(row: Row) -> str:
    """The cursor of the rows after this one."""
    return encode_cursor(_text(row.start), list(row.key))


def read_row_position(text: str, query: CostQuery) -> tuple[datetime, tuple[tuple[bool, str], ...]]:
    """(start of the bucket, order of the group) to go on after. Raises ApiProblem."""
    when, key = decode_cursor(text, (str, list))
    start = cursor_time(when)
    if len(key) != len(query.group_by) or not all(part is None or isinstance(part, str) for part in key):
        raise field_problem("invalid_cursor", "cursor", "cursor belongs to another group_by")
    if not query.start <= start < query.end:
        raise field_problem("invalid_cursor", "cursor", "cursor lies outside of from and to")
    return start, sort_key(tuple(key))
