"""Work that no known request explains: what utilisation proves beyond them.

A sample interval goes from one sample to the next, at most for the gap limit. Utilisation u over an
interval of length L, of which known requests cover k, proves

    X = max(0, u x L - k)

of unknown work, and not more. Nobody knows when in the interval it was, so it is spread evenly over
the L - k that nobody known covers: each uncovered instant is `unmetered_work` for the same part,
and idle for the rest.

Which u: drivers report the share of the sample period that has just passed (NVML,
nvmlUtilization_t.gpu: "percent of time over the past sample period during which one or more kernels
was executing"), so the sample that ends an interval speaks for it. Where none follows within the
gap limit, the one that began it is all that is known. Null proves nothing.

An interval is looked at as a whole, with the requests of all of it, also where a cell holds only a
part of it: what a cell says then does not depend on where cells are cut, but on requests up to the
gap limit around it (docs/decisions/0012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_token_analytics.ledger.arrays import order_of
from gpu_token_analytics.ledger.money import Float64, Int64, NDArrayBool


@dataclass(frozen=True)
class ActiveTime:
    """When any of several requests was active: their times joined. Blocks ascend and do not touch;
    shapes (blocks,)."""

    begin_us: Int64
    end_us: Int64
    total_us: Int64  # of this block and all before it

    def holds(self, at_us: Int64) -> NDArrayBool:
        """Whether each time is in it. Shape as at_us."""
        if not len(self.begin_us):
            return np.zeros(len(at_us), dtype=bool)
        block = np.searchsorted(self.begin_us, at_us, side="right") - 1
        held: NDArrayBool = (block >= 0) & (at_us < self.end_us[np.maximum(block, 0)])
        return held

    @staticmethod
    def of(start_us: Int64, end_us: Int64) -> ActiveTime:
        """Of requests in any order; those that were active for no time are left out. Shapes
        (n,)."""
        active = end_us > start_us
        start_us, end_us = start_us[active], end_us[active]
        order = order_of(start_us)
        start_us, latest = start_us[order], np.maximum.accumulate(end_us[order])
        begins = np.ones(len(order), dtype=bool)
        np.greater(start_us[1:], latest[:-1], out=begins[1:])
        ends = np.append(begins[1:], True) if len(order) else begins
        begin_us, until_us = start_us[begins], latest[ends]
        return ActiveTime(begin_us, until_us, np.cumsum(until_us - begin_us))

    def before(self, at_us: Int64) -> Int64:
        """Microseconds of it before each time. Shape as at_us."""
        if not len(self.begin_us):
            return np.zeros(len(at_us), dtype=np.int64)
        block = np.searchsorted(self.begin_us, at_us, side="right") - 1
        held = np.maximum(block, 0)
        us: Int64 = np.where(
            block < 0, 0, self.total_us[held] - np.maximum(self.end_us[held] - at_us, 0)
        )
        return us


@dataclass(frozen=True)
class UnmeteredWork:
    """Unknown work of each sample interval; index i is the one that sample i begins. All shapes
    (samples,)."""

    sample_us: Int64
    utilization: Float64  # u; NaN unknown
    active: ActiveTime
    active_before_us: Int64  # of `active`, before the interval
    uncovered_us: Int64  # L - k
    unknown_us: Int64  # X

    @staticmethod
    def of(
        sample_us: Int64, utilization: Float64, active: ActiveTime, gap_us: int
    ) -> UnmeteredWork:
        """sample_us ascending; utilization: 0 to 1, NaN unknown; active: of all requests in the
        sample intervals."""
        following = np.append(sample_us[1:], np.iinfo(np.int64).max)[: len(sample_us)]
        until_us = np.minimum(following, sample_us + gap_us)
        length_us = until_us - sample_us
        # Of samples at one time the last one speaks, here as in classes.py.
        ending = np.searchsorted(sample_us, until_us, side="right") - 1
        used = np.where(following - sample_us <= gap_us, utilization[ending], utilization)
        before_us = active.before(sample_us)
        covered_us = active.before(until_us) - before_us
        uncovered_us = length_us - covered_us
        busy_us = np.floor(np.nan_to_num(used) * length_us + 0.5).astype(np.int64)
        return UnmeteredWork(
            sample_us,
            used,
            active,
            before_us,
            uncovered_us,
            np.clip(busy_us - covered_us, 0, uncovered_us),
        )

    def between(self, sample: Int64, start_us: Int64, end_us: Int64) -> Int64:
        """Microseconds of it in each [start, end), which lies in the interval that `sample` begins.
        Shapes (n,).

        Telescoping, so that the parts of an interval sum to X however it is cut; none is longer
        than its uncovered time.
        """
        unknown_us, whole_us = self.unknown_us[sample], np.maximum(self.uncovered_us[sample], 1)

        def upto(at_us: Int64) -> Int64:
            passed_us = (
                at_us
                - self.sample_us[sample]
                - (self.active.before(at_us) - self.active_before_us[sample])
            )
            us: Int64 = (2 * unknown_us * passed_us + whole_us) // (2 * whole_us)
            return us

        return upto(end_us) - upto(start_us)
