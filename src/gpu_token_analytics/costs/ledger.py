"""The ledger itself: cells as stored, what was corrected in them, and whether the identity
holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.costs.answers.base import timestamp
from gpu_token_analytics.costs.answers.ledger import (
    AuditFinding,
    AuditResponse,
    Cell,
    CellLine,
    CellsResponse,
    CorrectionsResponse,
    CountedLine,
)
from gpu_token_analytics.costs.cursors import cursor_time, decode_cursor, encode_cursor
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CellFilter, CostQuery
from gpu_token_analytics.costs.questions import check_range, gpus_asked
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.rollups.spans import HOUR, floor

Json = dict[str, Any]

MAX_AUDIT_CELLS = 500_000
_LINE_FIELDS = CellLine.__struct_fields__[:-1]  # `counted` is made of what some lines have
CHECKED = [
    "In every computed cell the five classes sum to its money, price x owned time.",
    "In every computed cell the class times sum to the owned time.",
    "In every computed cell the lines sum to `attributed`.",
    (
        "The rollups of whole hours hold the same money as their cells (when nothing waits to be "
        "rolled)."
    ),
]


def stored_cells(
    desk: Desk,
    start: datetime,
    end: datetime,
    gpus: Collection[str],
    limit: int,
    cursor: str | None,
) -> CellsResponse:
    """One page of the stored cells of a range, by minute then GPU. Raises Refused."""
    low, high = check_range(start, end)
    page, following = _page(desk, CellFilter(low, high, gpus_asked(gpus)), limit, cursor)
    return CellsResponse(from_=low, to=high, cells=page, next=following)


def corrected_cells(
    desk: Desk,
    start: datetime,
    end: datetime,
    gpus: Collection[str],
    limit: int,
    cursor: str | None,
) -> CorrectionsResponse:
    """One page of the cells that were changed after they were final. Raises Refused."""
    low, high = check_range(start, end)
    page, following = _page(
        desk, CellFilter(low, high, gpus_asked(gpus), corrected=True), limit, cursor
    )
    return CorrectionsResponse(from_=low, to=high, cells=page, next=following)


def _page(
    desk: Desk, which: CellFilter, limit: int, cursor: str | None
) -> tuple[list[Cell], str | None]:
    after = None
    if cursor is not None:
        minute, gpu = decode_cursor(cursor, (str, str))
        after = (cursor_time(minute, which.start, which.end), gpu)
    stored, more = desk.reads.cells(which, after, limit)
    following = encode_cursor(timestamp(stored[-1]["minute"]), stored[-1]["gpu"]) if more else None
    return [cell(document) for document in stored], following


def cell(document: CellDocument) -> Cell:
    """A stored cell as /v1 shows it; one that is not computed yet has zeros and the state
    `pending`."""
    lines: Sequence[Mapping[str, Any]] = document.get("lines", ())
    return Cell(
        cell=document["_id"],
        gpu=document["gpu"],
        minute=document["minute"],
        state=document["state"],
        cost_nusd=document.get("cost_nusd", 0),
        owned_us=document.get("owned_us", 0),
        classes=document.get("classes") or dict.fromkeys(map(str, MoneyClass), 0),
        class_us=document.get("class_us") or dict.fromkeys(map(str, MoneyClass), 0),
        memory_unknown_us=document.get("memory_unknown_us", 0),
        energy_observed_us=document.get("energy_observed_us", 0),
        host=document.get("host"),
        gpu_name=document.get("gpu_name"),
        energy_mj=document.get("energy_mj"),
        params=document.get("params"),
        lines=[_line(line) for line in lines],
        lines_left_out=document["line_ref"]["lines"] - len(lines) if "line_ref" in document else 0,
        price={**(document.get("price") or {})},
        samples=document.get("samples", 0),
        requests_active=document.get("requests_active", 0),
        revision=document.get("revision", 0),
        due="due_at" in document,
        computed_at=document.get("computed_at"),
        corrections=[{**correction} for correction in document.get("corrections", ())],
    )


def _line(line: Mapping[str, Any]) -> CellLine:
    counted = line.get("counted")
    fields = {name: line[name] for name in _LINE_FIELDS} | {"tenant": line["tenant"] or None}
    return CellLine(**fields, counted=None if counted is None else CountedLine(**counted))


def identity(desk: Desk, start: datetime, end: datetime) -> AuditResponse:
    """The identity, checked now in every stored cell of a range and in total, and against the
    hourly sums. Raises Refused."""
    low, high = check_range(start, end)
    count = desk.reads.cell_count(low, high)
    if count > MAX_AUDIT_CELLS:
        shorter = high - floor_hours((high - low) * (MAX_AUDIT_CELLS / count))
        raise Refused(
            "range_too_long",
            f"{count:,} cells; at most {MAX_AUDIT_CELLS:,} are audited in one request",
            nearest=(timestamp(shorter), timestamp(high), "none"),
        )
    total, broken = desk.reads.identity(low, high)
    findings = [_finding(document) for document in broken]
    not_rolled = desk.costs.not_rolled(low, high)
    rolled: int | None = None
    if low == floor(low, HOUR) and high == floor(high, HOUR):
        rolled = desk.costs.total(CostQuery(low, high), desk.now()).money_nusd
        if not not_rolled and rolled != total["cost_nusd"]:
            detail = f"rollups hold {rolled}, cells {total['cost_nusd']}"
            findings.append(AuditFinding("total", "rollups_equal_cells", detail))
    return AuditResponse(
        from_=low,
        to=high,
        next=None,
        as_of=desk.now(),
        holds=not findings,
        cells=total["cells"],
        cells_pending=desk.reads.pending_count(low, high),
        cells_not_rolled=not_rolled,
        cost_nusd=total["cost_nusd"],
        classes={str(name): total[str(name)] for name in MoneyClass},
        lines_nusd=total["lines_nusd"],
        rollups_nusd=rolled,
        default_price_nusd=total["default_price_nusd"],
        unknown_gpu_requests=total["unknown_gpu_requests"],
        unknown_gpu_tokens=total["unknown_gpu_tokens"],
        findings=findings,
        checked=CHECKED,
    )


def floor_hours(length: timedelta) -> timedelta:
    """Whole hours of a length, one at least."""
    return max(HOUR, length - length % HOUR)


def _finding(broken: Json) -> AuditFinding:
    if broken["class_sum"] != broken["cost_nusd"]:
        rule, detail = (
            "classes_sum_to_cost",
            f"classes {broken['class_sum']}, C {broken['cost_nusd']}",
        )
    elif broken["time_sum"] != broken["owned_us"]:
        rule, detail = (
            "times_sum_to_owned",
            f"times {broken['time_sum']} us, owned {broken['owned_us']} us",
        )
    else:
        detail = (
            f"lines {broken['lines_nusd']}, attributed {broken['classes'][MoneyClass.ATTRIBUTED]}"
        )
        rule = "lines_sum_to_attributed"
    return AuditFinding(broken["_id"], rule, detail)
