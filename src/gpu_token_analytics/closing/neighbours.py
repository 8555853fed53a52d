"""The evidence of a GPU next to a minute: samples, and requests that named it by its UUID or by a
label that meant it. What tells of a MIG slice tells of its card, which may be silent itself.

Looked for among the events, not among the cells, which may be in somebody's hands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from gpu_token_analytics.documents import GpuId, GpuMinute, minute_of
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.raw.read import RawReads, UsageTime


def evidence_before(raw: RawReads, books: Books, asked: Set[GpuMinute]) -> dict[GpuMinute, int]:
    """The last minute with evidence before each GPU's minute; those without are left out. Two
    commands for all."""
    return _minutes(
        books,
        asked,
        max,
        _last_activity(raw, books, asked),
        raw.last_samples(_family_times(books, asked)),
    )


def evidence_from(raw: RawReads, books: Books, asked: Set[GpuMinute]) -> dict[GpuMinute, int]:
    """The first minute with evidence from each GPU's minute on; those without are left out. Two
    commands for all."""
    return _minutes(
        books,
        asked,
        min,
        _next_activity(raw, books, asked),
        raw.first_samples(_family_times(books, asked)),
    )


def _family_times(books: Books, asked: Set[GpuMinute]) -> set[GpuMinute]:
    return {(name, at) for gpu, at in asked for name in books.family(gpu)}


def _minutes(
    books: Books,
    asked: Set[GpuMinute],
    nearer: Callable[[int, int], int],
    active: Mapping[GpuMinute, int],
    sampled: Mapping[GpuMinute, Mapping[str, Any]],
) -> dict[GpuMinute, int]:
    """Of each GPU's minute that of the nearer evidence: requests (`active`), or samples of it and
    its slices (`sampled`)."""
    heard = dict(active)
    for gpu, at in asked:
        for name in books.family(gpu):
            if (name, at) in sampled:
                ts_us = sampled[name, at]["ts_us"]
                heard[gpu, at] = nearer(ts_us, heard.get((gpu, at), ts_us))
    return {key: minute_of(at_us) for key, at_us in heard.items()}


def last_request_ends(
    raw: RawReads, books: Books, at_us: Mapping[GpuId, int], within_us: int
) -> dict[GpuId, int]:
    """For each GPU the newest `ts` of a request of its own, not of its slices, that began before a
    time and ended by then, at most `within_us` ago; GPUs without are left out. One command for
    all."""
    asked = [
        (gpu, UsageTime(name, max(start_us, at - within_us), end_us, at))
        for gpu, at in at_us.items()
        for name, start_us, end_us in _names_of(books, gpu)
    ]
    asked = [
        (gpu, time)
        for gpu, time in asked
        if time.start_us <= time.at_us and time.start_us < time.end_us
    ]
    ends: dict[GpuId, int] = {}
    for index, usage in raw.usage_before([time for _, time in asked]).items():
        gpu = asked[index][0]
        ends[gpu] = max(usage["ts_us"], ends.get(gpu, usage["ts_us"]))
    return ends


def _last_activity(raw: RawReads, books: Books, before: Set[GpuMinute]) -> dict[GpuMinute, int]:
    """The newest instant, before each GPU's time, of a request that ended on it."""
    asked = [(gpu, time) for gpu, time in _times(books, before) if time.start_us <= time.at_us]
    active: dict[GpuMinute, int] = {}
    for index, usage in raw.usage_before([time for _, time in asked]).items():
        gpu, time = asked[index]
        # its end is excluded, unless it is all there is
        instant = usage["ts_us"] - (usage["start_us"] < usage["ts_us"])
        active[gpu, time.at_us] = max(instant, active.get((gpu, time.at_us), instant))
    return active


def _next_activity(raw: RawReads, books: Books, since: Set[GpuMinute]) -> dict[GpuMinute, int]:
    """An instant, at or after each GPU's time, in which a request is active on it; none of those
    left out ended earlier."""
    asked = [(gpu, time) for gpu, time in _times(books, since) if time.end_us > time.at_us]
    active: dict[GpuMinute, int] = {}
    for index, usage in raw.usage_from([time for _, time in asked]).items():
        gpu, time = asked[index]
        instant = max(usage["start_us"], time.at_us)
        active[gpu, time.at_us] = min(instant, active.get((gpu, time.at_us), instant))
    return active


def _times(books: Books, asked: Set[GpuMinute]) -> list[tuple[GpuId, UsageTime]]:
    """Under which names, and when, requests were a GPU's own: another one may have had its label
    for millions since. Those of its slices are a card's, too."""
    return [
        (gpu, UsageTime(name, start_us, end_us, at))
        for gpu, at in sorted(asked)
        for member in books.family(gpu)
        for name, start_us, end_us in _names_of(books, member)
    ]


def _names_of(books: Books, gpu: GpuId) -> list[tuple[str, int, int]]:
    placements = books.placements
    names = (gpu, *placements.labels(gpu))
    return [
        (name, start_us, end_us)
        for name in names
        for start_us, end_us in placements.times(name, gpu)
    ]
