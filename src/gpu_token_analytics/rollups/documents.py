"""What a rollup document holds, computed from its parts. Pure; stored and kept current by store.py.

    rollups_hourly  "gpu|<gpu>|2026-01-31T12"   one GPU:  places: [{host, gpu_name, price_mode,
                    SUMS, second_half: SUMS}]
                    "fleet|2026-01-31T12"       all GPUs: SUMS, second_half: {of, SUMS} or null
    rollups_daily   "gpu|<gpu>|2026-01-31", "fleet|2026-01-31"      the same of UTC days, without
                    halves

SUMS are space, total and lines, the fleet's also by_model and by_tenant. Columns are those of
vectors.py; lines are packed (packed.py). Many lines stand in chunks: as stored, a section is then a
reference (lines.py). `by_tenant.of` is the `seen` of the document that it was summed with: a
process of an earlier version writes everything else over what is there.
`places` has one entry unless the GPU changed host, name or the way it is paid for within the time.

`second_half` is minutes 30 to 59, and the whole less them is the first half: a half hour is where
hours and days of zones such as Asia/Kolkata begin, and it halves what a range that ends on any
minute has to read from cells. Documents of earlier versions have neither price_mode nor
second_half; a fleet hour has halves when all its GPUs have.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from operator import add
from sys import intern
from typing import Any, TypeAlias

from gpu_token_analytics.documents import CellState, GpuId, MoneyClass
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.rollups.packed import pack_lines, pack_models, pack_tenants, unpack
from gpu_token_analytics.rollups.spans import DAY, HOUR
from gpu_token_analytics.rollups.sums import cell_lines, cell_space, counts, price_mode
from gpu_token_analytics.rollups.vectors import (
    ZERO_SPACE,
    LineKey,
    Vector,
    read_space,
    space_document,
    total_document,
    warm_vector,
    weight_of,
)
from gpu_token_analytics.rollups.warm import WarmShares

Document: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str | None, str | None, str | None]  # PLACE_FIELDS
PLACE_FIELDS = ("host", "gpu_name", "price_mode")

_SECOND_HALF_MINUTE = 30


@dataclass(slots=True)
class _Sum:
    """A sum under way."""

    space: list[int] = field(default_factory=lambda: list(ZERO_SPACE))
    # Of very many lines, arrays take less than half of the memory of lists.
    lines: dict[LineKey, array[int]] = field(default_factory=dict)
    warm_nusd: list[int] = field(default_factory=list)  # of each cell, until it is shared

    def add_cell(self, cell: CellDocument) -> None:
        self.space = list(map(add, self.space, cell_space(cell)))
        for key, vector in cell_lines(cell):
            self._add(key, vector)
        self.warm_nusd.append(cell["classes"][MoneyClass.WARM_IDLE])

    def share(self, shares: WarmShares) -> None:
        for (model, tenant), nusd in shares.of_all(self.warm_nusd):
            self._add((model, tenant or ""), warm_vector(nusd))

    def add_stored(self, stored: Mapping[str, Any]) -> None:
        self.space = list(map(add, self.space, read_space(stored["space"])))
        for model, tenant, vector in unpack(stored["lines"]):
            # each name once, however many lines have it
            self._add((intern(model or ""), intern(tenant or "")), vector)

    def add_sum(self, other: _Sum) -> None:
        self.space = list(map(add, self.space, other.space))
        for key, vector in other.lines.items():
            self._add(key, vector)

    def _add(self, key: LineKey, vector: Vector) -> None:
        before = self.lines.get(key)
        self.lines[key] = array("q", vector if before is None else map(add, before, vector))

    def document(self, of: str | None = None) -> Document:
        """of: of the fleet, the `seen` of its document; None: of a GPU, which has lines alone."""
        document: Document = {
            "space": space_document(self.space),
            "total": total_document(self.lines.values()),
            "lines": pack_lines(self.lines),
        }
        if of is not None:
            document["by_model"] = pack_models(self.lines)
            document["by_tenant"] = {"of": of, **pack_tenants(self.lines)}
        return document


def gpu_hour(gpu: GpuId, hour: datetime, cells: Iterable[CellDocument]) -> Document:
    """The hourly document of one GPU from all its cells of that hour (computed or not), each looked
    at once."""
    parts: list[tuple[str, int]] = []
    finals: list[datetime | None] = []
    places: dict[Place, tuple[_Sum, _Sum]] = {}
    for cell in cells:
        parts.append((cell["_id"], cell_version(cell)))
        if not counts(cell):
            continue
        finals.append(cell.get("final_at"))
        place = cell["host"], cell["gpu_name"], price_mode(cell)
        halves = places.get(place)
        if halves is None:
            halves = places[place] = (_Sum(), _Sum())
        halves[cell["minute"].minute >= _SECOND_HALF_MINUTE].add_cell(cell)
    attributed: dict[LineKey, int] = {}
    for halves in places.values():
        for half in halves:
            for key, vector in half.lines.items():
                attributed[key] = attributed.get(key, 0) + weight_of(vector)
    shares = WarmShares(attributed)
    del attributed
    listed = []
    for place, (whole, second) in sorted(places.items(), key=_place_order):
        whole.share(shares)
        second.share(shares)
        whole.add_sum(second)  # it held the first half until here
        listed.append({**_names(place), **whole.document(), "second_half": second.document()})
        # its lines are packed: with many, that is half of the memory
        places[place] = (_Sum(), _Sum())
    head = _head("gpu", gpu, hour, HOUR, parts, finals)
    return {**head, "rolled": False, "places": listed}


def gpu_day(gpu: GpuId, day: datetime, hours: Iterable[Mapping[str, Any]]) -> Document:
    """The daily document of one GPU from its hourly ones."""
    parts, finals = [], []
    places: dict[Place, _Sum] = {}
    for hour in hours:
        parts.append((hour["_id"], hour["version"]))
        finals.append(hour["final_at"])
        for stored in hour["places"]:
            places.setdefault(
                (stored["host"], stored["gpu_name"], stored.get("price_mode")), _Sum()
            ).add_stored(stored)
    listed = [
        {**_names(place), **whole.document()}
        for place, whole in sorted(places.items(), key=_place_order)
    ]
    return {**_head("gpu", gpu, day, DAY, parts, finals), "places": listed}


def fleet(start: datetime, length: timedelta, parts: Iterable[Mapping[str, Any]]) -> Document:
    """The fleet's document from the GPU documents of an hour, or from the fleet hours of a day."""
    versions, finals = [], []
    whole, second = _Sum(), _Sum()
    has_halves = length == HOUR
    for part in parts:
        versions.append((part["_id"], part["version"]))
        finals.append(part["final_at"])
        for stored in part.get("places", (part,)):
            whole.add_stored(stored)
            has_halves = has_halves and "second_half" in stored
            if has_halves:
                second.add_stored(stored["second_half"])
    head = _head("fleet", None, start, length, versions, finals)
    half = second.document(head["seen"])
    del second  # its lines are packed: of very many, each sum is a hundred megabytes
    document = {**head, **whole.document(head["seen"])}
    if length == HOUR:
        # `of` is the whole that it is half of: a process of an earlier version writes the whole
        # alone, over what is there.
        document |= {
            "rolled": False,
            "second_half": {"of": head["seen"], **half} if has_halves else None,
        }
    return document


def rollup_id(scope: str, gpu: GpuId | None, start: datetime, length: timedelta) -> str:
    """`gpu|<gpu>|2026-01-31T12` or `fleet|2026-01-31`."""
    when = f"{start:%Y-%m-%dT%H}" if length == HOUR else f"{start:%Y-%m-%d}"
    return f"{scope}|{when}" if gpu is None else f"{scope}|{gpu}|{when}"


def _head(
    scope: str,
    gpu: GpuId | None,
    start: datetime,
    length: timedelta,
    parts: Iterable[tuple[str, int]],
    finals: Iterable[datetime | None],
) -> Document:
    listed = sorted(parts)
    digest = blake2b(
        "\n".join(f"{name} {version}" for name, version in listed).encode(), digest_size=12
    )
    known = [at for at in finals if at is not None]
    head: Document = {
        "_id": rollup_id(scope, gpu, start, length),
        "scope": scope,
        "start": start,
        "version": sum(version for _, version in listed),
        "seen": digest.hexdigest(),
        # when its last cell turns final; from then on nothing is provisional
        "final_at": max(known, default=None),
    }
    if gpu is not None:
        head["gpu"] = gpu
    return head


def tenants_seen(sums: Mapping[str, Any]) -> str | None:
    """The `seen` of the document that `by_tenant` was summed with; None: an earlier version wrote
    none."""
    of: str | None = sums.get("by_tenant", {}).get("of")
    return of


def cell_version(cell: CellDocument) -> int:
    """Grows with the content, and when a cell turns final."""
    return 2 * int(cell["revision"]) + int(cell["state"] == CellState.FINAL)


def _names(place: Place) -> Document:
    return dict(zip(PLACE_FIELDS, place, strict=True))


def _place_order(item: tuple[Place, Any]) -> tuple[str, ...]:
    return tuple(part or "" for part in item[0])
