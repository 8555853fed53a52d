"""Runs: the cells of one GPU that are read and computed together, and groups of runs of several GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId

MAX_RUN_US = 240 * US_PER_MINUTE
MAX_RUN_HOLE_US = 30 * US_PER_MINUTE


def runs_of(minutes_us: Iterable[int]) -> list[list[int]]:
    """Minutes cut into runs that are worth one read: no hole over 30 minutes, none longer than 4 hours."""
    runs: list[list[int]] = []
    for minute in sorted(minutes_us):
        if runs and minute - runs[-1][-1] <= MAX_RUN_HOLE_US and minute - runs[-1][0] < MAX_RUN_US:
            runs[-1].append(minute)
        else:
            runs.append([minute])
    return runs


def groups_of(runs: Mapping[GpuId, Sequence[int]], limit_us: int) -> list[dict[GpuId, Sequence[int]]]:
    """Runs of several GPUs cut into groups that are worth one read: GPUs x the time read for each is at most `limit_us`,
    so they are near each other in time. A longer run is a group of its own."""
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
