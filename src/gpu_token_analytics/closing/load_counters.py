"""What engines counted on the GPUs of several runs: one command for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.counted import CounterRow
from gpu_token_analytics.raw.read import RawReads
from gpu_token_analytics.raw.recent import Known


def counters_by_gpu(
    raw: RawReads, books: Books, runs: Mapping[GpuId, Sequence[int]], known: Known
) -> dict[GpuId, list[CounterRow]]:
    """For each GPU what engines counted that name it, by its UUID or a label it ever had, in the
    minutes of its run. Runs are near each other in time: one range is read for all. known: where
    nothing was counted, nothing is read."""
    none: dict[GpuId, list[CounterRow]] = {gpu: [] for gpu in runs.keys() & known.without_counters}
    runs = {gpu: run for gpu, run in runs.items() if gpu not in none}
    if not runs:
        return none
    names = {gpu: frozenset((gpu, *books.placements.labels(gpu))) for gpu in runs}
    low, high = (
        min(run[0] for run in runs.values()),
        max(run[-1] for run in runs.values()) + US_PER_MINUTE,
    )
    rows = [
        row.of_cards(books.shared)
        for row in raw.counters(sorted(frozenset().union(*names.values())), low, high)
    ]
    return none | {
        gpu: [
            row
            for row in rows
            if row.start_us < run[-1] + US_PER_MINUTE
            and row.ts_us > run[0]
            and names[gpu] & {*row.gpus}
        ]
        for gpu, run in runs.items()
    }
