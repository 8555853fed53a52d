"""The requests that runs of several GPUs depend on: from memory, or a few GPUs with each command,
as many as their minutes allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpu_token_analytics.closing.runs import groups_of
from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.requests import UsageRows, active_on
from gpu_token_analytics.raw.read import RawReads
from gpu_token_analytics.raw.recent import Known
from gpu_token_analytics.wire.names import host_and_uuid

# GPUs x the time read for each. A minute of one GPU can have thousands of requests; the few of a
# live minute are not worth a command of their own.
MAX_READ_US = 12 * US_PER_MINUTE


def requests_by_gpu(
    raw: RawReads, books: Books, runs: Mapping[GpuId, Sequence[int]], reach_us: int, known: Known
) -> Iterator[tuple[GpuId, UsageRows]]:
    """Each GPU with the requests that name it, by its UUID or a label it ever had, and can be
    active in its run or `reach_us` around it."""
    names = {gpu: frozenset((gpu, *books.placements.labels(gpu))) for gpu in runs}
    remembered = {gpu: run for gpu, run in runs.items() if gpu in known.gpus}
    if remembered:
        rows = known.requests(*_asked(names, remembered, reach_us)).of_cards(books.shared)
        yield from _distributed(rows, names, remembered, reach_us)
    for group in groups_of(
        {gpu: run for gpu, run in runs.items() if gpu not in known.gpus}, MAX_READ_US
    ):
        rows = raw.usage(*_asked(names, group, reach_us)).of_cards(books.shared)
        if (
            len(group) == 1
            and not any(map(host_and_uuid, group))
            and group.keys().isdisjoint(books.shared.hosts)
        ):
            yield next(iter(group)), rows
        else:
            yield from _distributed(rows, names, group, reach_us)


def _around(run: Sequence[int], reach_us: int) -> tuple[int, int]:
    """[start, end) of a run of minutes and what is around it."""
    return run[0] - reach_us, run[-1] + US_PER_MINUTE + reach_us


def _asked(
    names: Mapping[GpuId, frozenset[str]], runs: Mapping[GpuId, Sequence[int]], reach_us: int
) -> tuple[list[str], int, int]:
    """All names of these GPUs, and the time around all of their runs."""
    together = sorted(frozenset().union(*(names[gpu] for gpu in runs)))
    starts, ends = zip(*(_around(run, reach_us) for run in runs.values()), strict=True)
    return together, min(starts), max(ends)


def _distributed(
    requests: UsageRows,
    names: Mapping[GpuId, frozenset[str]],
    runs: Mapping[GpuId, Sequence[int]],
    reach_us: int,
) -> Iterator[tuple[GpuId, UsageRows]]:
    for gpu, run in runs.items():
        own = active_on(requests, names[gpu], *_around(run, reach_us), US_PER_MINUTE)
        yield gpu, requests.take(own)
