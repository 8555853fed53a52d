"""The sweep: how the requests active on a GPU at the same time share what it costs at that time.

At each instant the GPU's money is shared by the active segments in proportion to their work rates r
= W / duration. With S the sum of active rates and F(t) = integral of money rate / S over busy time:

    cost_i = r_i * (F(end_i) - F(start_i))

which is O(n log n) after sorting the boundaries once, conserves by construction and does not depend
on the size of the cells. The caller makes integers of it, by largest remainder inside each cell.

Everything here is flat over many cells of one GPU: `edges` are the boundaries of all cells,
ascending, cell by cell; the interval k goes from edge k to edge k+1, and the last edge of a cell
starts no interval. Sums restart in each cell, so a cell comes out bit for bit the same whichever
neighbours are computed with it: that is what makes the ledger a pure function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from gpu_token_analytics.ledger.money import Float64, Int64, NDArrayBool

# Running sums lose what differs by many orders of magnitude: with rates R and r << R, S keeps R's
# noise when R has ended, and F keeps the noise of r's huge steps when r has ended. The error
# expected in a cell is
#
#     4 * sqrt(edges) * 2^-52 * max(S) * F(end of cell)
#
# and a cell where that could reach this much of a nano-USD (or millijoule) is computed without
# running sums.
NOISE_LIMIT = 0.01
_EPSILON = 2.0**-52

# Pairs x intervals held at a time by the computation without running sums: 8 MB an array.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Sweep:
    """Segments clipped to cells. All shapes (pairs,), ordered by (cell, event id, phase); a pair is
    one segment in one cell."""

    cell: Int64  # index of the cell
    start: Int64  # index of its first edge
    end: Int64  # index of the edge where it stops
    # work per microsecond, > 0; 0 where it stops at its first edge: that pair gets nothing
    rate: Float64
    first_edge: Int64  # (cells + 1,): where each cell's edges begin

    @cached_property
    def active(self) -> Int64:
        """Number of active segments in each interval. Shape (edges,)."""
        size = int(self.first_edge[-1])
        change = np.bincount(self.start, minlength=size) - np.bincount(self.end, minlength=size)
        return np.cumsum(change)

    def share(self, amount: Float64) -> Float64:
        """Each pair's part of `amount` (edges,), in nano-USD or mJ, which counts only where a pair
        is active. Shape (pairs,).

        Never negative; in each cell the parts sum to the amount of its busy intervals, but for
        rounding noise.
        """
        if not len(self.cell):
            return np.zeros(0)
        busy = np.where(self.active > 0, amount, 0.0)
        # Noise can make a sum 0 or negative; such a cell is computed again below.
        per_work = np.divide(
            busy, self._rates, out=np.zeros(len(busy)), where=(self.active > 0) & (self._rates > 0)
        )
        upto = self._running(per_work)
        shares = self.rate * (upto[self.end] - upto[self.start])
        for cell in np.flatnonzero(self._is_noisy(busy, upto)):
            self._share_afresh(int(cell), busy, shares)
        return shares

    def _is_noisy(self, busy: Float64, upto: Float64) -> NDArrayBool:
        """Which cells have rates too far apart for running sums. Shape (cells,)."""
        starts = self.first_edge[:-1]
        rates = np.where(self.active > 0, self._rates, 0.0)
        top = np.maximum.reduceat(rates, starts)
        lost = np.logical_or.reduceat(
            (busy > 0) & (rates <= top[self._cell_of_edge] * _EPSILON), starts
        )
        noise = (
            4 * np.sqrt(np.diff(self.first_edge)) * _EPSILON * top * upto[self.first_edge[1:] - 1]
        )
        noisy: NDArrayBool = lost | (noise > NOISE_LIMIT)
        return noisy

    @cached_property
    def _cell_of_edge(self) -> Int64:
        return np.repeat(np.arange(len(self.first_edge) - 1), np.diff(self.first_edge))

    @cached_property
    def _rates(self) -> Float64:
        """S of each interval: the sum of the active rates. Shape (edges,)."""
        size = int(self.first_edge[-1])
        change = np.bincount(self.start, weights=self.rate, minlength=size)
        change -= np.bincount(self.end, weights=self.rate, minlength=size)
        sums = np.empty(size)
        for begin, stop in self._cells():
            np.cumsum(change[begin:stop], out=sums[begin:stop])
        return sums

    def _running(self, per_work: Float64) -> Float64:
        """F at each edge, from 0 at the start of its cell. Shape (edges,)."""
        upto = np.zeros(len(per_work))
        for begin, stop in self._cells():
            np.cumsum(per_work[begin : stop - 1], out=upto[begin + 1 : stop])
        return upto

    def _cells(self) -> Iterator[tuple[int, int]]:
        return pairwise(self.first_edge.tolist())

    def _share_afresh(self, cell: int, busy: Float64, shares: Float64) -> None:
        """The same shares of one cell from fresh sums of its active rates, O(pairs x intervals):
        nothing can cancel."""
        first, stop = (int(at) for at in np.searchsorted(self.cell, [cell, cell + 1]))
        low, high = int(self.first_edge[cell]), int(self.first_edge[cell + 1])
        sums = np.zeros(high - low)
        chunks = list(self._chunks(first, stop))
        for begin, end in chunks:
            pair, interval = self._covered(begin, end)
            sums += np.bincount(interval - low, weights=self.rate[pair], minlength=high - low)
        per_work = np.divide(busy[low:high], sums, out=np.zeros(high - low), where=sums > 0)
        for begin, end in chunks:
            pair, interval = self._covered(begin, end)
            spans = np.bincount(
                pair - begin, weights=per_work[interval - low], minlength=end - begin
            )
            shares[begin:end] = self.rate[begin:end] * spans

    def _chunks(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """[first, stop) cut into runs of pairs that cover about _CHUNK intervals together."""
        covered = np.cumsum(self.end[first:stop] - self.start[first:stop])
        cuts = np.unique(np.searchsorted(covered, np.arange(0, covered[-1], _CHUNK), side="left"))
        borders = [*(first + cuts).tolist(), stop]
        return pairwise(borders)

    def _covered(self, begin: int, end: int) -> tuple[Int64, Int64]:
        """(pair, interval) of every interval that the pairs [begin, end) are active in."""
        count = self.end[begin:end] - self.start[begin:end]
        pair = np.repeat(np.arange(begin, end), count)
        offset = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
        return pair, self.start[pair] + offset
