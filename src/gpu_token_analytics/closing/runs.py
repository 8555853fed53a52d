"""Runs: the cells of one GPU that are read and computed together, and groups of runs of several GPUs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, NanoUsd
from gpu_token_analytics.ledger.cells import CellContent
from gpu_token_analytics.ledger.inputs import CardShare
from gpu_token_analytics.ledger.prices import PricePiece
from gpu_token_analytics.mongo.client import Document

Carried: TypeAlias = tuple[str | None, str | None, NanoUsd | None]  # host, GPU name, the samples' own price

MAX_RUN_US = 240 * US_PER_MINUTE
MAX_RUN_HOLE_US = 30 * US_PER_MINUTE


@dataclass(frozen=True)
class ComputedCell:
    """A cell's content and what identifies it besides."""

    gpu: GpuId
    content: CellContent
    host: str | None
    gpu_name: str | None
    card: GpuId | None  # the card of a MIG slice
    share: CardShare | None  # MIG: the part of the card's money that is this GPU's
    prices: Sequence[PricePiece]  # none where its GPU is not known
    known: bool
    silent: bool  # no sample in the minute and no request active in it
    own_price: NanoUsd | None  # the samples' own price at the end of the minute, carried on to the next sample
    oldest: bool  # no sample of this GPU is older than this minute
    last_end_us: int  # the last instant of the requests that end in the minute; -1: none does
    reprices_slices: bool  # a sample of a card says another price than was in force before the minute, or is the first ever
    request_ids: Sequence[bytes]  # `_id` of the events behind content.shares[].request; empty without shares

    @property
    def carried(self) -> Carried:
        """What the minute's newest sample says of the minutes up to the next one."""
        return self.host, self.gpu_name, self.own_price

    def fields(self) -> Document:
        """The fields of a cell document that depend on events, prices and parameters alone."""
        first = self.prices[0] if self.prices else None
        price = None if first is None else {"row": first.row, "nusd_per_hour": first.nusd_per_hour, "mode": first.mode.value}
        return {
            **self.content.document(),
            "host": self.host,
            "gpu_name": self.gpu_name,
            "card": self.card,
            "price": price,
            "default_price": any(piece.is_default for piece in self.prices),
            "price_rows": sorted({piece.row for piece in self.prices}),
            "silent": self.silent,
            "own_price": self.own_price,
        }


@dataclass(frozen=True)
class ComputedRun:
    """The cells of one GPU at the minutes of one run, and what its events tell of the minutes around them."""

    gpu: GpuId
    cells: Sequence[ComputedCell]
    heard_us: Sequence[int]  # minutes with evidence, ascending: all from the first cell to the last, and some around them

    @property
    def start_us(self) -> int:
        """The first minute."""
        return self.cells[0].content.start_us

    @property
    def last_us(self) -> int:
        """The last minute."""
        return self.cells[-1].content.start_us

    def heard_before(self, minute_us: int) -> int | None:
        """The last minute with evidence before one of its minutes; None: its events do not tell."""
        index = bisect_left(self.heard_us, minute_us) - 1
        if index < 0:
            return None
        found = self.heard_us[index]
        return found if found >= self.start_us or found == minute_us - US_PER_MINUTE else None

    def heard_after(self, minute_us: int) -> int | None:
        """The first minute with evidence after one of its minutes; None: its events do not tell."""
        index = bisect_right(self.heard_us, minute_us)
        if index == len(self.heard_us):
            return None
        found = self.heard_us[index]
        return found if found <= self.last_us or found == minute_us + US_PER_MINUTE else None


def runs_of(minutes_us: Iterable[int]) -> list[list[int]]:
    """Minutes cut into runs that are worth one read: no hole over 30 minutes, none longer than 4 hours."""
    runs: list[list[int]] = []
    for minute in sorted(minutes_us):
        if runs and minute - runs[-1][-1] <= MAX_RUN_HOLE_US and minute - runs[-1][0] < MAX_RUN_US:
            runs[-1].append(minute)
        else:
            runs.append([minute])
    return runs


def groups_of(runs: Mapping[GpuId, Sequence[int]], limit_us: int) -> list[dict[GpuId, Sequence[int]]]:
    """Runs of several GPUs cut into groups that are worth one read: GPUs x the time read for each is at most `limit_us`,
    so they are near each other in time. A longer run is a group of its own."""
    groups: list[dict[GpuId, Sequence[int]]] = []
    low = high = 0
    for gpu, run in sorted(runs.items(), key=lambda item: (item[1][0], item[1][-1], item[0])):
        high = max(high, run[-1])  # they come in the order of their starts
        if groups and (len(groups[-1]) + 1) * (high + US_PER_MINUTE - low) <= limit_us:
            groups[-1][gpu] = run
        else:
            groups.append({gpu: run})
            low, high = run[0], run[-1]
    return groups
