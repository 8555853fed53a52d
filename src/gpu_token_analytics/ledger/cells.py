"""The cells of GPUs: money, classes, lines and energy of each asked minute, from events, prices and
parameters.

    money     C of the cell = R(end) - R(start), telescoping integers (money.py); a part of it under
              MIG
    edges     every time anything changes inside a cell, and the class of each interval between
              (grid.py)
    classes   C split over the classes in proportion to price x time of each, exact integers by
              largest remainder
    shares    the attributed part over the active requests (attribution.py), integers by largest
              remainder again
    lines     shares and tokens summed by model, tenant, method (parts.py)

So money is rounded three times and never drifts: each class is within 1 nano-USD of price x its
time, and each request within 1 nano-USD of its share of the attributed money, however many
intervals there are.
Order, duplicates and neighbours do not matter: events are sorted by id, and every running sum
restarts in each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpu_token_analytics.ledger.arrays import sum_by
from gpu_token_analytics.ledger.classes import CLASS_NAMES
from gpu_token_analytics.ledger.computed import CellContent
from gpu_token_analytics.ledger.grid import Grid
from gpu_token_analytics.ledger.inputs import GpuInput, Together
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.parts import lines_without_money


def compute_cells(
    gpus: Sequence[GpuInput], params: LedgerParams, *, with_shares: bool = False
) -> list[Sequence[CellContent]]:
    """The content of each cell of each GPU, in the given order; the same whichever GPUs are
    computed together.

    with_shares: also list each request's part.
    """
    asked = [gpu for gpu in gpus if gpu.cells]
    if not asked:
        return [[] for _ in gpus]
    together = Together.of(asked, params)
    contents = _contents(together, params, with_shares=with_shares)
    spans = iter(together.by_gpu())
    return [contents[next(spans)] if gpu.cells else [] for gpu in gpus]


def _contents(together: Together, params: LedgerParams, *, with_shares: bool) -> list[CellContent]:
    cells, requests, samples = together.cells, together.requests, together.samples
    grid = Grid(together, requests.segments(params), params)
    money = grid.classes()
    time = grid.times().tolist()
    unread = grid.memory_unknown_us().tolist()
    observed = sum_by(
        grid.cell_of_edge, np.where(grid.energy_known, grid.length_us, 0), len(cells)
    ).tolist()
    energy = sum_by(grid.cell_of_edge, grid.energy, len(cells)).tolist()
    seen = (
        np.searchsorted(samples.ts_us, grid.until) - np.searchsorted(samples.ts_us, grid.start)
    ).tolist()
    parts = grid.parts(requests, money)
    has_energy = [bool(us) for us in observed]
    lines = parts.lines(requests, has_energy)
    shares = (
        parts.shares(has_energy, together.first_request[together.gpu])
        if with_shares
        else [[] for _ in cells]
    )
    actives = np.bincount(parts.cell, minlength=len(cells)).tolist()
    contents = [
        CellContent(
            start_us=cell.start_us,
            cost_nusd=sum(money[index]),
            owned_us=max(0, cell.until_us - cell.start_us),
            classes=dict(zip(CLASS_NAMES, money[index], strict=True)),
            class_us=dict(zip(CLASS_NAMES, time[index], strict=True)),
            memory_unknown_us=unread[index],
            energy_mj=energy[index] if has_energy[index] else None,
            energy_observed_us=observed[index],
            lines=lines[index],
            samples=seen[index],
            requests_active=actives[index],
            shares=shares[index],
        )
        for index, cell in enumerate(cells)
    ]
    return [
        content if cell.known else _without_money(content)
        for cell, content in zip(cells, contents, strict=True)
    ]


def _without_money(content: CellContent) -> CellContent:
    """The cell of a GPU that nobody told of: tokens of requests, and no money, time or energy of
    anybody."""
    nothing = dict.fromkeys(CLASS_NAMES, 0)
    return replace(
        content,
        owned_us=0,
        classes=nothing,
        class_us=nothing,
        energy_mj=None,
        energy_observed_us=0,
        memory_unknown_us=0,
        lines=lines_without_money(content.lines),
    )
