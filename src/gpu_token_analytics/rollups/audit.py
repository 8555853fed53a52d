"""Are the sums what they are sums of? Every sum is added up again from its parts and compared.

    hours of GPUs   from the cells        hours of the fleet   from the hours of GPUs
    days of GPUs    from their hours      days of the fleet    from the fleet's hours

A sum that differs while a part of it waits to be rolled up is behind, not wrong. Any other is
looked at a second time, since parts and sum are read one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.rollups.documents import gpu_hour, rollup_id, tenants_seen
from gpu_token_analytics.rollups.packed import unpack
from gpu_token_analytics.rollups.spans import DAY, HOUR, floor
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.rollups.vectors import SPACE_COLUMNS, ZERO_LINE, added, read_total

# Cells turn final by time alone, and readers know it: the stored sum was made before.
_BY_TIME = "provisional_cells"


class _Verdict(Enum):
    EQUAL = auto()
    BEHIND = auto()
    DIFFERENT = auto()


@dataclass(frozen=True)
class _Sum:
    """One stored sum: how it is built again, and whether a part of it waits."""

    name: str
    length: timedelta
    build: Callable[[], Document]
    waits: Callable[[], bool]


@dataclass
class SumsAudit:
    """What was found. `different`: names of sums that are not what their parts are."""

    compared: int = 0
    behind: int = 0
    different: list[str] = field(default_factory=list)


def audit_sums(
    store: RollupStore,
    gpu_hours: Iterable[tuple[GpuId, datetime]],
    covered: Callable[[datetime, datetime], bool],
    before_second_look: Callable[[int], object],
) -> SumsAudit:
    """Compare the sums that hold these hours of GPUs, as far as all of their time is covered.
    Raises StoreError."""
    with store_errors("compare sums with their cells"):
        asked = sorted(set(gpu_hours))
        audited = SumsAudit()
        doubts: list[_Sum] = []
        for one in _sums(store, asked, covered):
            audited.compared += 1
            verdict = _judge(store, one)
            audited.behind += verdict is _Verdict.BEHIND
            if verdict is _Verdict.DIFFERENT:
                doubts.append(one)
        if doubts:
            before_second_look(len(doubts))
        for one in doubts:
            verdict = _judge(store, one)
            audited.behind += verdict is _Verdict.BEHIND
            if verdict is _Verdict.DIFFERENT:
                audited.different.append(one.name)
        return audited


def _sums(
    store: RollupStore,
    gpu_hours: list[tuple[GpuId, datetime]],
    covered: Callable[[datetime, datetime], bool],
) -> Iterator[_Sum]:
    hours = sorted({hour for _, hour in gpu_hours if covered(hour, hour + HOUR)})
    gpu_days = sorted({(gpu, floor(hour, DAY)) for gpu, hour in gpu_hours})
    days = sorted({day for _, day in gpu_days if covered(day, day + DAY)})
    for gpu, hour in gpu_hours:
        if covered(hour, hour + HOUR):
            yield _gpu_hour(store, gpu, hour)
    for hour in hours:
        yield _fleet_hour(store, hour)
    for gpu, day in gpu_days:
        if covered(day, day + DAY):
            yield _gpu_day(store, gpu, day)
    for day in days:
        yield _fleet_day(store, day)


def _gpu_hour(store: RollupStore, gpu: GpuId, hour: datetime) -> _Sum:
    return _Sum(
        rollup_id("gpu", gpu, hour, HOUR),
        HOUR,
        lambda: gpu_hour(gpu, hour, store.cells_of_hour(gpu, hour)),
        lambda: store.has_dirty_cells(gpu, hour),
    )


def _fleet_hour(store: RollupStore, hour: datetime) -> _Sum:
    return _Sum(
        rollup_id("fleet", None, hour, HOUR),
        HOUR,
        lambda: store.build_fleet_hour(hour),
        lambda: store.has_dirty_hours({"scope": "gpu", "start": hour}),
    )


def _gpu_day(store: RollupStore, gpu: GpuId, day: datetime) -> _Sum:
    within = {"$gte": day, "$lt": day + DAY}
    return _Sum(
        rollup_id("gpu", gpu, day, DAY),
        DAY,
        lambda: store.build_gpu_day(gpu, day),
        lambda: store.has_dirty_hours({"scope": "gpu", "gpu": gpu, "start": within}),
    )


def _fleet_day(store: RollupStore, day: datetime) -> _Sum:
    within = {"$gte": day, "$lt": day + DAY}
    return _Sum(
        rollup_id("fleet", None, day, DAY),
        DAY,
        lambda: store.build_fleet_day(day),
        lambda: store.has_dirty_hours({"scope": "fleet", "start": within}),
    )


def _judge(store: RollupStore, one: _Sum) -> _Verdict:
    built = one.build()
    stored = next(store.stored(one.length, {"_id": one.name}), None)
    if stored is None:
        if not _has_money(built):
            return _Verdict.EQUAL
    elif _equal(built, stored):
        return _Verdict.EQUAL
    return _Verdict.BEHIND if one.waits() else _Verdict.DIFFERENT


def _has_money(built: Document) -> bool:
    return any(any(holder["space"].values()) for holder in _holders(built))


def _equal(built: Document, stored: Document) -> bool:
    ours, theirs = _holders(built), _holders(stored)
    if [_place(one) for one in ours] != [_place(one) for one in theirs]:
        # An earlier version did not tell places apart by how they are paid for.
        return _added(ours) == _added(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if not _same(one, other):
            return False
        half, other_half = one.get("second_half"), other.get("second_half")
        if half is not None and other_half is not None and not _same(half, other_half):
            return False
    return True


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if _space(one) != _space(other) or one["total"] != other["total"]:
        return False
    # Of by_tenant, an earlier version wrote none, or left that of another state.
    names = [name for name in ("lines", "by_model") if name in one]
    if tenants_seen(one) == tenants_seen(other) is not None:
        names.append("by_tenant")
    return all(_by_name(one[name]) == _by_name(other[name]) for name in names)


def _by_name(section: Mapping[str, Any]) -> dict[tuple[str | None, str | None], tuple[int, ...]]:
    """Lines of a section in no order: an earlier version had nobody's first."""
    return {(model, tenant): vector for model, tenant, vector in unpack(section)}


def _added(holders: Iterable[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
    listed = list(holders)
    space = added((list(_space(one).values()) for one in listed), [0] * (len(SPACE_COLUMNS) - 1))
    return space, added((read_total(one["total"]) for one in listed), ZERO_LINE)


def _space(holder: Mapping[str, Any]) -> dict[str, int]:
    return {name: holder["space"].get(name, 0) for name in SPACE_COLUMNS if name != _BY_TIME}


def _holders(document: Document) -> list[Document]:
    return list(document.get("places", (document,)))


def _place(holder: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(holder.get(name) for name in ("host", "gpu_name", "price_mode"))
