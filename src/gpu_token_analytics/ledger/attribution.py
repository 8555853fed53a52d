"""The sweep: how the requests active on a GPU at the same time share what it costs at that time.

At each instant the GPU's money is shared by the active segments in proportion to their work rates r = W / duration. With S
the sum of active rates and F(t) = integral of money rate / S over busy time:

    cost_i = r_i * (F(end_i) - F(start_i))

which is O(n log n) after sorting the boundaries once, conserves by construction and does not depend on the size of the
cells. Integers by largest remainder inside each cell, ties by the caller's order (event id).

Everything here is flat over many cells of one GPU: `edges` are the boundaries of all cells, ascending, cell by cell; the
interval k goes from edge k to edge k+1, and the last edge of a cell starts no interval. Sums restart in each cell, so a cell
comes out bit for bit the same whichever neighbours are computed with it: that is what makes the ledger a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_token_analytics.ledger.money import Float64, Int64, largest_remainder

# Above this relative distance between the shares' sum and the money shared, running sums have lost too much (rates many
# orders of magnitude apart on one GPU) and the cell is computed interval by interval.
SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Sweep:
    """Segments clipped to cells. All shapes (pairs,), ordered by (cell, event id, phase); a pair is one segment in one cell."""

    cell: Int64  # index of the cell
    start: Int64  # index of its first edge
    end: Int64  # index of the edge where it stops
    rate: Float64  # work per microsecond, > 0
    first_edge: Int64  # (cells + 1,): where each cell's edges begin

    def active(self) -> Int64:
        """Number of active segments in each interval. Shape (edges,)."""
        size = int(self.first_edge[-1])
        change = np.bincount(self.start, minlength=size).astype(np.int64)
        change -= np.bincount(self.end, minlength=size)
        return np.cumsum(change)

    def share(self, amount: Int64, active: Int64) -> Int64:
        """Each pair's integer part of `amount` (edges,), which counts only where `active`. Shape (pairs,).

        Within each cell the parts sum exactly to the amount of its busy intervals.
        """
        cells = len(self.first_edge) - 1
        busy = np.where(active > 0, amount, 0)
        totals = np.add.reduceat(busy, self.first_edge[:-1]) if len(busy) else np.zeros(cells, dtype=np.int64)
        if not len(self.cell):
            return np.zeros(0, dtype=np.int64)
        rates = self._rate_sums(active)
        per_work = np.where(active > 0, busy / np.where(active > 0, rates, 1.0), 0.0)
        shares = self.rate * self._spans(per_work)
        sums = np.bincount(self.cell, weights=shares, minlength=cells)
        bad = ~(np.abs(sums - totals) <= SUM_TOLERANCE * totals + 1e-3) | (
            np.bincount(self.cell[~(shares >= 0)], minlength=cells) > 0
        )
        if bad.any():
            for cell in np.flatnonzero(bad):
                self._share_slowly(int(cell), busy, shares)
        return largest_remainder(shares, self.cell, totals)

    def _rate_sums(self, active: Int64) -> Float64:
        size = int(self.first_edge[-1])
        change = np.bincount(self.start, weights=self.rate, minlength=size)
        change -= np.bincount(self.end, weights=self.rate, minlength=size)
        sums = np.empty(size)
        for begin, stop in zip(self.first_edge[:-1].tolist(), self.first_edge[1:].tolist(), strict=True):
            np.cumsum(change[begin:stop], out=sums[begin:stop])
        # What is left of a running sum when nobody is active is rounding noise: take it out of all that follows.
        quiet = np.flatnonzero(active == 0)
        if len(quiet):
            last_quiet = np.searchsorted(quiet, np.arange(size), side="right") - 1
            noise = np.where(last_quiet >= 0, sums[quiet[np.maximum(last_quiet, 0)]], 0.0)
            same_cell = self.first_edge[np.searchsorted(self.first_edge, np.arange(size), side="right") - 1]
            sums -= np.where(quiet[np.maximum(last_quiet, 0)] >= same_cell, noise, 0.0)
        return sums

    def _spans(self, per_work: Float64) -> Float64:
        """F(end) - F(start) of each pair, F running from the start of its own cell."""
        upto = np.empty(len(per_work) + 1)
        upto[-1] = 0.0
        for begin, stop in zip(self.first_edge[:-1].tolist(), self.first_edge[1:].tolist(), strict=True):
            upto[begin] = 0.0
            np.cumsum(per_work[begin : stop - 1], out=upto[begin + 1 : stop])
        return upto[self.end] - upto[self.start]

    def _share_slowly(self, cell: int, busy: Int64, shares: Float64) -> None:
        """The same shares without running sums, O(pairs x intervals): each interval sums its own active rates afresh."""
        mine = np.flatnonzero(self.cell == cell)
        shares[mine] = 0.0
        for interval in range(int(self.first_edge[cell]), int(self.first_edge[cell + 1]) - 1):
            there = mine[(self.start[mine] <= interval) & (interval < self.end[mine])]
            if len(there) and busy[interval]:
                shares[there] += busy[interval] * (self.rate[there] / self.rate[there].sum())
