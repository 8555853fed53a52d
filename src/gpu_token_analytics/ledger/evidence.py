"""In which minutes of a run there is evidence of a GPU: samples, requests that are active on it,
slices of a card.

What tells of a MIG slice tells of its card, which may be silent itself.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, minute_of
from gpu_token_analytics.ledger.arrays import order_of
from gpu_token_analytics.ledger.money import Int64, NDArrayBool
from gpu_token_analytics.ledger.requests import Requests


@dataclass(frozen=True)
class Evidence:
    """The evidence of one GPU around one run of minutes, as far as its events show."""

    minutes_us: Sequence[int]  # the run: starts, ascending
    requests: Requests
    samples_us: Sequence[int]  # ascending, of the run and around it
    slices_us: Set[int] = frozenset()  # of a card: minutes of the run with evidence of a slice

    def latest(self, now_us: int) -> dict[int, int | None]:
        """Minute of the run -> the latest time inside it of which something is known; None: it is
        silent. Exact only while the minute runs: later it decides nothing."""
        minutes = np.array(self.minutes_us, dtype=np.int64)
        busy = self._is_active(minutes).tolist()
        last = (np.searchsorted(self.samples_us, minutes + US_PER_MINUTE) - 1).tolist()
        latest: dict[int, int | None] = {}
        for minute, is_active, index in zip(self.minutes_us, busy, last, strict=True):
            heard = (
                self.samples_us[index] if index >= 0 and self.samples_us[index] >= minute else None
            )
            if is_active:
                heard = max(heard or 0, self._last_activity(minute, now_us))
            if heard is None and minute in self.slices_us:
                heard = minute  # the card is there as long as a slice of it is
            latest[minute] = heard
        return latest

    def before(self) -> dict[int, int | None]:
        """Minute of the run -> the latest evidence before it, also of minutes that the run leaves
        out; None: there is none."""
        minutes = np.array(self.minutes_us, dtype=np.int64)
        order = order_of(self.requests.start_us)
        ends = np.maximum.accumulate(self.requests.seen_until_us[order])
        begun = np.searchsorted(self.requests.start_us[order], minutes).tolist()
        sampled = np.searchsorted(self.samples_us, minutes).tolist()
        before: dict[int, int | None] = {}
        for minute, requests, samples in zip(self.minutes_us, begun, sampled, strict=True):
            times = [min(int(ends[requests - 1]), minute) - 1] if requests else []
            slices = [at for at in self.slices_us if at < minute]
            before[minute] = max(
                [*times, *self.samples_us[samples - 1 : samples], *slices], default=None
            )
        return before

    @cached_property
    def until_us(self) -> int:
        """There is evidence at or after every time before this one; 0 without any evidence."""
        sampled = self.samples_us[-1] + 1 if self.samples_us else 0
        active = int(self.requests.seen_until_us.max(initial=0))
        return max(sampled, active, max(self.slices_us, default=-1) + 1)

    def minutes_heard(self) -> list[int]:
        """Minutes with evidence, ascending: of the run and as far around it as its events show."""
        start, end = self.minutes_us[0] - US_PER_MINUTE, self.minutes_us[-1] + 2 * US_PER_MINUTE
        minutes = np.arange(start, end, US_PER_MINUTE, dtype=np.int64)
        return sorted(
            {
                *minutes[self._is_active(minutes)].tolist(),
                *map(minute_of, self.samples_us),
                *self.slices_us,
            }
        )

    def _is_active(self, minutes: Int64) -> NDArrayBool:
        """Whether a request is active in each of these minutes."""
        starts, ends = self._edges
        active: NDArrayBool = np.searchsorted(starts, minutes + US_PER_MINUTE) > np.searchsorted(
            ends, minutes, side="right"
        )
        return active

    @cached_property
    def _edges(self) -> tuple[Int64, Int64]:
        return np.sort(self.requests.start_us), np.sort(self.requests.seen_until_us)

    def _last_activity(self, minute_us: int, now_us: int) -> int:
        """The latest instant of a request inside a minute in which one is active."""
        end = minute_us + US_PER_MINUTE
        if end <= now_us:
            return end - 1
        requests = self.requests
        active = (requests.start_us < end) & (requests.seen_until_us > minute_us)
        # of a point in time the point itself
        last = np.maximum(requests.ts_us[active] - 1, requests.start_us[active])
        return max(minute_us, min(end - 1, int(last.max())))
