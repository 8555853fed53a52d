"""The cells that events can change: of GPUs, of labels, and those that are too many for their
batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_token_analytics.ingest.reach import minutes_met, nearest
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.ledger.money import Int64
from gpu_token_analytics.raw.reach import Reach


def touch(
    shaped: Shaped,
    named: Sequence[tuple[str, ...]],
    code: Int64,
    times_us: tuple[Int64, Int64, Int64],
    most_cells: int,
) -> None:
    """The cells of [start, end) of events: of GPUs, of labels, and those that are too many for
    their batch. code: which of `named` each event names; times_us: its start, its end, and when
    what it names meant a GPU. Shapes (n,)."""
    start_us, end_us, ended_us = times_us
    sizes = np.array([len(names) for names in named], dtype=np.int64)
    keys = list(minutes_met(code, start_us, end_us))
    if shaped.reached + sum(len(named[each]) for each, _ in keys) > most_cells:
        near = nearest(code, start_us, end_us, sizes, most_cells - shaped.reached)
        for index in np.flatnonzero(~near).tolist():
            shaped.pending.add(
                Reach(
                    named[code[index]],
                    int(start_us[index]),
                    int(end_us[index]),
                    int(ended_us[index]),
                )
            )
        code, start_us, end_us, ended_us = code[near], start_us[near], end_us[near], ended_us[near]
        keys = list(minutes_met(code, start_us, end_us))
    before = len(shaped.touched)
    for each, minute_us in keys:
        shaped.touched.update((gpu, minute_us) for gpu in named[each] if "/" not in gpu)
    shaped.reached += len(shaped.touched) - before
    by_label = np.array([any("/" in gpu for gpu in names) for names in named], dtype=bool)
    shaped.reached += sum(len(named[each]) for each, _ in keys if by_label[each])
    for index in np.flatnonzero(by_label[code]).tolist():
        span = int(start_us[index]), int(end_us[index]), int(ended_us[index])
        shaped.labelled.update((gpu, *span) for gpu in named[code[index]] if "/" in gpu)
