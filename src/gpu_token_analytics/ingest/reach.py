"""The minutes that times reach over, for many events at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE
from gpu_token_analytics.ledger.money import Int64, NDArrayBool


def nearest(
    code: Int64, start_us: Int64, end_us: Int64, sizes: Int64, most_cells: int
) -> NDArrayBool:
    """Which requests touch no more cells than that together, those that touch few before those that
    touch many. sizes: GPUs of each code."""
    first = start_us // US_PER_MINUTE
    last = (np.maximum(end_us, start_us + 1) - 1) // US_PER_MINUTE
    reaches, where = np.unique(np.stack([code, first, last]), axis=1, return_inverse=True)
    cells = (reaches[2] - reaches[1] + 1) * sizes[reaches[0]]
    order = np.argsort(cells, kind="stable")
    fits = np.zeros(len(cells), dtype=bool)
    fits[order] = np.cumsum(cells[order]) <= most_cells
    near: NDArrayBool = fits[where.reshape(-1)]
    return near


def minutes_met(codes: Int64, start_us: Int64, end_us: Int64) -> Iterator[tuple[int, int]]:
    """Each (code, start of a minute in microseconds) that one of [start, end) meets, once; as
    documents.touched_minutes()."""
    first = start_us // US_PER_MINUTE
    last = (np.maximum(end_us, start_us + 1) - 1) // US_PER_MINUTE
    count = last - first + 1
    minute = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
    # minutes since 1970 are far below 2^32
    for key in np.unique(np.repeat(codes, count) << 32 | minute).tolist():
        yield key >> 32, (key & 0xFFFF_FFFF) * US_PER_MINUTE
