"""Timelines computed to cells: what each cell says, and what closing needs to know of it
besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, Method, MoneyClass
from gpu_token_analytics.ledger.cells import compute_cells
from gpu_token_analytics.ledger.changes import Carried
from gpu_token_analytics.ledger.computed import CellContent, ComputedCell, ComputedRun
from gpu_token_analytics.ledger.counted import counter_lines
from gpu_token_analytics.ledger.events import SamplesAround, price_of
from gpu_token_analytics.ledger.inputs import CellInput
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.requests import Requests
from gpu_token_analytics.ledger.shared import on_two_hosts
from gpu_token_analytics.ledger.timeline import Timeline


def compute_runs(
    timelines: Sequence[Timeline], params: LedgerParams, *, with_shares: bool = False
) -> list[ComputedRun]:
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
        runs.append(
            ComputedRun(
                timeline.gpu, cells, timeline.evidence.minutes_heard(), samples.times_us, two
            )
        )
    return runs


def _cell(
    timeline: Timeline,
    given: CellInput,
    content: CellContent,
    last_end_us: int,
    request_ids: Sequence[bytes],
) -> ComputedCell:
    start, end, samples = given.start_us, given.start_us + US_PER_MINUTE, timeline.events.samples
    host, name = timeline.identity(start)
    return ComputedCell(
        gpu=timeline.gpu,
        content=_with_engines(timeline, given, content) if timeline.events.counters else content,
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


def _with_engines(timeline: Timeline, given: CellInput, content: CellContent) -> CellContent:
    """The cell with what engines counted beyond its requests."""
    start, gap_us, events = given.start_us, timeline.params.gap_us, timeline.events
    near = events.samples.between(start - gap_us + 1, start + US_PER_MINUTE + gap_us)
    is_measured = given.known and any(sample.get("utilization") is not None for sample in near)
    unmetered_nusd = content.classes[MoneyClass.UNMETERED_WORK] if is_measured else None
    lines = counter_lines(
        start,
        timeline.gpu,
        events.counters,
        timeline.requests,
        timeline.books.placements,
        unmetered_nusd,
        timeline.params,
    )
    if not given.known:
        for line in lines:
            line["method"], line["cost_nusd"], line["prefill_cost_nusd"] = (
                Method.UNKNOWN_GPU.value,
                None,
                None,
            )
    return replace(content, lines=[*content.lines, *lines])


def _first_named(samples: SamplesAround, start_us: int, end_us: int) -> Carried | None:
    """ComputedCell.first_named of a minute. Not what the minute carries on: its newest sample may
    say otherwise."""
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
