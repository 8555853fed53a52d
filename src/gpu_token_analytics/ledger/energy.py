"""Joules between samples, in integer millijoules.

Between two samples at most the gap limit apart: the difference of the energy counter where both have it and it did not run
backwards (driver reload), else the trapezoid of the power readings, else unknown. Each pair of samples telescopes by itself:
Q(t) = round(energy from the first sample to t), so the parts of a pair always sum to the pair, wherever cells cut it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_token_analytics.documents import US_PER_SECOND
from gpu_token_analytics.ledger.money import Float64, Int64


@dataclass(frozen=True)
class EnergyCurve:
    """Energy between consecutive samples. Index i is the pair (sample i, sample i+1)."""

    sample_us: Int64
    start_w: Float64  # power at the start of each pair; NaN: unknown
    slope_w_per_us: Float64

    @staticmethod
    def of(sample_us: Int64, power_w: Float64, energy_j: Float64, gap_us: int) -> EnergyCurve:
        """Shapes (n,) each; sample_us ascending; NaN is unknown. A pair with equal times or past the gap is unknown."""
        span_us = np.diff(sample_us).astype(np.float64)
        usable = (span_us > 0) & (span_us <= gap_us)
        safe = np.where(usable, span_us, 1.0)
        counted = np.diff(energy_j)
        by_counter = usable & (counted >= 0)
        mean_w = np.where(by_counter, counted / safe * US_PER_SECOND, np.nan)
        start = np.where(by_counter, mean_w, np.where(usable, power_w[:-1], np.nan))
        slope = np.where(by_counter, 0.0, np.where(usable, np.diff(power_w) / safe, np.nan))
        unknown = np.isnan(start) | np.isnan(slope)
        return EnergyCurve(sample_us, np.where(unknown, np.nan, start), np.where(unknown, np.nan, slope))

    def between(self, start_us: Int64, end_us: Int64) -> tuple[Int64, NDArrayBool]:
        """Millijoules of each [start, end) that lies inside one pair, and whether they are known. Shapes as start_us."""
        if len(self.start_w) == 0:
            return np.zeros(len(start_us), dtype=np.int64), np.zeros(len(start_us), dtype=bool)
        pair = np.searchsorted(self.sample_us, start_us, side="right") - 1
        inside = (pair >= 0) & (pair < len(self.start_w))
        pair = np.clip(pair, 0, len(self.start_w) - 1)
        known = inside & ~np.isnan(self.start_w[pair])
        origin = self.sample_us[pair]
        amount = self._since(pair, end_us - origin) - self._since(pair, start_us - origin)
        return np.where(known, amount, 0), known

    def _since(self, pair: Int64, offset_us: Int64) -> Int64:
        offset = offset_us.astype(np.float64)
        watt_us = np.nan_to_num(self.start_w[pair]) * offset + np.nan_to_num(self.slope_w_per_us[pair]) * offset**2 / 2
        return np.rint(watt_us / 1000).astype(np.int64)  # W x us = uJ; /1000 = mJ


NDArrayBool = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
