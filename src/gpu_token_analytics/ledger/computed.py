"""Timelines computed to cells: what each cell says, and what closing needs to know of it besides."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, NanoUsd
from gpu_token_analytics.ledger.cells import CellContent, compute_cells
from gpu_token_analytics.ledger.changes import Carried
from gpu_token_analytics.ledger.document import CellFields, CellPrice
from gpu_token_analytics.ledger.events import SamplesAround, price_of
from gpu_token_analytics.ledger.inputs import CardShare, CellInput
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import PricePiece
from gpu_token_analytics.ledger.requests import Requests
from gpu_token_analytics.ledger.shared import on_two_hosts
from gpu_token_analytics.ledger.timeline import Timeline


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
    first_named: Carried | None  # what the first sample ever says of the time before it, where it is in this minute
    last_end_us: int  # the last instant of the requests that end in the minute; -1: none does
    reprices_slices: bool  # a sample of a card says another price than was in force before the minute, or is the first ever
    request_ids: Sequence[bytes]  # `_id` of the events behind content.shares[].request; empty without shares

    @property
    def carried(self) -> Carried:
        """What the minute's newest sample says of the minutes up to the next one."""
        return self.host, self.gpu_name, self.own_price

    def fields(self) -> CellFields:
        """What a cell document says of events, prices and parameters."""
        content = self.content
        return {
            "cost_nusd": content.cost_nusd,
            "owned_us": content.owned_us,
            "classes": content.classes,
            "class_us": content.class_us,
            "memory_unknown_us": content.memory_unknown_us,
            "energy_mj": content.energy_mj,
            "energy_observed_us": content.energy_observed_us,
            "lines": content.lines,
            "samples": content.samples,
            "requests_active": content.requests_active,
            "host": self.host,
            "gpu_name": self.gpu_name,
            "card": self.card,
            "price": self._price(),
            "default_price": any(piece.is_default for piece in self.prices),
            "price_rows": sorted({piece.row for piece in self.prices}),
            "silent": self.silent,
            "own_price": self.own_price,
        }

    def _price(self) -> CellPrice | None:
        if not self.prices:
            return None
        first = self.prices[0]
        return {"row": first.row, "nusd_per_hour": first.nusd_per_hour, "mode": first.mode.value}


@dataclass(frozen=True)
class ComputedRun:
    """The cells of one GPU at the minutes of one run, and what its events tell of the minutes around them."""

    gpu: GpuId
    cells: Sequence[ComputedCell]
    heard_us: Sequence[int]  # minutes with evidence, ascending: all from the first cell to the last, and some around them
    samples_us: Sequence[int] = ()  # times of its samples, ascending: likewise
    on_two_hosts: bool = False  # its samples are of two cards (shared.py)

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
        heard = self.heard_us[index]
        return heard if heard >= self.start_us or heard == minute_us - US_PER_MINUTE else None

    def heard_after(self, minute_us: int) -> int | None:
        """The first minute with evidence after one of its minutes; None: its events do not tell."""
        index = bisect_right(self.heard_us, minute_us)
        if index == len(self.heard_us):
            return None
        heard = self.heard_us[index]
        return heard if heard <= self.last_us or heard == minute_us + US_PER_MINUTE else None


def compute_runs(timelines: Sequence[Timeline], params: LedgerParams, *, with_shares: bool = False) -> list[ComputedRun]:
    """The cells of each timeline, in the given order; the same whichever are computed together.

    with_shares: also list each request's part.
    """
    inputs = [timeline.input() for timeline in timelines]
    contents = compute_cells(inputs, params, with_shares=with_shares)
    runs: list[ComputedRun] = []
    for timeline, given, of_run in zip(timelines, inputs, contents, strict=True):
        ends_us = _last_ends_us(timeline.requests, timeline.events.minutes_us)
        ids = timeline.requests.ids if with_shares else ()
        cells = [
            _cell(timeline, cell, content, end_us, ids)
            for cell, content, end_us in zip(given.cells, of_run, ends_us, strict=True)
        ]
        samples = timeline.events.samples
        two = on_two_hosts(samples.near, params.gap_us)
        runs.append(ComputedRun(timeline.gpu, cells, timeline.evidence.minutes_heard(), samples.times_us, two))
    return runs


def _cell(
    timeline: Timeline, given: CellInput, content: CellContent, last_end_us: int, request_ids: Sequence[bytes]
) -> ComputedCell:
    start, end, samples = given.start_us, given.start_us + US_PER_MINUTE, timeline.events.samples
    host, name = timeline.identity(start)
    return ComputedCell(
        gpu=timeline.gpu,
        content=content,
        host=host,
        gpu_name=name,
        card=timeline.card,
        share=given.card,
        prices=given.prices,
        known=given.known,
        silent=timeline.latest_us[start] is None,
        own_price=samples.price_at(end - 1),
        first_named=_first_named(samples, start, end),
        last_end_us=last_end_us,
        reprices_slices=timeline.is_card and samples.reprices(start, end),
        request_ids=request_ids,
    )


def _first_named(samples: SamplesAround, start_us: int, end_us: int) -> Carried | None:
    """ComputedCell.first_named of a minute. Not what the minute carries on: its newest sample may say otherwise."""
    inside = samples.between(start_us, end_us)
    if not inside or samples.at(start_us - 1) is not None:
        return None
    return inside[0]["host"], inside[0].get("name"), price_of(inside[0])


def _last_ends_us(requests: Requests, minutes_us: Sequence[int]) -> list[int]:
    """ComputedCell.last_end_us of each minute."""
    ends = np.insert(np.sort(np.maximum(requests.ts_us - 1, requests.start_us)), 0, -1)
    minutes = np.array(minutes_us, dtype=np.int64)
    newest = ends[np.searchsorted(ends, minutes + US_PER_MINUTE) - 1]
    last: list[int] = np.where(newest >= minutes, newest, -1).tolist()
    return last
