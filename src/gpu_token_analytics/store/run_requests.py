"""The requests that runs of several GPUs depend on: a few GPUs with each command, as many as their minutes allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.store.books import Books
from gpu_token_analytics.store.client import Document
from gpu_token_analytics.store.raw_reads import RawReads
from gpu_token_analytics.store.runs import groups_of

# GPUs x the time read for each. A minute of one GPU can have thousands of requests; the few of a live minute are not worth
# a command of their own.
MAX_READ_US = 12 * US_PER_MINUTE


def requests_by_gpu(raw: RawReads, books: Books, runs: Mapping[GpuId, Sequence[int]]) -> Iterator[tuple[GpuId, list[Document]]]:
    """Each GPU with the requests that name it, by its UUID or a label it ever had, and can be active in its run."""
    for group in groups_of(runs, MAX_READ_US):
        owners: dict[str, list[GpuId]] = {}
        for gpu in group:
            for name in (gpu, *books.placements.labels(gpu)):
                owners.setdefault(name, []).append(gpu)
        low, high = min(run[0] for run in group.values()), max(run[-1] for run in group.values()) + US_PER_MINUTE
        found = raw.usage(list(owners), low, high)
        if len(group) == 1:
            yield next(iter(group)), found
        else:
            yield from _distributed(found, owners, group).items()


def _distributed(
    requests: Sequence[Document], owners: Mapping[str, Sequence[GpuId]], runs: Mapping[GpuId, Sequence[int]]
) -> dict[GpuId, list[Document]]:
    found: dict[GpuId, list[Document]] = {gpu: [] for gpu in runs}
    spans = {gpu: (run[0], run[-1] + US_PER_MINUTE) for gpu, run in runs.items()}
    for request in requests:
        for gpu in {gpu for name in request["gpus"] for gpu in owners.get(name, ())}:
            start_us, end_us = spans[gpu]
            if request["ts_us"] >= start_us and request["start_us"] < end_us:
                found[gpu].append(request)
    return found
