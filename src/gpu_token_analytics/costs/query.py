"""What is asked of the costs, and what comes out: CostQuery in, rows of ROW_COLUMNS out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cached_property
from itertools import pairwise, takewhile
from operator import add
from typing import NamedTuple, Protocol, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from gpu_token_analytics.costs.whose import BY_OWNER, BY_TENANT, TOLD, Whose
from gpu_token_analytics.documents import GpuId, MoneyClass
from gpu_token_analytics.rollups.spans import (
    HOUR,
    UTC_ZONE,
    Grain,
    Span,
    Step,
    buckets,
    runs,
    spans,
)
from gpu_token_analytics.rollups.vectors import LINE_COLUMNS, SPACE_COLUMNS, ZERO_LINE

Key: TypeAlias = tuple[str | None, ...]
Order: TypeAlias = tuple[tuple[bool, str], ...]  # of keys; of their first dimensions too

DIMENSIONS = ("model", "tenant", "gpu", "host", "gpu_name", "price_mode", "class", *TOLD)
PLACE_DIMENSIONS = frozenset(("gpu", "host", "gpu_name", "price_mode", *BY_OWNER))
TENANT_DIMENSIONS = frozenset(("tenant", *BY_TENANT))
MODEL_DIMENSIONS = frozenset(("model", *BY_OWNER))
# GPU, host, GPU name, price mode
Place: TypeAlias = tuple[str | None, str | None, str | None, str | None]
FLEET: Place = (None, None, None, None)

# A row: the line columns, then the money nobody's line holds, then GPU time, then flags. Rows add
# up as vectors.
REST_MONEY_COLUMNS = ("unmetered_work_nusd", "cold_idle_nusd", "unobserved_nusd")
REST_COLUMNS = (
    *REST_MONEY_COLUMNS,
    "gpu_us",
    "unobserved_us",
    "energy_all_mj",
    "energy_observed_us",
    "cells",
    "memory_unknown_us",
    # of all classes but attributed; warm idle money counts here whoever's line has a share of it
    "default_idle_nusd",
)
# of a GPU's time whatever class it is: no row of a class has them
CLASSLESS_COLUMNS = ("energy_all_mj", "energy_observed_us", "cells", "memory_unknown_us")
WARM_IDLE = str(MoneyClass.WARM_IDLE)
UNMETERED_WORK = str(MoneyClass.UNMETERED_WORK)
COLUMN_OF_CLASS = {str(name): f"{name}_nusd" for name in MoneyClass} | {
    str(MoneyClass.ATTRIBUTED): "cost_nusd"
}
FLAG_COLUMNS = ("provisional_cells", "corrected_cells")
ROW_COLUMNS = LINE_COLUMNS + REST_COLUMNS + FLAG_COLUMNS
ROW = {name: index for index, name in enumerate(ROW_COLUMNS)}
_COST, _WARM = ROW["cost_nusd"], ROW["warm_idle_nusd"]
_COUNTED, _UNMETERED = ROW["counted_nusd"], f"{UNMETERED_WORK}_nusd"
_MONEY_COLUMNS = tuple(
    ROW[name] for name in ("cost_nusd", "warm_idle_nusd", "counted_nusd", *REST_MONEY_COLUMNS)
)


# Lines of a section come in this order (rollups/packed.py).
SORTED_BY = {"lines": ("model", "tenant"), "by_model": ("model",), "by_tenant": ("tenant",)}


@dataclass(frozen=True)
class CostQuery:
    """What is asked. Empty filter: all. `tenant_lock`: the only tenant whose data may come out,
    whatever else is asked."""

    start: datetime
    end: datetime
    step: Step = Step.NONE
    zone: ZoneInfo = UTC_ZONE
    group_by: tuple[str, ...] = ()
    models: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    gpus: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    gpu_names: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    tenant_lock: str | None = None
    whose: Whose | None = None  # what the books tell, for a grouping that asks for it (whose.py)

    @property
    def by_place(self) -> bool:
        """GPU documents are needed."""
        return bool(
            PLACE_DIMENSIONS.intersection(self.group_by)
            or self.gpus
            or self.hosts
            or self.gpu_names
        )

    @property
    def detail(self) -> str:
        """How finely lines are told apart: in total, by_model, by_tenant, or as lines (by both)."""
        models = bool(MODEL_DIMENSIONS.intersection(self.group_by) or self.models)
        tenants = bool(
            TENANT_DIMENSIONS.intersection(self.group_by)
            or self.tenants
            or self.tenant_lock is not None
        )
        if models and tenants:
            return "lines"
        return "by_model" if models else "by_tenant" if tenants else "total"

    @property
    def section(self) -> str:
        """The coarsest lines of a document that can answer it. GPU documents have lines alone."""
        return "lines" if self.detail != "total" and self.by_place else self.detail

    @property
    def leading(self) -> int:
        """How many dimensions of a row's key are those that lines are sorted by, in that order: as
        far as they go, lines in order are rows in order."""
        sorted_by = SORTED_BY.get(self.section, ())
        same = takewhile(
            lambda pair: pair[0] == pair[1], zip(self.group_by, sorted_by, strict=False)
        )
        return len(list(same))

    def whole(self) -> CostQuery:
        """The same selection as one row."""
        return replace(self, group_by=(), step=Step.NONE, whose=None)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """What has to be read, in order."""
        return tuple(runs(self._pieces()))

    def _pieces(self) -> Iterator[Span]:
        if self.step is Step.MINUTE:
            yield Span(Grain.MINUTES, self.start.astimezone(UTC), self.end.astimezone(UTC))
            return
        for start, end in self.slices(self.start, self.end):
            if end - start == HOUR and not start.minute:  # a month has 720 of them
                yield Span(Grain.HOURS, start, end)
            else:
                yield from spans(start, end)

    def slices(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """[start, end) cut at the borders of buckets, and where the books say something new."""
        for low, high in buckets(start, end, self.step, self.zone):
            cuts = [low, *(sorted(self.whose.borders(low, high)) if self.whose else ()), high]
            yield from pairwise(cuts)


Names: TypeAlias = frozenset[str]
Line: TypeAlias = tuple[str | None, str | None, Sequence[int]]  # model, tenant, vector


class Stretch(Protocol):
    """Lines in the order of rows, read by ranges of it (stretches.py)."""

    @property
    def starts(self) -> Sequence[Order]:
        """Where it is best cut, in order."""
        ...

    def between(
        self, low: Order | None, high: Order | None, models: Names, tenants: Names
    ) -> Iterable[Line]:
        """The lines in [low, high), None: without that end. models, tenants: no others are needed;
        empty: all. Raises LinesReplaced."""
        ...


class Chunked(Enum):
    """How lines that stand in chunks are read.

    What is swapped between two of its chunks is of no use. A page is then read again as a whole; of
    what is read and handed on at once, documents that may change any second are read as wholes.
    """

    WHOLE = auto()  # a document's at once: always one state of it
    FINAL_BY_PIECES = auto()  # only of documents whose cells are all final
    BY_PIECES = auto()


@dataclass(slots=True)
class Piece:
    """What was read about a place (or the fleet) in a time that no bucket cuts, as vectors."""

    start: datetime
    place: Place
    space: Sequence[int]
    lines: Iterable[Line]
    # of what it was made of, another one after any change; states add up, modulo 2**64
    state: int = 0
    # more lines, to be read when rows get there; `total` is then the sum of all of the piece
    stretch: Stretch | None = None
    total: Sequence[int] = ZERO_LINE


class Known(NamedTuple):
    """What tells whether the money of some rows is known. Of several rows it is the sum: where
    something is known of one, be it 0, the money of all of them is known."""

    requests: int = 0
    tokens: int = 0
    unknown_requests: int = 0
    unknown_tokens: int = 0
    gpu_us: int = 0
    money_nusd: int = 0

    def plus(self, other: Known) -> Known:
        """Of both."""
        return Known(*map(add, self, other))

    @property
    def is_unpriced(self) -> bool:
        """Whether all that is in it ran on GPUs nobody told of, or that do not say how much they
        worked: its money is unknown, not 0."""
        unknown = (self.unknown_requests, self.unknown_tokens)
        return (
            any(unknown)
            and unknown == (self.requests, self.tokens)
            and not (self.gpu_us or self.money_nusd)
        )


NO_ROWS = Known()


class Row(msgspec.Struct, frozen=True, gc=False):
    """One group in one bucket. `values` by ROW; `bucket` is its start in the zone, null without
    buckets.

    A msgspec struct: a page has 10,000 of them, and a frozen dataclass takes three times as long to
    make.
    """

    bucket: datetime | None
    start: datetime  # of the part of the bucket inside the range
    end: datetime
    key: Key
    values: Sequence[int]

    def __getitem__(self, name: str) -> int:
        value = self.values[ROW[name]]
        # In the vector the money of unmetered work that engines' lines hold stands beside that of
        # nobody.
        return value + self.values[_COUNTED] if name == _UNMETERED else value

    @property
    def money_nusd(self) -> int:
        """All money of the row."""
        values = self.values
        return sum([values[index] for index in _MONEY_COLUMNS])

    @property
    def work_nusd(self) -> int:
        """Money of work whose tokens are in the row: attributed, and unmetered work that engines
        counted. What active rates are of."""
        return self.values[_COST] + self.values[_COUNTED]

    @property
    def loaded_nusd(self) -> int:
        """With warm idle money: what loaded rates are of."""
        return self.work_nusd + self.values[_WARM]

    @property
    def default_price_nusd(self) -> int:
        """Money of cells in which the default price held; of the warm idle money all that is in the
        row without a model."""
        return self["default_cost_nusd"] + self["default_idle_nusd"]

    @property
    def priced_tokens(self) -> int:
        """Prompt and completion tokens whose money is known: what rates divide by."""
        known = self["prompt_tokens"] + self["completion_tokens"] - self["unknown_gpu_tokens"]
        return known - self["unmeasured_tokens"]

    @property
    def known(self) -> Known:
        """What tells whether its money is known."""
        return Known(
            self["requests"],
            self["prompt_tokens"] + self["completion_tokens"],
            self["unknown_gpu_requests"],
            self["unknown_gpu_tokens"] + self["unmeasured_tokens"],
            self["gpu_us"],
            self.money_nusd,
        )

    @property
    def is_unpriced(self) -> bool:
        """Whether its money is unknown, not 0."""
        doubts = (
            self["unknown_gpu_requests"],
            self["unknown_gpu_tokens"],
            self["unmeasured_tokens"],
        )
        return any(doubts) and self.known.is_unpriced


@dataclass(frozen=True)
class CellFilter:
    """Which cells. Empty: all."""

    start: datetime
    end: datetime
    gpus: frozenset[GpuId] = frozenset()
    corrected: bool = False


@dataclass
class Sight:
    """All that was read, before filters on lines: fills up as rows are drawn."""

    cost_nusd: int = 0
    cells: int = 0
    # by start of its part inside the range: what the bucket was made of (Piece.state)
    states: dict[datetime, int] = field(default_factory=dict)


def sort_key(key: Key) -> Order:
    """Order of groups: by value, null last."""
    return tuple([(value is None, value or "") for value in key])


def settled(space: list[int], final_at: datetime | None, now: datetime) -> list[int]:
    """Cells turn final by time alone; the stored sum was made before."""
    if final_at is not None and final_at <= now:
        space[SPACE_COLUMNS.index("provisional_cells")] = 0
    return space
