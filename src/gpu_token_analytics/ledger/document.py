"""The document of a cell, as `ledger_cells` holds it: each field said once, and what its readers
read of it.

    opened()                  what a cell is before it was ever computed
    ComputedCell.fields()     what is computed of events, prices and parameters (computed.py)
    CellDocument              all of it, with what closing and the sums write besides

Whoever reads a part of a cell names the part here (`TAKEN_FIELDS`, ...): a field that is renamed is
renamed in one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from gpu_token_analytics.documents import COUNTS, CellId, CellState, Count, GpuId, NanoUsd
from gpu_token_analytics.wire.times import from_us


class CountedTokens(TypedDict):
    """What an engine counted on this GPU in the minute, and what requests tell of beyond that
    (counted.py)."""

    instance: str
    engine: str
    prompt_tokens: int
    completion_tokens: int
    more_prompt_tokens: int
    more_completion_tokens: int
    # the line's part of `unmetered_work`; null where utilisation is not known
    unmetered_nusd: NanoUsd | None


class RequestLine(TypedDict):
    """The attributed part of one cell, by model, tenant and method. Sums over cells are exact."""

    model: str
    tenant: str
    method: str
    requests: int  # counted where the request ended, on its first GPU: once over all cells
    prompt_tokens: int
    cached_tokens: int  # part of prompt_tokens
    completion_tokens: int
    reasoning_tokens: int  # part of completion_tokens
    cost_nusd: NanoUsd | None
    prefill_cost_nusd: NanoUsd | None  # part of cost_nusd; 0 with methods that know no first token
    energy_mj: int | None
    busy_us: int  # request-microseconds on this GPU inside the cell


class LedgerLine(RequestLine, total=False):
    """A line of a cell: of requests, or of what an engine counted beyond them.

    In a cell of a GPU that is not known every line has the method `unknown_gpu`, and its money is
    null: not known, not 0. A line with `counted` is of no request: its tokens are those that no
    request explains, its tenant is '', nothing of it is attributed, and its money stands in
    `counted`.
    """

    counted: CountedTokens


class CellPrice(TypedDict):
    """The price at the start of a cell."""

    row: str  # `_id` of the price row, or "sample"
    nusd_per_hour: NanoUsd
    mode: str  # ledger.prices.PriceMode


class OpenedCell(TypedDict):
    """What a cell says from its first mark on; `gen` and `due_at` come with the mark."""

    gpu: GpuId
    minute: datetime  # start of the minute, UTC
    opened_at: datetime  # first mark; final at max(end of minute, opened_at) + FINALITY_HOURS
    done_gen: int  # the gen this content was computed from; due while gen > done_gen
    revision: int  # number of times the content changed
    state: str  # CellState
    rolled: bool  # false: the rollups do not hold this revision yet


class CellFields(TypedDict):
    """What is computed of events, prices and parameters alone. `sum(classes.values()) ==
    cost_nusd`, and the lines' costs sum to classes.attributed."""

    # C: price x owned time (x slices/7 for MIG) + energy where the price row is `owned`
    cost_nusd: NanoUsd
    # owned microseconds of this minute: 60,000,000 once it is over, 0 in a void cell or of an
    # unknown GPU
    owned_us: int
    classes: dict[str, NanoUsd]  # by MoneyClass, all five always present
    class_us: dict[str, int]  # by MoneyClass, microseconds; sums to owned_us
    # of warm and cold idle: classed without a reading of the memory (ledger/classes.py)
    memory_unknown_us: int
    energy_mj: int | None  # null: no two samples to integrate between
    energy_observed_us: int  # the part of owned_us that energy_mj covers
    lines: list[LedgerLine]  # as stored as long as they are few, else in chunks: `line_ref`
    samples: int  # GPU samples inside the minute
    requests_active: int  # requests active in the minute
    host: str | None
    gpu_name: str | None
    card: GpuId | None  # the card of a MIG slice
    price: CellPrice | None  # null: its GPU is not known
    default_price: bool  # the default price held, if only for a part of it: nobody priced the GPU
    price_rows: list[str]  # every row that held in the minute, sorted
    silent: bool  # no sample in the minute and no request active in it
    own_price: NanoUsd | None  # an hour, as the samples say it: carried on to the next sample


class Correction(TypedDict):
    """What one change of a final cell, or several that were added up, moved (cells/lines.py)."""

    revision: int
    at: datetime
    moved_nusd: dict[str, NanoUsd]  # by MoneyClass, those that changed; sums to cost_change_nusd
    cost_change_nusd: NanoUsd
    # {model, tenant, method, counts, cost_nusd} of those that changed most: differences
    lines: list[dict[str, Any]]
    lines_left_out: NotRequired[int]
    corrections: NotRequired[int]  # how many these are, where they were added up


class CellDocument(OpenedCell, CellFields):
    """One GPU, one UTC minute. The fields of `CellFields`, and those below, are there once it was
    computed."""

    _id: CellId
    gen: int  # grows with every mark
    due_at: NotRequired[datetime]  # present while due; never computed before this time
    lease: NotRequired[str]  # whose the cell is until then
    lease_until: NotRequired[datetime]
    computed_at: NotRequired[datetime]
    final_at: NotRequired[datetime]
    params: NotRequired[str]  # version of the ledger parameters used
    content: NotRequired[bytes]  # what tells this content from another one
    # Many lines are in chunks (cells/line_chunks.py): `chunks` is their token, `line_ref` names
    # them, `lines_total` sums them.
    chunks: NotRequired[str]
    line_ref: NotRequired[dict[str, Any]]  # {token, section, chunks, lines}
    lines_total: NotRequired[dict[str, int]]
    top_models: NotRequired[list[dict[str, Any]]]  # {model, cost_nusd} of those that cost most
    # true: the ledger's topic does not hold this revision yet (warehouse/outbox.py)
    unsent: NotRequired[bool]
    # changes after final, oldest first, bounded (cells/lines.py)
    corrections: NotRequired[list[Correction]]


# What a cell has instead of `lines` where they are in chunks.
CHUNKED_FIELDS = ("chunks", "line_ref", "lines_total", "top_models")

# What a timeline says of a minute: a diff compares it with the computed one (diff.py).
TIMELINE_FIELDS = ("silent", "host", "gpu_name", "card", "own_price", "samples", "requests_active")

# What a closer reads of the cells it takes.
TAKEN_FIELDS = (
    "gpu",
    "minute",
    "gen",
    "done_gen",
    "revision",
    "state",
    "opened_at",
    "content",
    "due_at",
    "final_at",
    "lease",
    "chunks",
    *TIMELINE_FIELDS,
)

# What sums are made of, and where they are put.
SUMMED_FIELDS = (
    "gpu",
    "minute",
    "host",
    "gpu_name",
    "state",
    "final_at",
    "cost_nusd",
    "owned_us",
    "classes",
    "class_us",
    "memory_unknown_us",
    "default_price",
    "energy_mj",
    "energy_observed_us",
    "lines",
    "line_ref",
    "price.mode",
    "corrections.revision",
)

# What views of the last minutes show.
LIVE_FIELDS = (
    "gpu",
    "minute",
    "cost_nusd",
    "owned_us",
    "classes",
    "class_us",
    "price",
    "lines.model",
    "lines.cost_nusd",
    "top_models",
    "computed_at",
    "revision",
)

# States of a cell that has money: computed and not void.
COMPUTED_STATES = (CellState.PROVISIONAL.value, CellState.FINAL.value)

# Of a line: what sums over lines and the corrections of a cell count.
LineSum: TypeAlias = Literal[Count, "cost_nusd"]
LINE_SUMS: tuple[LineSum, ...] = (*COUNTS, "cost_nusd")


def opened(gpu: GpuId, minute_us: int, now: datetime) -> OpenedCell:
    """A cell of a GPU and the minute that starts then, as its first mark opens it at `now`."""
    return {
        "gpu": gpu,
        "minute": from_us(minute_us),
        "opened_at": now,
        "done_gen": 0,
        "revision": 0,
        "state": CellState.PENDING.value,
        "rolled": True,
    }


def is_computed(cell: CellDocument) -> bool:
    """Whether the fields of `CellFields` are there."""
    return "cost_nusd" in cell


def projection(fields: Iterable[str]) -> dict[str, int]:
    """What `find` takes to read these fields alone."""
    return dict.fromkeys(fields, 1)
