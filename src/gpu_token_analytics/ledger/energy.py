"""Joules between samples, in integer millijoules.

Between two samples at most the gap limit apart: the difference of the energy counter where both
have it and it counted, else the trapezoid of the power readings, else unknown. A counter did not
count where it ran backwards (driver reload), where it stood still (a GPU that is switched on draws
power), where it says more than any GPU draws, and where it contradicts both power readings of the
pair by more than any GPU varies (COUNTER_RATIO). Nor did it count for one pair alone where it moves
after it stood still: an exporter that reads the driver every 30 s shows samples taken every 5 s a
counter that stands, stands, and then catches up. What was drawn while it stood is counted by power
already; counted again, three joules would become five. So is it where it moves after it ran
backwards: two agents sample one GPU, one of them through such an exporter.

Each pair of samples telescopes by itself: Q(t) = round(energy from the first sample to t), so the
parts of a pair always sum to the pair, wherever cells cut it. Of the samples before a pair only one
counts that lies within the gap limit of its end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_token_analytics.documents import US_PER_SECOND
from gpu_token_analytics.ledger.money import Float64, Int64, NDArrayBool
from gpu_token_analytics.units import MAX_WATTS

# How far the counter's mean power may be below both power readings of its pair, or above both.
# Between idle and full load lies a factor of about 10, so readings at a bad moment stay within; a
# counter that crawls, or counts in another unit, does not.
COUNTER_RATIO = 30


@dataclass(frozen=True)
class EnergyCurve:
    """Energy between consecutive samples. Index i is the pair (sample i, sample i+1)."""

    sample_us: Int64
    start_w: Float64  # power at the start of each pair; NaN: unknown
    end_w: Float64  # and at its end

    @staticmethod
    def of(sample_us: Int64, power_w: Float64, energy_j: Float64, gap_us: int) -> EnergyCurve:
        """Shapes (n,) each; sample_us ascending; NaN is unknown. A pair with equal times or past
        the gap is unknown."""
        span_us = np.diff(sample_us)
        usable = (span_us > 0) & (span_us <= gap_us)
        mean_w = np.diff(energy_j) / np.where(usable, span_us, 1) * US_PER_SECOND
        by_counter = usable & _counted(mean_w, power_w[:-1], power_w[1:])
        fell_behind = usable & (mean_w <= 0) & (np.maximum(power_w[:-1], power_w[1:]) > 0)
        # it catches up
        by_counter[1:] &= ~(fell_behind[:-1] & (sample_us[2:] - sample_us[:-2] <= gap_us))
        known = by_counter | (usable & ~np.isnan(power_w[:-1]) & ~np.isnan(power_w[1:]))
        return EnergyCurve(
            sample_us,
            np.where(known, np.where(by_counter, mean_w, power_w[:-1]), np.nan),
            np.where(known, np.where(by_counter, mean_w, power_w[1:]), np.nan),
        )

    def between(self, start_us: Int64, end_us: Int64) -> tuple[Int64, NDArrayBool]:
        """Millijoules of each [start, end) that lies inside one pair, and whether they are known.
        Shapes as start_us."""
        if not len(self.start_w):
            return np.zeros(len(start_us), dtype=np.int64), np.zeros(len(start_us), dtype=bool)
        pair = np.searchsorted(self.sample_us, start_us, side="right") - 1
        inside = (pair >= 0) & (pair < len(self.start_w))
        pair = np.clip(pair, 0, len(self.start_w) - 1)
        known = inside & ~np.isnan(self.start_w[pair])
        # Unknown pairs, and starts before the first or after the last sample, count as a pair
        # without power.
        first, last = (
            np.where(known, self.start_w[pair], 0.0),
            np.where(known, self.end_w[pair], 0.0),
        )
        origin, span_us = self.sample_us[pair], np.diff(self.sample_us)[pair].astype(np.float64)

        def upto(at_us: Int64) -> Int64:
            """Q: every step is monotone in floats too, so that no interval gets a negative energy
            from rounding."""
            offset = at_us - origin
            rising = last >= first
            part = np.where(rising, offset, span_us - offset)
            slope = np.abs(last - first) / np.maximum(span_us, 1.0)
            area = np.minimum(first, last) * part + slope * part * part / 2
            whole = np.minimum(first, last) * span_us + slope * span_us * span_us / 2
            watt_us = np.where(rising, area, whole - area)
            millijoules: Int64 = np.rint(watt_us / 1000).astype(np.int64)  # W x us = uJ; /1000 = mJ
            return millijoules

        return np.where(known, upto(end_us) - upto(start_us), 0), known


def _counted(mean_w: Float64, first_w: Float64, last_w: Float64) -> NDArrayBool:
    """Whether the counter's mean power of each pair can be. NaN is unknown. Shapes (n,)."""
    # NaN where one is unknown: no contradiction
    low, high = np.minimum(first_w, last_w), np.maximum(first_w, last_w)
    crawls = mean_w * COUNTER_RATIO < low
    # a power sensor that says 0 W is what is broken
    races = (mean_w > high * COUNTER_RATIO) & (high > 0)
    counted: NDArrayBool = (mean_w > 0) & (mean_w <= MAX_WATTS) & ~crawls & ~races
    return counted
