"""The minutes a GPU has to be paid for.

A minute with evidence (a sample in it, or a request active in it) is owned. After it the GPU stays
owned through silent minutes, up to `silent_owned_us`, when evidence follows later - and, for a GPU
with live samples, also when none has followed yet, up to now: an agent that died does not stop the
bill. Recorded history (replay, requests alone) ends with its last evidence. A MIG slice is owned
only with evidence: what silent slices leave belongs to their card.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from gpu_token_analytics.documents import US_PER_MINUTE, minute_of


def owned_silent_minutes(
    evidence_us: Iterable[int], now_us: int, silent_owned_us: int, *, live: bool
) -> list[int]:
    """Starts of the silent minutes owned besides those with evidence, ascending.

    evidence_us: starts of minutes with evidence, ascending. live: the GPU has samples of a live
    source.
    """
    minutes = sorted(set(evidence_us))
    silent: list[int] = []
    for minute, following in pairwise(minutes):
        end = min(following, minute + silent_owned_us + US_PER_MINUTE)
        silent.extend(range(minute + US_PER_MINUTE, end, US_PER_MINUTE))
    if minutes and live:
        end = min(minute_of(now_us), minutes[-1] + silent_owned_us + US_PER_MINUTE)
        silent.extend(range(minutes[-1] + US_PER_MINUTE, end, US_PER_MINUTE))
    return silent


def is_owed(start_us: int, before_us: int, silent_owned_us: int) -> bool:
    """Whether the silent minute at start_us is near enough to the latest evidence before it."""
    return start_us <= minute_of(before_us) + silent_owned_us


def owned_until(
    start_us: int,
    now_us: int,
    *,
    evidence_us: int | None,
    before_us: int | None,
    followed: bool,
    live: bool,
    silent_owned_us: int,
) -> int:
    """End of the owned part of the minute at start_us; start_us itself when it is not owned at all.

    evidence_us: latest evidence inside the minute; None: silent. before_us: latest evidence before
    it; None: none. followed: whether evidence exists after the minute. The part of a minute that is
    still to come is not owned yet.
    """
    end = start_us + US_PER_MINUTE
    if evidence_us is not None:
        return min(end, max(now_us, evidence_us + 1))
    if before_us is None or not is_owed(start_us, before_us, silent_owned_us):
        return start_us
    if (live and end <= now_us) or followed:
        return end
    return max(start_us, now_us) if live else start_us
