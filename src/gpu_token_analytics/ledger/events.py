"""What is stored of one GPU around one run of minutes, as it was loaded: what its timeline is made
of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from gpu_token_analytics.documents import GpuId, NanoUsd, minute_of, touched_minutes
from gpu_token_analytics.ledger.counted import CounterRow
from gpu_token_analytics.ledger.money import nusd_per_hour
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.requests import UsageRows

# a document of `gpu_metrics`: its LEDGER_SAMPLE_FIELDS and `_id`
Sample: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class SamplesAround:
    """Samples of one GPU around a run of minutes, by time (equal times: by id)."""

    # all of them from the gap limit before the run to the gap limit after it
    near: Sequence[Sample]
    before: Sample | None = None  # the newest one before the run, however old
    first: Sample | None = None  # the oldest one, where none is before the run

    @cached_property
    def times_us(self) -> list[int]:
        """Of `near`, in microseconds."""
        return [sample["ts_us"] for sample in self.near]

    def between(self, start_us: int, end_us: int) -> Sequence[Sample]:
        """Those of `near` with start <= ts < end."""
        return self.near[bisect_left(self.times_us, start_us) : bisect_left(self.times_us, end_us)]

    def at(self, at_us: int) -> Sample | None:
        """The newest one by a time inside the run; None: none is as old."""
        index = bisect_right(self.times_us, at_us)
        return self.near[index - 1] if index else self.before

    def price_at(self, at_us: int) -> NanoUsd | None:
        """What the newest one by a time says an hour costs, in nano-USD; None: it does not say."""
        sample = self.at(at_us)
        return None if sample is None else price_of(sample)

    def prices(self, start_us: int, end_us: int) -> list[tuple[int, NanoUsd | None]]:
        """The prices that they name within [start, end), each from when on. The first one ever
        speaks for its whole minute."""
        inside = self.between(start_us, end_us)
        opening = self.at(start_us) or (inside[0] if inside else None)
        last = None if opening is None else opening.get("price_per_hour_usd")
        points: list[tuple[int, NanoUsd | None]] = []
        if last is not None:
            points.append((start_us, nusd_per_hour(last)))
        for sample in inside:
            price = sample.get("price_per_hour_usd")
            if sample["ts_us"] > start_us and price != last:
                points.append((sample["ts_us"], price_of(sample)))
                last = price
        return points

    def reprices(self, start_us: int, end_us: int) -> bool:
        """Whether one of [start, end) names another price than was in force before, or is the first
        ever."""
        inside, before = self.between(start_us, end_us), self.at(start_us - 1)
        if before is None:
            return bool(inside)
        price = before.get("price_per_hour_usd")
        return any(sample.get("price_per_hour_usd") != price for sample in inside)


def price_of(sample: Sample) -> NanoUsd | None:
    """What a sample says an hour costs, in nano-USD; None: it does not say."""
    price = sample.get("price_per_hour_usd")
    return None if price is None else nusd_per_hour(price)


@dataclass(frozen=True)
class SliceEvents:
    """What was heard of the MIG slices of one card in the minutes of a run. Only of slices whose
    profile is known."""

    sampled_us: Mapping[GpuId, Sequence[int]]  # times of samples, by slice
    requests: UsageRows  # that named one of them, by UUID or by a label it ever had

    def minutes(self, placements: Placements) -> dict[GpuId, set[int]]:
        """The minutes with evidence of each slice."""
        heard = {gpu: set(map(minute_of, times)) for gpu, times in self.sampled_us.items()}
        rows = self.requests
        for gpus, start_us, ts_us in zip(
            rows.labels.gpus(), rows.start_us.tolist(), rows.ts_us.tolist(), strict=True
        ):
            for gpu in heard.keys() & placements.resolve_all(gpus, ts_us):
                heard[gpu].update(touched_minutes(start_us, ts_us))
        return heard


@dataclass(frozen=True)
class Beyond:
    """What is known of a GPU beyond the events around a run, where these do not tell: of its card
    and slices, too."""

    heard_us: int | None = None  # the last minute with evidence before the run
    followed: bool = False  # there is evidence after the run


NOTHING_BEYOND = Beyond()


@dataclass(frozen=True)
class GpuEvents:
    """The events of one GPU around one run of minutes."""

    gpu: GpuId
    minutes_us: Sequence[int]  # starts, ascending: the run
    # all that name it, by UUID or a label it ever had, and can be active within the gap limit of
    # the run
    requests: UsageRows
    samples: SamplesAround
    card_samples: SamplesAround | None = None  # of a MIG slice: those of its card, which price it
    # of a card, and of a slice: what was heard of all slices of the card
    slices: SliceEvents | None = None
    # Where a sample does not know the memory: the newest `ts` of a request that began before the
    # run and ended by then, no longer ago than a model counts as loaded.
    used_until_us: int | None = None
    # of engines that name it, by UUID or a label it ever had, in the run
    counters: Sequence[CounterRow] = ()
