"""The store's shapes: what a document of each collection holds.

Money is integer nano-USD (`_nusd`), energy integer millijoules (`_mj`), time integer microseconds
since 1970 UTC (`_us`) or a BSON date. Unknown is null. The indexes and TTLs live in
mongo/indexes.py.

    token_usage     one finished request      _id = 16 bytes of (tenant, event_id) (see
                    wire/identity.py)
    gpu_metrics     one GPU sample            _id = 16 bytes of (host, event_id) (see there)
    ledger_cells    one GPU, one UTC minute   _id = cell_id(gpu, minute) (ledger/document.py)
    rollups_hourly, rollups_daily             sums of cells
    line_chunks     lines of cells and sums that are too many for their document
                    (cells/line_chunks.py)
    pending_marks   cells that are still to be marked (raw/pending_marks.py)
    set_aside       cells and sums that MongoDB refused for good (mongo/aside.py)
    prices          the price book, append-only
    engine_counters   by how much an engine's token counters grew   _id = 16 bytes of (host,
                      event_id)
    placements      which serving instance ran on which GPUs, append-only (books/instances.py)
    budgets, budget_alerts   what may be spent, and what was told of it (budgets/store.py)
    teams           which team a tenant belongs to, append-only (books/teams.py)
    owners          who owns a GPU, host or model, append-only (books/owners.py)
    exchange_rates  what a USD is worth in other currencies, append-only (books/rates.py)
    inventory       the GPUs known and which host/index carried which UUID when
    corrections     a view on ledger_cells: what changed in a cell after it was final
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, TypeAlias, get_args

from xxhash import xxh3_64_digest

GpuId: TypeAlias = str
CellId: TypeAlias = str
NanoUsd: TypeAlias = int
GpuMinute: TypeAlias = tuple[GpuId, int]  # a cell: start of its minute in microseconds

US_PER_SECOND = 1_000_000
US_PER_MINUTE = 60 * US_PER_SECOND
US_PER_HOUR = 60 * US_PER_MINUTE
NUSD_PER_USD = 1_000_000_000

# A request active for longer than this is `long`: it is found through its own small index, so that
# the reader of a minute need look only this far ahead for the ends of all others.
LONG_REQUEST_US = 5 * US_PER_MINUTE


# A request is looked up by its own id within each PERIOD_US in which some were stored. Such ids are
# as good as random: an index of them alone is written all over between two checkpoints, the more
# the more is stored (docs/decisions/0046).
PERIOD_US = 5 * US_PER_MINUTE


class Collection(StrEnum):
    """Every collection besides those of raw events, which kinds of events name (wire/kind.py)."""

    LEDGER_CELLS = "ledger_cells"
    ROLLUPS_HOURLY = "rollups_hourly"
    ROLLUPS_DAILY = "rollups_daily"
    PRICES = "prices"
    PLACEMENTS = "placements"
    INVENTORY = "inventory"
    LINE_CHUNKS = "line_chunks"
    SET_ASIDE = "set_aside"
    PENDING_MARKS = "pending_marks"
    CORRECTIONS = "corrections"
    API_KEYS = "api_keys"
    BUDGETS = "budgets"
    TEAMS = "teams"
    OWNERS = "owners"
    EXCHANGE_RATES = "exchange_rates"
    LEDGER_TOPIC = "ledger_topic"
    BUDGET_ALERTS = "budget_alerts"


class MoneyClass(StrEnum):
    """What a nano-dollar was spent on; every one has exactly one class."""

    ATTRIBUTED = "attributed"  # to usage
    UNMETERED_WORK = "unmetered_work"  # the GPU was busy, no known request
    WARM_IDLE = "warm_idle"  # memory held, nothing running
    COLD_IDLE = "cold_idle"  # no model loaded
    UNOBSERVED = "unobserved"  # no sample within the gap limit


class Method(StrEnum):
    """How the money of a request was found, best first."""

    SWEEP = "sweep"  # start, first token and end known
    SWEEP_NO_TTFT = "sweep_no_ttft"  # start and end known: one segment
    WINDOW = "window"  # only a point in time known: spread over its minute
    # no request tells of these tokens, its engine counted them: money of unmetered work
    COUNTER = "counter"
    UNKNOWN_GPU = "unknown_gpu"  # nobody ever told of its GPU: its tokens count, its money is null


class CellState(StrEnum):
    """PENDING: marked, not yet computed. PROVISIONAL: computed, may change. FINAL: changes only by
    corrections."""

    PENDING = "pending"
    PROVISIONAL = "provisional"
    FINAL = "final"


# Tokens of a request, and of a line: cached is a part of prompt, reasoning of completion. What
# lines and sums count.
TokenCount: TypeAlias = Literal[
    "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"
]
Count: TypeAlias = Literal["requests", TokenCount]
TOKEN_COUNTS: tuple[TokenCount, ...] = get_args(TokenCount)
COUNTS: tuple[Count, ...] = get_args(Count)

# What the ledger reads of a GPU sample, besides its id.
LEDGER_SAMPLE_FIELDS = (
    "gpu",
    "ts_us",
    "host",
    "name",
    "utilization",
    "mem_used_mb",
    "power_w",
    "energy_j",
    "price_per_hour_usd",
)


def minute_of(us: int) -> int:
    """Start of the UTC minute that holds `us`, in microseconds."""
    return us - us % US_PER_MINUTE


def cell_id(gpu: GpuId, minute_us: int) -> CellId:
    """`<gpu>|<minute>`, such as `GPU-1f|2026-01-31T12:00Z`."""
    return f"{gpu}|{datetime.fromtimestamp(minute_us // US_PER_SECOND, UTC):%Y-%m-%dT%H:%MZ}"


def payload_hash(value: bytes) -> bytes:
    """8 bytes that tell a repeated event from another event under the same id: xxHash3,
    big-endian."""
    return xxh3_64_digest(value)


def shared_span(start_us: int, end_us: int, gap_us: int) -> tuple[int, int]:
    """[start, end) of the cells that a request can change which was active in [start_us, end_us):
    of a sample interval, at most `gap_us` long, the other cells change, too. A point may stand for
    its minute (no latency is known)."""
    if start_us >= end_us:
        start_us, end_us = minute_of(start_us), minute_of(start_us) + US_PER_MINUTE
    return start_us - gap_us, end_us + gap_us


def touched_minutes(start_us: int, end_us: int) -> range:
    """Starts (us) of the minutes that the half-open time [start_us, end_us) meets; a point meets
    its own minute."""
    return range(minute_of(start_us), max(start_us + 1, end_us), US_PER_MINUTE)
