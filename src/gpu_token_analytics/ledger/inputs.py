"""What the cells of a GPU are computed from, and several GPUs laid out to be computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from gpu_token_analytics.documents import NanoUsd
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import PricePiece
from gpu_token_analytics.ledger.requests import Requests
from gpu_token_analytics.units import MIG_SEVENTHS

_NONE = np.zeros(0, dtype=np.int64)
NO_TIMES = (_NONE, _NONE)


@dataclass(frozen=True)
class Samples:
    """Samples of one GPU in time order (equal times by event id). All shapes (n,); NaN is
    unknown."""

    ts_us: Int64
    utilization: Float64
    mem_used_mb: Float64
    power_w: Float64
    energy_j: Float64

    def between(self, low_us: int, high_us: int) -> Samples:
        """Those with low <= ts <= high."""
        low, high = (
            np.searchsorted(self.ts_us, low_us),
            np.searchsorted(self.ts_us, high_us, side="right"),
        )
        return Samples(*(getattr(self, name)[low:high] for name in _SAMPLE_ARRAYS))

    @staticmethod
    def joined(parts: Sequence[Samples], moves_us: Sequence[int]) -> Samples:
        """Those of all parts, one after another, the times of each moved."""
        if len(parts) == 1 and not moves_us[0]:
            return parts[0]
        moved = [
            replace(part, ts_us=part.ts_us + move)
            for part, move in zip(parts, moves_us, strict=True)
        ]
        return Samples(
            *(np.concatenate([getattr(part, name) for part in moved]) for name in _SAMPLE_ARRAYS)
        )

    @staticmethod
    def of(documents: Sequence[Mapping[str, Any]]) -> Samples:
        """From documents of `gpu_metrics`."""
        docs = sorted(documents, key=lambda doc: (doc["ts_us"], doc["_id"]))
        return Samples(
            np.array([doc["ts_us"] for doc in docs], dtype=np.int64),
            *(
                _floats(docs, name)
                for name in ("utilization", "mem_used_mb", "power_w", "energy_j")
            ),
        )


_SAMPLE_ARRAYS = tuple(field.name for field in fields(Samples))


@dataclass(frozen=True)
class CardShare:
    """MIG: what part of a card's money is this GPU's. Denominator 7, or the sum of all slices seen
    where that is more.

    A slice: `slice_parts` = its sevenths. A card: `child_parts` = the sevenths of its slices; it
    keeps what they leave.
    """

    denominator: int = MIG_SEVENTHS
    slice_parts: int | None = None
    child_parts: tuple[int, ...] = ()

    @property
    def parts(self) -> int:
        """This GPU's numerator; 0 for a card that is partitioned completely."""
        return (
            self.denominator - sum(self.child_parts)
            if self.slice_parts is None
            else self.slice_parts
        )

    def of(self, whole: NanoUsd) -> NanoUsd:
        """This GPU's part of its card's money: a slice's rounded down; a card keeps all that its
        slices leave."""
        if self.slice_parts is not None:
            return whole * self.slice_parts // self.denominator
        return whole - sum(whole * parts // self.denominator for parts in self.child_parts)


@dataclass(frozen=True)
class CellInput:
    """One minute to compute. `until_us`: the owned part is [start, until); `prices` cover it
    (PriceBook.pieces).

    Not `known`: nobody told of the GPU in that minute. Requests up to `until_us` have their tokens
    there and no money; nothing is owned, and `prices` are empty.
    """

    start_us: int
    until_us: int
    prices: Sequence[PricePiece]
    card: CardShare | None = None  # None: a whole GPU
    known: bool = True


@dataclass(frozen=True)
class GpuInput:
    """The minutes of one GPU to compute, ascending and not overlapping, and all events that can
    touch them; more do no harm.

    around: [start, end) of further requests, active within the gap limit around the minutes but in
    none of them. They cost nothing there, but explain what the samples say of an interval that a
    minute shares. Shapes (n,).
    before: (start, `ts`) of further requests that began before the end of the minutes: those
    around, and where the memory of the GPU is not known the one that ended last before the minutes
    (params.model_kept_us). Shapes (m,).
    """

    cells: Sequence[CellInput]
    requests: Requests
    samples: Samples
    around: tuple[Int64, Int64] = NO_TIMES
    before: tuple[Int64, Int64] = NO_TIMES


@dataclass(frozen=True)
class Together:
    """Several GPUs on one axis of time, one after another: each one's times are moved by a time of
    its own.

    numpy needs as long to begin as for hundreds of numbers, and the requests of a minute are few.
    Between two GPUs lies more than the gap limit on both sides, so that no sample of one speaks for
    the other. Requests may reach further: they are held to the cells of their own GPU.
    """

    cells: Sequence[CellInput]  # of all, GPU after GPU; not moved
    start: Int64  # of each cell, moved; shape (cells,)
    until: Int64  # the end of its owned part, moved; not before `start`
    requests: Requests  # moved
    samples: Samples  # moved
    # [start, end) of all requests, those around included; moved, and cut to where samples are
    active: tuple[Int64, Int64]
    # [start, end) in which requests tell of a loaded model; moved, and cut likewise
    kept: tuple[Int64, Int64]
    gpu: Int64  # of each request; shape (requests,)
    first_cell: Int64  # of each GPU, and the number of all; shape (GPUs + 1,)
    first_request: Int64

    @staticmethod
    def of(gpus: Sequence[GpuInput], params: LedgerParams) -> Together:
        """gpus: each with at least one cell."""
        samples: list[Samples] = []
        active: list[tuple[Int64, Int64]] = []
        kept: list[tuple[Int64, Int64]] = []
        moves: list[int] = []
        free_us = 0
        for gpu in gpus:
            low = gpu.cells[0].start_us - params.gap_us
            high = max(max(cell.start_us, cell.until_us) for cell in gpu.cells) + params.gap_us
            moves.append(free_us - low if moves else 0)
            free_us = high + moves[-1] + 2 * params.gap_us + 1
            samples.append(gpu.samples.between(low, high))

            def cut(
                times: tuple[Int64, Int64], low: int = low, high: int = high, move: int = moves[-1]
            ) -> Int64:
                return np.concatenate(times).clip(low, high) + move

            active.append(
                (
                    cut((gpu.requests.start_us, gpu.around[0])),
                    cut((gpu.requests.end_us, gpu.around[1])),
                )
            )
            until_us = (
                gpu.requests.ts_us + params.model_kept_us,
                gpu.before[1] + params.model_kept_us,
            )
            kept.append((cut((gpu.requests.start_us, gpu.before[0])), cut(until_us)))
        cells = [cell for gpu in gpus for cell in gpu.cells]
        cell_counts, request_counts = (
            [len(gpu.cells) for gpu in gpus],
            [len(gpu.requests) for gpu in gpus],
        )
        moved = np.repeat(np.array(moves, dtype=np.int64), cell_counts)
        return Together(
            cells=cells,
            start=np.array([cell.start_us for cell in cells], dtype=np.int64) + moved,
            until=np.array([max(cell.until_us, cell.start_us) for cell in cells], dtype=np.int64)
            + moved,
            requests=Requests.joined([gpu.requests for gpu in gpus], moves),
            samples=Samples.joined(samples, moves),
            active=_joined(active),
            kept=_joined(kept),
            gpu=np.repeat(np.arange(len(gpus)), request_counts),
            first_cell=np.array([0, *accumulate(cell_counts)]),
            first_request=np.array([0, *accumulate(request_counts)]),
        )

    def by_gpu(self) -> list[slice]:
        """The cells of each GPU."""
        return [slice(first, stop) for first, stop in pairwise(self.first_cell.tolist())]


def _joined(times: Sequence[tuple[Int64, Int64]]) -> tuple[Int64, Int64]:
    return np.concatenate([start for start, _ in times]), np.concatenate([end for _, end in times])


def slice_sevenths(mig_profile: str) -> int:
    """Compute slices of a MIG profile: 3 for `3g.40gb`."""
    return int(mig_profile.split("g.", 1)[0])


def _floats(documents: Sequence[Mapping[str, Any]], name: str) -> Float64:
    return np.array(
        [np.nan if doc.get(name) is None else doc[name] for doc in documents], dtype=np.float64
    )
