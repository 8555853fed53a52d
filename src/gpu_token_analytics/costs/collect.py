"""Groups what was read into rows, bucket by bucket. A tenant lock is applied here, to every row and
every column."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from operator import add, itemgetter
from typing import TypeAlias

from gpu_token_analytics.costs.query import (
    DIMENSIONS,
    REST_COLUMNS,
    REST_MONEY_COLUMNS,
    UNMETERED_WORK,
    WARM_IDLE,
    CostQuery,
    Key,
    Line,
    Order,
    Piece,
    Place,
    Row,
    Sight,
    Stretch,
    sort_key,
)
from gpu_token_analytics.costs.whose import Whose
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.rollups.spans import Step, bucket_start, buckets
from gpu_token_analytics.rollups.vectors import (
    CLASSES,
    COUNTED,
    SPACE_COLUMNS,
    SPACE_COST,
    SPACE_WARM,
    WARM,
    ZERO_LINE,
    parted,
    warm_vector,
)

# in the order of DIMENSIONS, which model, tenant, GPU and host begin
Values: TypeAlias = tuple[str | None, ...]

ATTRIBUTED = str(MoneyClass.ATTRIBUTED)
UNOBSERVED = str(MoneyClass.UNOBSERVED)
SPACE = {name: index for index, name in enumerate(SPACE_COLUMNS)}
_CELLS, _PROVISIONAL, _CORRECTED = (
    SPACE[name] for name in ("cells", "provisional_cells", "corrected_cells")
)
_REST_OF_SPACE = itemgetter(
    *(SPACE[name] for name in REST_MONEY_COLUMNS),
    *(
        SPACE[name]
        for name in (
            "owned_us",
            "unobserved_us",
            "energy_mj",
            "energy_observed_us",
            "cells",
            "memory_unknown_us",
        )
    ),
)
_OWNED, _UNMETERED = SPACE["owned_us"], SPACE["unmetered_work_nusd"]
_DEFAULT = {name: SPACE[f"default_{name}_nusd"] for name in CLASSES if name != ATTRIBUTED}
_ZERO_REST = (0,) * len(REST_COLUMNS)
_STATES = 2**64
# Windows hold about as many chunks as stretches are read, so that each is read twice at most; above
# this many it is memory that counts.
_MAX_WINDOW_CHUNKS = 32
_Sums: TypeAlias = dict[Key, Sequence[int]]


@dataclass(slots=True)
class _Bucket:
    lines: _Sums = field(default_factory=dict)
    rest: _Sums = field(default_factory=dict)  # columns of REST_COLUMNS
    provisional: int = 0
    corrected: int = 0
    # whose lines are read when rows get there, with the key of their time
    later: list[tuple[Callable[[Values], Key], Piece]] = field(default_factory=list)
    state: int = 0


class Collector:
    """Rows of one query. `sight` fills up as they are drawn."""

    def __init__(self, query: CostQuery, sight: Sight, low: Order | None = None) -> None:
        """low: where in its first bucket rows begin to be needed."""
        self._query = query
        self._sight = sight
        self._low = low
        self._tenants = query.tenants
        self._nobody = False
        if query.tenant_lock is not None:
            # An empty set would mean "all": a lock outside the asked tenants selects nobody.
            self._nobody = bool(query.tenants) and query.tenant_lock not in query.tenants
            self._tenants = frozenset((query.tenant_lock,))
        self._selects_lines = bool(query.models or query.tenants or query.tenant_lock is not None)
        self._splits_classes = bool(
            "class" in query.group_by or query.classes or query.tenant_lock is not None
        )
        self._pick = _picker(query.group_by)
        self._key: Callable[[Values], Key] = self._pick
        self._told_at: datetime | None = None
        self._borders = sorted(query.whose.borders(query.start, query.end)) if query.whose else []

    def rows(self, pieces: Iterable[Piece]) -> Iterator[Row]:
        """Rows of pieces that come in order of time."""
        query = self._query
        borders = buckets(query.start, query.end, query.step, query.zone)
        start, end = next(borders)
        bucket = _Bucket()
        for piece in pieces:
            while piece.start >= end:
                yield from self._close(start, end, bucket)
                (start, end), bucket = next(borders), _Bucket()
            self._add(bucket, piece)
        yield from self._close(start, end, bucket)

    def _close(self, start: datetime, end: datetime, bucket: _Bucket) -> Iterator[Row]:
        self._sight.states[start] = bucket.state
        low, self._low = self._low, None
        label = (
            None
            if self._query.step is Step.NONE
            else bucket_start(start, self._query.step, self._query.zone)
        )
        flags = (bucket.provisional, bucket.corrected)
        for lines, rest in self._parts(bucket, low):
            for key in sorted(lines.keys() | rest.keys(), key=sort_key):
                values = (*lines.get(key, ZERO_LINE), *rest.get(key, _ZERO_REST), *flags)
                yield Row(label, start, end, key, values)

    def _parts(self, bucket: _Bucket, low: Order | None) -> Iterator[tuple[_Sums, _Sums]]:
        """What rows are made of, in parts that follow one another in the order of rows."""
        if not bucket.later:
            yield bucket.lines, bucket.rest
            return
        leading = self._query.leading
        low = None if low is None or not leading else low[:leading]
        known = sorted(bucket.lines.keys() | bucket.rest.keys(), key=sort_key)
        orders = [sort_key(key)[:leading] for key in known]
        at = 0
        stretches = [piece.stretch for _, piece in bucket.later if piece.stretch is not None]
        for begin, end in _windows(stretches, leading, low):
            upto = len(known) if end is None else bisect_left(orders, end)
            part = _Bucket(_some(bucket.lines, known[at:upto]), _some(bucket.rest, known[at:upto]))
            at = upto
            for key, piece in bucket.later:
                assert piece.stretch is not None
                lines = piece.stretch.between(begin, end, self._query.models, self._tenants)
                self._add_lines(part, piece.place, lines, key)
            yield part.lines, part.rest

    def _add(self, bucket: _Bucket, piece: Piece) -> None:
        query = self._query
        if query.whose is not None:
            self._ask_books(query.whose, piece.start)
        place = piece.place
        _, host, gpu_name, _ = place
        if (query.hosts and host not in query.hosts) or (
            query.gpu_names and gpu_name not in query.gpu_names
        ):
            return
        space = piece.space
        self._sight.cost_nusd += space[SPACE_COST]
        self._sight.cells += space[_CELLS]
        bucket.provisional += space[_PROVISIONAL]
        bucket.corrected += space[_CORRECTED]
        bucket.state = (bucket.state + piece.state) % _STATES
        if self._nobody:
            return
        if piece.stretch is None:
            shared_nusd, counted_nusd = self._add_lines(bucket, place, piece.lines, self._key)
        else:
            bucket.later.append((self._key, piece))
            shared_nusd, counted_nusd = piece.total[WARM], piece.total[COUNTED]
        if not self._selects_lines:
            self._add_rest(
                bucket, _less(space, counted_nusd), place, space[SPACE_WARM] - shared_nusd
            )

    def _ask_books(self, whose: Whose, at: datetime) -> None:
        """Group by what the books say of the time of a piece, which no border of theirs cuts.
        Pieces come in order of time."""
        if self._told_at is not None and bisect_right(self._borders, at) == bisect_right(
            self._borders, self._told_at
        ):
            return
        self._told_at, then, pick = at, whose.at(at), self._pick
        self._key = lambda values: pick((*values, *then.told(*values[:4])))

    def _add_lines(
        self, bucket: _Bucket, place: Place, given: Iterable[Line], pick: Callable[[Values], Key]
    ) -> tuple[int, int]:
        """Adds the selected lines. Returns the warm idle money and that of unmetered work that
        lines hold, selected or not."""
        models, tenants, split = self._query.models, self._tenants, self._splits_classes
        lines = bucket.lines
        shared_nusd = counted_nusd = 0
        for model, tenant, vector in given:
            shared_nusd += vector[WARM]
            counted_nusd += vector[COUNTED]
            if (models and model not in models) or (tenants and tenant not in tenants):
                continue
            if split:
                self._add_by_class(lines, (model, tenant, *place), vector, pick)
            # A line of zeros (no request in this span) opens no row.
            elif any(vector):
                _add_into(lines, pick((model, tenant, *place, ATTRIBUTED)), vector)
        return shared_nusd, counted_nusd

    def _add_by_class(
        self,
        lines: dict[Key, Sequence[int]],
        where: Values,
        vector: Sequence[int],
        pick: Callable[[Values], Key],
    ) -> None:
        """One line as a row for each class that it has something of, as far as they are asked for
        and may be seen."""
        warm = vector[WARM]
        if warm and self._query.tenant_lock is None and self._wanted(WARM_IDLE):
            _add_into(lines, pick((*where, WARM_IDLE)), warm_vector(warm))
        unmetered, attributed = parted(vector)
        if any(unmetered) and self._query.tenant_lock is None and self._wanted(UNMETERED_WORK):
            _add_into(lines, pick((*where, UNMETERED_WORK)), unmetered)
        if self._wanted(ATTRIBUTED) and any(attributed):
            _add_into(lines, pick((*where, ATTRIBUTED)), attributed)

    def _add_rest(
        self, bucket: _Bucket, space: Sequence[int], place: Place, warm_nusd: int
    ) -> None:
        """Money of idle time and unmetered work that no line holds, and the GPU time. Into one row,
        or one for each class."""
        if not space[_OWNED] and not space[SPACE_COST] and not warm_nusd:
            return  # void cells (a GPU that was taken out again) open no row
        if not self._splits_classes:
            key = self._key((None, None, *place, ""))
            default_nusd = sum([space[column] for column in _DEFAULT.values()])
            _add_into(bucket.rest, key, (*_REST_OF_SPACE(space), default_nusd))
            if warm_nusd:
                _add_into(bucket.lines, key, warm_vector(warm_nusd))
            return
        for name in filter(self._wanted, CLASSES):
            key = self._key((None, None, *place, name))
            rest = _class_rest(space, name)
            if any(rest):
                _add_into(bucket.rest, key, rest)
            if name == WARM_IDLE and warm_nusd:
                _add_into(bucket.lines, key, warm_vector(warm_nusd))

    def _wanted(self, name: str) -> bool:
        return not self._query.classes or name in self._query.classes


def _windows(
    stretches: Sequence[Stretch], leading: int, low: Order | None
) -> Iterator[tuple[Order | None, Order | None]]:
    """Ranges [low, high) of rows that together hold all from `low` on, each with a bounded number
    of lines. leading: by how many dimensions lines and rows have the same order; 0: one range."""
    starts = sorted(start[:leading] for stretch in stretches for start in stretch.starts)
    begin = len(stretches) if low is None else bisect_right(starts, low)
    cuts = dict.fromkeys(
        starts[begin :: min(len(stretches), _MAX_WINDOW_CHUNKS)] if leading else ()
    )
    for high in chain(cuts, (None,)):
        yield low, high
        low = high


def _some(sums: _Sums, keys: Iterable[Key]) -> _Sums:
    return {key: sums[key] for key in keys if key in sums}


def _less(space: Sequence[int], counted_nusd: int) -> Sequence[int]:
    """GPU time without the money of unmetered work that lines hold."""
    if not counted_nusd:
        return space
    rest = list(space)
    rest[_UNMETERED] -= counted_nusd
    return rest


def _class_rest(space: Sequence[int], name: str) -> tuple[int, ...]:
    """The rest columns of one class."""
    money = [
        space[SPACE[column]] if column == f"{name}_nusd" else 0 for column in REST_MONEY_COLUMNS
    ]
    time_us = space[SPACE[f"{name}_us"]]
    default_nusd = space[_DEFAULT[name]] if name in _DEFAULT else 0
    return (*money, time_us, time_us if name == UNOBSERVED else 0, 0, 0, 0, 0, default_nusd)


def _add_into(rows: dict[Key, Sequence[int]], key: Key, vector: Sequence[int]) -> None:
    """rows[key] += vector. The vector itself is kept, never changed."""
    before = rows.get(key)
    rows[key] = vector if before is None else list(map(add, before, vector))


def _picker(group_by: Sequence[str]) -> Callable[[Values], Key]:
    """From values of all dimensions to the key of a group."""
    at = [DIMENSIONS.index(name) for name in group_by]
    if not at:
        return lambda _values: ()
    if len(at) == 1:
        only = at[0]
        return lambda values: (values[only],)
    return itemgetter(*at)
