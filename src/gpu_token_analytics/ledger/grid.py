"""The grid of cells: every time at which anything changes inside of them, and what happens on the
intervals between.

edges     the ends of cells, segments of requests, samples, price changes
class     of each interval: attributed where a request is active, else how idle the samples say it
          was (classes.py), less the work that utilisation proves beyond the requests (unmetered.py)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from gpu_token_analytics.documents import US_PER_HOUR, MoneyClass, NanoUsd
from gpu_token_analytics.ledger.arrays import distinct, order_of, sum_by
from gpu_token_analytics.ledger.attribution import Sweep
from gpu_token_analytics.ledger.classes import (
    CLASS_INDEX,
    CLASS_NAMES,
    NOBODY,
    idle_classes,
    speaking_at,
)
from gpu_token_analytics.ledger.energy import EnergyCurve
from gpu_token_analytics.ledger.inputs import NO_TIMES, CellInput, Samples, Together
from gpu_token_analytics.ledger.money import Int64, NDArrayBool, price_integral, split_exactly
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.parts import Busy, Pairs, Parts
from gpu_token_analytics.ledger.prices import MJ_PER_KWH, PricePiece
from gpu_token_analytics.ledger.requests import Requests, Segments
from gpu_token_analytics.ledger.unmetered import ActiveTime, UnmeteredWork

_ATTRIBUTED = CLASS_INDEX[MoneyClass.ATTRIBUTED]
_UNMETERED = CLASS_INDEX[MoneyClass.UNMETERED_WORK]
_NEVER = ActiveTime.of(*NO_TIMES)


class Grid:
    """The flat edges of all cells and what happens on the intervals between them. Interval arrays
    have shape (edges,)."""

    def __init__(self, together: Together, segments: Segments, params: LedgerParams) -> None:
        self._cells = cells = together.cells
        self._shift = int(params.cell_us).bit_length() + 1
        self.start, self.until = together.start, together.until
        samples = together.samples
        self._segments = segments
        self._pairs = self._cut(segments, together)
        self._spans = [span for index, cell in enumerate(cells) for span in _spans(index, cell)]
        span_keys = self._span_keys()
        self._kept = (
            ActiveTime.of(*together.kept) if np.isnan(samples.mem_used_mb).any() else _NEVER
        )
        keys = self._edge_keys(samples, params, span_keys)
        self.cell_of_edge = keys >> self._shift
        span = np.searchsorted(span_keys, keys, side="right")
        # From 1; 0: none. A cell of a GPU that is not known has none, and its time is not the time
        # of the cell before it.
        self._span_of_edge = np.where(
            np.append(-1, span_keys >> self._shift)[span] == self.cell_of_edge, span, 0
        )
        at_us = self.start[self.cell_of_edge] + (keys & ((1 << self._shift) - 1))
        first_edge = np.searchsorted(self.cell_of_edge, np.arange(len(cells) + 1))
        following = np.append(at_us[1:], 0)
        following[first_edge[1:] - 1] = at_us[first_edge[1:] - 1]
        self.length_us = following - at_us
        curve = EnergyCurve.of(samples.ts_us, samples.power_w, samples.energy_j, params.gap_us)
        self.energy, self.energy_known = curve.between(at_us, following)
        self._sweep = Sweep(
            cell=self._pairs.cell,
            start=np.searchsorted(keys, self._key(self._pairs.cell, self._pairs.start_us)),
            end=np.searchsorted(keys, self._key(self._pairs.cell, self._pairs.end_us)),
            rate=segments.rate[self._pairs.segment],
            first_edge=first_edge,
        )
        self._active = self._sweep.active
        speaking = speaking_at(at_us, samples.ts_us, params.gap_us)
        work = UnmeteredWork.of(
            samples.ts_us, samples.utilization, ActiveTime.of(*together.active), params.gap_us
        )
        self._is_unread = np.zeros(len(at_us), dtype=bool)
        self._class = np.full(len(at_us), CLASS_INDEX[MoneyClass.UNOBSERVED])
        self._set_idle_class(
            np.flatnonzero(speaking != NOBODY), speaking, at_us, samples, work, params
        )
        self._class[self._is_partitioned] = CLASS_INDEX[MoneyClass.COLD_IDLE]
        self._class[self._active > 0] = _ATTRIBUTED
        self._unmetered_us = self._unmetered(at_us, following, speaking, work)
        # Of the energy of an interval, which is not known any finer, unknown work has the part that
        # it has of the time.
        part = self._unmetered_us / np.maximum(self.length_us, 1)
        self._unmetered_energy = np.rint(self.energy * part).astype(np.int64)

    def times(self) -> Int64:
        """Microseconds of each class in each cell. Shape (cells, classes)."""
        return self._by_class(
            self.cell_of_edge, self.length_us, self._unmetered_us, len(self._cells)
        )

    def _by_class(self, group: Int64, values: Int64, unmetered: Int64, groups: int) -> Int64:
        """Sums of interval values by group and class. unmetered: the part of each value that is
        unknown work, not idle. Shape (groups, classes)."""
        kinds = len(CLASS_NAMES)
        sums = sum_by(group * kinds + self._class, values - unmetered, groups * kinds).reshape(
            -1, kinds
        )
        sums[:, _UNMETERED] += sum_by(group, unmetered, groups)
        return sums

    def classes(self) -> list[list[NanoUsd]]:
        """Nano-USD of each class in each cell; their sum is C.

        C is exact in integers; the classes share it in proportion to price x time (plus the price
        of their energy), so that each is within 1 nano-USD of its own price x time times C over the
        same of the whole cell.
        """
        kinds = len(CLASS_NAMES)
        spans = len(self._spans) + 1
        time = self._by_class(
            self._span_of_edge, self.length_us, self._unmetered_us, spans
        ).tolist()[1:]
        energy = self._by_class(
            self._span_of_edge, self.energy, self._unmetered_energy, spans
        ).tolist()[1:]
        of_time, of_energy = [0] * len(self._cells), [0] * len(self._cells)
        weights = [[0] * kinds for _ in self._cells]
        for (cell, piece, until), span_us, span_mj in zip(self._spans, time, energy, strict=True):
            numerator, denominator = _part(self._cells[cell])
            of_time[cell] += price_integral(piece.nusd_per_hour, until) - price_integral(
                piece.nusd_per_hour, piece.from_us
            )
            of_energy[cell] += (
                sum(span_mj) * piece.energy_nusd_per_kwh + MJ_PER_KWH // 2
            ) // MJ_PER_KWH
            per_us, per_mj = (
                piece.nusd_per_hour * numerator,
                piece.energy_nusd_per_kwh * denominator,
            )
            # Microseconds of an hour and millijoules of a kWh are the same number, so these weights
            # have one unit.
            for kind, (us, mj) in enumerate(zip(span_us, span_mj, strict=True)):
                weights[cell][kind] += per_us * us + per_mj * mj
        return [
            split_exactly((time if cell.card is None else cell.card.of(time)) + energy, weight)
            for cell, time, energy, weight in zip(
                self._cells, of_time, of_energy, weights, strict=True
            )
        ]

    def parts(self, requests: Requests, money: list[list[NanoUsd]]) -> Parts:
        """What each request has in each cell."""
        per_us = [
            piece.nusd_per_hour * _ratio(self._cells[cell]) / US_PER_HOUR
            for cell, piece, _ in self._spans
        ]
        per_mj = [piece.energy_nusd_per_kwh / MJ_PER_KWH for _, piece, _ in self._spans]
        amount = np.array([0.0, *per_us])[self._span_of_edge] * self.length_us
        amount += np.array([0.0, *per_mj])[self._span_of_edge] * self.energy
        attributed = np.array([classes[_ATTRIBUTED] for classes in money], dtype=np.int64)
        energy = np.where(self._active > 0, self.energy, 0)
        total_energy = sum_by(self.cell_of_edge, energy, len(self._cells))
        return Parts.of(
            self._pairs,
            self._segments,
            requests,
            (self.start, self.until),
            money=Busy(self._sweep.share(amount), attributed),
            energy=Busy(self._sweep.share(energy.astype(np.float64)), total_energy),
        )

    def memory_unknown_us(self) -> Int64:
        """Microseconds of each cell that are idle of a class found without a reading of the memory.
        Shape (cells,)."""
        unread_us = np.where(self._is_unread, self.length_us - self._unmetered_us, 0)
        return sum_by(self.cell_of_edge, unread_us, len(self._cells))

    def _set_idle_class(
        self,
        heard: Int64,
        speaking: Int64,
        at_us: Int64,
        samples: Samples,
        work: UnmeteredWork,
        params: LedgerParams,
    ) -> None:
        """Set the class of the intervals `heard`, in which a sample speaks, as if no request were
        active there."""
        mem_used_mb = samples.mem_used_mb[speaking[heard]]
        used = self._kept.holds(at_us[heard]) | (
            np.nan_to_num(work.utilization[speaking[heard]]) > 0
        )
        self._class[heard] = idle_classes(mem_used_mb, used, params)
        unread = np.isnan(mem_used_mb) & (self._active[heard] == 0) & ~self._is_partitioned[heard]
        self._is_unread[heard] = unread

    @cached_property
    def _is_partitioned(self) -> NDArrayBool:
        """Whether each interval is of a card of which slices are seen: what is left of it can only
        be idle."""
        card = np.array(
            [cell.card is not None and bool(cell.card.child_parts) for cell in self._cells]
        )
        partitioned: NDArrayBool = card[self.cell_of_edge]
        return partitioned

    def _unmetered(
        self, at_us: Int64, following: Int64, speaking: Int64, work: UnmeteredWork
    ) -> Int64:
        """Microseconds of unknown work in each interval."""
        idle = np.flatnonzero(
            (self._active == 0)
            & (speaking != NOBODY)
            & ~self._is_partitioned
            & (self.length_us > 0)
        )
        unmetered = np.zeros(len(at_us), dtype=np.int64)
        unmetered[idle] = work.between(speaking[idle], at_us[idle], following[idle])
        return unmetered

    def _key(self, cell: Int64, at_us: Int64) -> Int64:
        return self._key_after(cell, at_us - self.start[cell])

    def _key_after(self, cell: Int64, us: Int64) -> Int64:
        key: Int64 = (cell << self._shift) + us
        return key

    def _span_keys(self) -> Int64:
        cell = np.array([cell for cell, _, _ in self._spans], dtype=np.int64)
        after = [piece.from_us - self._cells[cell].start_us for cell, piece, _ in self._spans]
        return self._key_after(cell, np.array(after, dtype=np.int64))

    def _cut(self, segments: Segments, together: Together) -> Pairs:
        """Every overlap of a segment and a cell of its GPU."""
        gpu = together.gpu[segments.request]
        # A point in time is in the cell that its microsecond is in.
        seen_until = np.maximum(segments.end_us, segments.start_us + 1)
        first = np.maximum(
            np.searchsorted(self.until, segments.start_us, side="right"), together.first_cell[gpu]
        )
        stop = np.minimum(
            np.searchsorted(self.start, seen_until, side="left"), together.first_cell[gpu + 1]
        )
        count = np.maximum(stop - first, 0)
        segment = np.repeat(np.arange(len(count)), count)
        cell = first[segment] + (np.arange(len(segment)) - (np.cumsum(count) - count)[segment])
        order = order_of(cell)
        cell, segment = cell[order], segment[order]
        start = np.maximum(segments.start_us[segment], self.start[cell])
        end = np.minimum(segments.end_us[segment], self.until[cell])
        real = np.minimum(seen_until[segment], self.until[cell]) > start
        return Pairs(cell[real], segment[real], start[real], end[real])

    def _edge_keys(self, samples: Samples, params: LedgerParams, span_keys: Int64) -> Int64:
        numbers = np.arange(len(self._cells))
        # A model that was kept until then matters where a sample that does not know the memory
        # speaks, and nowhere else.
        forgotten = self._kept.end_us
        speaking = speaking_at(forgotten, samples.ts_us, params.gap_us)
        forgotten = forgotten[
            (speaking != NOBODY) & np.isnan(np.append(samples.mem_used_mb, 0.0)[speaking])
        ]
        changes = np.concatenate([samples.ts_us, samples.ts_us + params.gap_us, forgotten])
        where = np.searchsorted(self.start, changes, side="right") - 1
        inside = (where >= 0) & (changes < self.until[np.maximum(where, 0)])
        keys = [
            self._key(numbers, self.start),
            self._key(numbers, self.until),
            self._key(where[inside], changes[inside]),
            self._key(self._pairs.cell, self._pairs.start_us),
            self._key(self._pairs.cell, self._pairs.end_us),
            span_keys,
        ]
        # np.unique hashes first: three times as long
        return distinct(np.sort(np.concatenate(keys)))[0]


def _spans(index: int, cell: CellInput) -> Iterator[tuple[int, PricePiece, int]]:
    """(cell, piece, its end) of each price inside the owned part of the cell."""
    ends = [piece.from_us for piece in cell.prices[1:]] + [cell.until_us] * bool(cell.prices)
    for piece, end in zip(cell.prices, ends, strict=True):
        until = min(end, cell.until_us)
        if piece.from_us < until:
            yield index, piece, until


def _part(cell: CellInput) -> tuple[int, int]:
    """(numerator, denominator) of the card's price that a GPU costs; 1, 1 for a whole GPU.

    A card with nothing left keeps a numerator of 1: the few nano-USD its slices' rounding leaves go
    by time.
    """
    return (1, 1) if cell.card is None else (max(1, cell.card.parts), cell.card.denominator)


def _ratio(cell: CellInput) -> float:
    numerator, denominator = _part(cell)
    return numerator / denominator
