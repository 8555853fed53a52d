"""What changed in the timelines of GPUs, as intervals: which cells have to be computed again, and
which are missing.

A change concerns cells by what they say: those that agree with the new timeline are left as they
are. What changed when is `diff.py` for events, and `names_moved.py` for the books.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, NanoUsd
from gpu_token_analytics.ledger.params import LedgerParams

# host, GPU name, the samples' own price
Carried: TypeAlias = tuple[str | None, str | None, NanoUsd | None]


class ChangeKind(StrEnum):
    """Which cells of the interval a change concerns."""

    ALL = "all"  # every one
    SILENT = "silent"  # silent ones: evidence beside them is gone
    # silent ones that were computed as not owned: evidence beside them may own them
    NOT_OWNED = "not_owned"
    # those with idle time that was classed without a reading of the memory, by requests before it
    MEMORY = "memory"
    # those that do not say what the sample before them says: host, name and price
    CARRIED = "carried"
    # those that do not say what the first sample ever says of the time before it: host and name
    NAMED = "named"


@dataclass(frozen=True)
class Change:
    """An interval of one GPU's timeline, in whole minutes, that is another one than cells say."""

    gpu: GpuId
    kind: ChangeKind
    start_us: int | None  # None: from the first cell on
    end_us: int | None  # None: to the last cell
    carried: Carried | None = None  # what the cells have to say, for kinds that compare it
    # minutes whose cells are just being written, from this very timeline
    computed_us: Set[int] = frozenset()
    opens: bool = False  # whether minutes without a cell get one


def silence(gpu: GpuId, start_us: int, end_us: int, params: LedgerParams) -> Iterator[Change]:
    """The silence between two minutes with evidence: it is owned, and opened where there is no
    cell. Of [start, end) as much as anybody owns."""
    end_us = min(end_us, start_us + params.silent_owned_us)
    if start_us < end_us:
        yield Change(gpu, ChangeKind.NOT_OWNED, start_us, end_us, opens=True)


def silence_after(gpu: GpuId, minute_us: int, params: LedgerParams) -> Iterator[Change]:
    """The silence after a minute with evidence, which nothing has ended yet: only minutes that have
    a cell."""
    if params.silent_owned_us:
        start = minute_us + US_PER_MINUTE
        yield Change(gpu, ChangeKind.NOT_OWNED, start, start + params.silent_owned_us)


def all_of(gpu: GpuId, minutes_us: Iterable[int], *, opens: bool = False) -> Iterator[Change]:
    """Every cell of these minutes."""
    for start, end in intervals(minutes_us):
        yield Change(gpu, ChangeKind.ALL, start, end, opens=opens)


def intervals(minutes_us: Iterable[int]) -> list[tuple[int, int]]:
    """Minutes as [start, end) of those that follow each other, ascending."""
    joined: list[tuple[int, int]] = []
    for minute in sorted(minutes_us):
        if joined and joined[-1][1] == minute:
            joined[-1] = joined[-1][0], minute + US_PER_MINUTE
        else:
            joined.append((minute, minute + US_PER_MINUTE))
    return joined
