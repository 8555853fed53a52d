"""Runs: the cells of one GPU that are read and computed together, and groups of runs of several
GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId

MAX_RUN_US = 240 * US_PER_MINUTE
MAX_RUN_HOLE_US = 30 * US_PER_MINUTE
WORTH_A_RUN = 4  # minutes: a run of its own costs a few commands


def runs_of(minutes_us: Iterable[int]) -> list[list[int]]:
    """Minutes cut into runs that are worth one read: no hole over 30 minutes, none longer than 4
    hours."""
    runs: list[list[int]] = []
    for minute in sorted(minutes_us):
        if runs and minute - runs[-1][-1] <= MAX_RUN_HOLE_US and minute - runs[-1][0] < MAX_RUN_US:
            runs[-1].append(minute)
        else:
            runs.append([minute])
    return runs


def cut_at_known(run: Sequence[int], known: Set[int]) -> list[list[int]]:
    """A run cut around the longest stretch of minutes, one after another, that need not be read: a
    few that must be (a GPU was new, somebody else stored something) would have all of them read. As
    it is, where no stretch is worth a run of its own."""
    longest: list[int] = []
    stretch: list[int] = []
    for minute in run:
        if minute not in known:
            stretch = []
        elif stretch and minute == stretch[-1] + US_PER_MINUTE:
            stretch.append(minute)
        else:
            stretch = [minute]
        if len(stretch) > len(longest):
            longest = list(stretch)
    if len(longest) < WORTH_A_RUN or len(longest) == len(run):
        return [list(run)]
    pieces = [m for m in run if m < longest[0]], longest, [m for m in run if m > longest[-1]]
    return [piece for piece in pieces if piece]


def groups_of(
    runs: Mapping[GpuId, Sequence[int]], limit_us: int
) -> list[dict[GpuId, Sequence[int]]]:
    """Runs of several GPUs cut into groups that are worth one read: GPUs x the time read for each
    is at most `limit_us`, so they are near each other in time. A longer run is a group of its
    own."""
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
