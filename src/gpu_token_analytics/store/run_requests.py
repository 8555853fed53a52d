"""The requests that runs of several GPUs depend on: from memory, or a few GPUs with each command, as many as their minutes
allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.store.books import Books
from gpu_token_analytics.store.raw_reads import RawReads
from gpu_token_analytics.store.recent_events import Known
from gpu_token_analytics.store.runs import groups_of

# GPUs x the time read for each. A minute of one GPU can have thousands of requests; the few of a live minute are not worth
# a command of their own.
MAX_READ_US = 12 * US_PER_MINUTE


def requests_by_gpu(
    raw: RawReads, books: Books, runs: Mapping[GpuId, Sequence[int]], known: Known
) -> Iterator[tuple[GpuId, UsageRows]]:
    """Each GPU with the requests that name it, by its UUID or a label it ever had, and can be active in its run."""
    names = {gpu: frozenset((gpu, *books.placements.labels(gpu))) for gpu in runs}
    remembered = {gpu: run for gpu, run in runs.items() if gpu in known.gpus}
    if remembered:
        yield from _distributed(known.requests(*_asked(names, remembered)), names, remembered)
    for group in groups_of({gpu: run for gpu, run in runs.items() if gpu not in known.gpus}, MAX_READ_US):
        found = raw.usage(*_asked(names, group))
        if len(group) == 1:
            yield next(iter(group)), found
        else:
            yield from _distributed(found, names, group)


def _asked(names: Mapping[GpuId, frozenset[str]], runs: Mapping[GpuId, Sequence[int]]) -> tuple[list[str], int, int]:
    """All names of these GPUs, and the time from the first of their minutes to the end of the last."""
    together = sorted(frozenset().union(*(names[gpu] for gpu in runs)))
    return together, min(run[0] for run in runs.values()), max(run[-1] for run in runs.values()) + US_PER_MINUTE


def _distributed(
    requests: UsageRows, names: Mapping[GpuId, frozenset[str]], runs: Mapping[GpuId, Sequence[int]]
) -> Iterator[tuple[GpuId, UsageRows]]:
    for gpu, run in runs.items():
        near = (requests.ts_us >= run[0]) & (requests.start_us < run[-1] + US_PER_MINUTE)
        yield gpu, requests.take(np.flatnonzero(requests.labels.named(names[gpu]) & near))
