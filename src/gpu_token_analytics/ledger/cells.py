"""The cells of one GPU: money, classes, lines and energy of each asked minute, from events, prices and parameters.

    edges     every time anything changes inside a cell: its ends, segments, samples, price changes
    money     C over the edges, telescoping integers (money.py), times slices/7 under MIG
    class     of each interval: attributed where a request is active, else what the samples say (classes.py)
    shares    the busy intervals' money and energy over the active segments (attribution.py)
    lines     shares and tokens summed by model, tenant, method

Order, duplicates and neighbours do not matter: events are sorted by id, and every running sum restarts in each cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu_token_analytics.documents import LedgerLine, MoneyClass, NanoUsd
from gpu_token_analytics.ledger.attribution import Sweep
from gpu_token_analytics.ledger.classes import CLASS_INDEX, CLASS_NAMES, class_at, sample_classes
from gpu_token_analytics.ledger.energy import EnergyCurve
from gpu_token_analytics.ledger.money import Float64, Int64, price_integrals
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import MJ_PER_KWH, PricePiece
from gpu_token_analytics.ledger.requests import METHODS, PREFILL, Requests, Segments, spread_tokens

MIG_SEVENTHS = 7


@dataclass(frozen=True)
class Samples:
    """Samples of one GPU in time order (equal times by event id). All shapes (n,); NaN is unknown."""

    ts_us: Int64
    utilization: Float64
    mem_used_mb: Float64
    power_w: Float64
    energy_j: Float64

    @staticmethod
    def of(documents: Sequence[Mapping[str, Any]]) -> Samples:
        """From documents of `gpu_metrics`."""
        docs = sorted(documents, key=lambda doc: (doc["ts_us"], doc["_id"]))
        return Samples(
            np.array([doc["ts_us"] for doc in docs], dtype=np.int64),
            *(_floats(docs, name) for name in ("utilization", "mem_used_mb", "power_w", "energy_j")),
        )


@dataclass(frozen=True)
class CardShare:
    """MIG: what part of a card's money is this GPU's. Denominator 7, or the sum of all slices seen where that is more.

    A slice: `slice_parts` = its sevenths. A card: `child_parts` = the sevenths of its slices; it keeps what they leave.
    """

    denominator: int = MIG_SEVENTHS
    slice_parts: int | None = None
    child_parts: tuple[int, ...] = ()

    def of(self, whole: Int64) -> Int64:
        """This GPU's part, rounded down, so that slices and card together can never exceed the card."""
        parts = self.slice_parts if self.slice_parts is not None else self.denominator - sum(self.child_parts)
        found: Int64 = whole * parts // self.denominator
        return found

    def left(self, whole: NanoUsd) -> NanoUsd:
        """What a card keeps: all that its slices, each rounded down, do not take."""
        return whole - sum(whole * parts // self.denominator for parts in self.child_parts)


@dataclass(frozen=True)
class CellInput:
    """One minute to compute. `until_us`: the owned part is [start, until); `prices` cover it (PriceBook.pieces)."""

    start_us: int
    until_us: int
    prices: Sequence[PricePiece]
    card: CardShare | None = None  # None: a whole GPU


@dataclass(frozen=True)
class RequestShare:
    """One request's part in one cell."""

    request: int  # index into Requests
    cost_nusd: NanoUsd
    prefill_cost_nusd: NanoUsd
    energy_mj: int | None
    busy_us: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    ends_here: bool  # it ended in this cell and this is its first GPU: counted here


@dataclass(frozen=True)
class CellContent:
    """What the ledger says about one cell. `sum(classes.values()) == cost_nusd`, `sum(class_us.values()) == owned_us`."""

    start_us: int
    cost_nusd: NanoUsd
    owned_us: int
    classes: dict[str, NanoUsd]
    class_us: dict[str, int]
    energy_mj: int | None
    energy_observed_us: int
    lines: list[LedgerLine]
    samples: int
    requests_active: int
    shares: list[RequestShare] = field(default_factory=list, repr=False)

    def document(self) -> dict[str, Any]:
        """The content fields of a cell document (documents.CellDocument)."""
        return {
            "cost_nusd": self.cost_nusd,
            "owned_us": self.owned_us,
            "classes": self.classes,
            "class_us": self.class_us,
            "energy_mj": self.energy_mj,
            "energy_observed_us": self.energy_observed_us,
            "lines": self.lines,
            "samples": self.samples,
            "requests_active": self.requests_active,
        }


def compute_cells(
    cells: Sequence[CellInput],
    requests: Requests,
    samples: Samples,
    params: LedgerParams,
    *,
    with_shares: bool = False,
) -> list[CellContent]:
    """The content of each cell of one GPU, in the given order (ascending by start, not overlapping).

    requests and samples: all that can touch the cells; more do no harm. with_shares: also list each request's part.
    """
    if not cells:
        return []
    grid = _Grid(cells, requests.segments(params), samples, params)
    sweep, active = grid.sweep, grid.active
    cost = sweep.share(grid.money, active)
    energy = sweep.share(grid.energy, active)
    classes = np.where(active > 0, CLASS_INDEX[MoneyClass.ATTRIBUTED], grid.idle_class)
    cell_of = grid.cell_of_edge
    kinds = len(CLASS_NAMES)
    by_class = _sum_by(cell_of * kinds + classes, grid.money, len(cells) * kinds).reshape(len(cells), kinds)
    us_by_class = _sum_by(cell_of * kinds + classes, grid.length_us, len(cells) * kinds).reshape(len(cells), kinds)
    grid.settle_cards(by_class)
    energy_sum = _sum_by(cell_of, grid.energy, len(cells))
    observed = _sum_by(cell_of, np.where(grid.energy_known, grid.length_us, 0), len(cells))
    seen = np.searchsorted(samples.ts_us, grid.until) - np.searchsorted(samples.ts_us, grid.start)
    parts = _Parts.of(grid, requests, cost, energy)
    lines = parts.lines(requests, observed > 0, len(cells))
    shares = parts.shares(observed > 0, len(cells)) if with_shares else None
    actives = np.bincount(parts.cell, minlength=len(cells)).tolist()
    found = []
    for index, cell in enumerate(cells):
        money, time = by_class[index].tolist(), us_by_class[index].tolist()
        has_energy = bool(observed[index])
        found.append(
            CellContent(
                start_us=cell.start_us,
                cost_nusd=sum(money),
                owned_us=max(0, cell.until_us - cell.start_us),
                classes=dict(zip(CLASS_NAMES, money, strict=True)),
                class_us=dict(zip(CLASS_NAMES, time, strict=True)),
                energy_mj=int(energy_sum[index]) if has_energy else None,
                energy_observed_us=int(observed[index]),
                lines=lines[index],
                samples=int(seen[index]),
                requests_active=actives[index],
                shares=[] if shares is None else shares[index],
            )
        )
    return found


class _Grid:
    """The flat edges of all cells and what happens on the intervals between them. Interval arrays have shape (edges,)."""

    def __init__(self, cells: Sequence[CellInput], segments: Segments, samples: Samples, params: LedgerParams) -> None:
        self._cells = cells
        self._shift = int(params.cell_us).bit_length() + 1
        self.start = np.array([cell.start_us for cell in cells], dtype=np.int64)
        self.until = np.array([max(cell.until_us, cell.start_us) for cell in cells], dtype=np.int64)
        self.pair_cell, self.pair_segment = self._pairs(segments)
        self.pair_start = np.maximum(segments.start_us[self.pair_segment], self.start[self.pair_cell])
        self.pair_end = np.minimum(segments.end_us[self.pair_segment], self.until[self.pair_cell])
        self.segments = segments
        keys = self._edge_keys(samples, params)
        self.cell_of_edge = keys >> self._shift
        self.at_us = self.start[self.cell_of_edge] + (keys & ((1 << self._shift) - 1))
        self.first_edge = np.searchsorted(self.cell_of_edge, np.arange(len(cells) + 1))
        last = self.first_edge[1:] - 1
        following = np.append(self.at_us[1:], 0)
        following[last] = self.at_us[last]
        self.length_us = following - self.at_us
        self.money = self._money()
        curve = EnergyCurve.of(samples.ts_us, samples.power_w, samples.energy_j, params.gap_us)
        self.energy, self.energy_known = curve.between(self.at_us, following)
        self._price_energy()
        states = sample_classes(samples.utilization, samples.mem_used_mb, params)
        self.idle_class = class_at(self.at_us, samples.ts_us, states, params.gap_us)
        card = np.array([cell.card is not None and bool(cell.card.child_parts) for cell in cells])
        self.idle_class[card[self.cell_of_edge]] = CLASS_INDEX[MoneyClass.COLD_IDLE]
        self.sweep = Sweep(
            cell=self.pair_cell,
            start=np.searchsorted(keys, self._key(self.pair_cell, self.pair_start)),
            end=np.searchsorted(keys, self._key(self.pair_cell, self.pair_end)),
            rate=segments.rate[self.pair_segment],
            first_edge=self.first_edge,
        )
        self.active = self.sweep.active()

    def settle_cards(self, by_class: Int64) -> None:
        """Give a partitioned card the nano-dollars that its slices' rounding down leaves: at most 6, as cold idle."""
        for index, cell in enumerate(self._cells):
            if cell.card is not None and cell.card.child_parts:
                left = sum(cell.card.left(_piece_money(piece, until)) for piece, until in _spans(cell))
                by_class[index, CLASS_INDEX[MoneyClass.COLD_IDLE]] += left - self._time_money[index]

    def _key(self, cell: Int64, at_us: Int64) -> Int64:
        found: Int64 = (cell << self._shift) + (at_us - self.start[cell])
        return found

    def _pairs(self, segments: Segments) -> tuple[Int64, Int64]:
        """(cell, segment) of every overlap, ordered by cell, then by segment (event id, phase)."""
        first = np.searchsorted(self.until, segments.start_us, side="right")
        stop = np.searchsorted(self.start, segments.end_us, side="left")
        count = np.maximum(stop - first, 0)
        segment = np.repeat(np.arange(len(count)), count)
        begin = np.cumsum(count) - count
        cell = first[segment] + (np.arange(len(segment)) - begin[segment])
        order = np.argsort(cell, kind="stable")
        cell, segment = cell[order], segment[order]
        real = np.minimum(segments.end_us[segment], self.until[cell]) > np.maximum(segments.start_us[segment], self.start[cell])
        return cell[real], segment[real]

    def _edge_keys(self, samples: Samples, params: LedgerParams) -> Int64:
        own = np.arange(len(self._cells))
        changes = np.concatenate([samples.ts_us, samples.ts_us + params.gap_us])
        price = [(index, piece.from_us) for index, cell in enumerate(self._cells) for piece in cell.prices[1:]]
        where = np.searchsorted(self.start, changes, side="right") - 1
        inside = (where >= 0) & (changes < self.until[np.maximum(where, 0)])
        keys = [
            self._key(own, self.start),
            self._key(own, self.until),
            self._key(where[inside], changes[inside]),
            self._key(self.pair_cell, self.pair_start),
            self._key(self.pair_cell, self.pair_end),
        ]
        if price:
            cell = np.array([index for index, _ in price], dtype=np.int64)
            keys.append(self._key(cell, np.array([at for _, at in price], dtype=np.int64)))
        return np.unique(np.concatenate(keys))

    def _money(self) -> Int64:
        """Nano-USD of each interval: telescoping inside each price piece, so a cell sums to R(end) - R(start)."""
        money = np.zeros(len(self.at_us), dtype=np.int64)
        self._time_money = [0] * len(self._cells)
        for index, cell in enumerate(self._cells):
            begin, stop = int(self.first_edge[index]), int(self.first_edge[index + 1])
            for piece, until in _spans(cell):
                low = begin + int(np.searchsorted(self.at_us[begin:stop], piece.from_us))
                high = begin + int(np.searchsorted(self.at_us[begin:stop], until))
                offsets = np.append(self.at_us[low:high], until) - piece.from_us
                whole = price_integrals(piece.nusd_per_hour, piece.from_us, offsets)
                money[low:high] = np.diff(whole if cell.card is None else cell.card.of(whole))
            self._time_money[index] = int(money[begin:stop].sum())
        return money

    def _price_energy(self) -> None:
        """Add the price of energy where the price row is `owned`: telescoping over the cell's own millijoules."""
        for index, cell in enumerate(self._cells):
            for piece, until in _spans(cell):
                if not piece.energy_nusd_per_kwh:
                    continue
                low = int(np.searchsorted(self._edges(index), piece.from_us)) + int(self.first_edge[index])
                high = int(np.searchsorted(self._edges(index), until)) + int(self.first_edge[index])
                upto = np.cumsum(self.energy[low:high])
                cost = (upto * piece.energy_nusd_per_kwh + MJ_PER_KWH // 2) // MJ_PER_KWH
                self.money[low:high] += np.diff(cost, prepend=0)

    def _edges(self, index: int) -> Int64:
        found: Int64 = self.at_us[int(self.first_edge[index]) : int(self.first_edge[index + 1])]
        return found


def _spans(cell: CellInput) -> list[tuple[PricePiece, int]]:
    """(piece, its end) inside the owned part of the cell."""
    ends = [piece.from_us for piece in cell.prices[1:]] + [cell.until_us]
    return [
        (piece, min(until, cell.until_us))
        for piece, until in zip(cell.prices, ends, strict=True)
        if piece.from_us < min(until, cell.until_us)
    ]


def _piece_money(piece: PricePiece, until_us: int) -> NanoUsd:
    offsets = np.array([until_us - piece.from_us], dtype=np.int64)
    return int(price_integrals(piece.nusd_per_hour, piece.from_us, offsets)[0])


@dataclass(frozen=True)
class _Parts:
    """Pairs joined per (cell, request): one row per request in a cell. Shapes (rows,), ordered by (cell, event id)."""

    cell: Int64
    request: Int64
    cost: Int64
    prefill: Int64
    energy: Int64
    busy_us: Int64
    tokens: dict[str, Int64]
    ends_here: Int64

    @staticmethod
    def of(grid: _Grid, requests: Requests, cost: Int64, energy: Int64) -> _Parts:
        """Join the pairs of one request (its two phases) in each cell and spread its tokens."""
        request = grid.segments.request[grid.pair_segment]
        key = grid.pair_cell * (len(requests) + 1) + request
        rows, row = np.unique(key, return_inverse=True)
        cell, owner = np.divmod(rows, len(requests) + 1)
        prefill = np.where(grid.segments.phase[grid.pair_segment] == PREFILL, cost, 0)
        low, high = grid.start[cell], grid.until[cell]
        first = np.where(requests.first_us >= 0, requests.first_us, requests.end_us)[owner]
        begin, end = requests.start_us[owner], requests.end_us[owner]
        decode_from = np.where(requests.first_us >= 0, requests.first_us, requests.start_us)[owner]
        share = (requests.gpu_count[owner], requests.gpu_rank[owner])

        def spread(count: Int64, start: Int64, stop: Int64) -> Int64:
            return spread_tokens(count[owner], start, stop, low, high, *share)

        return _Parts(
            cell=cell,
            request=owner,
            cost=_sum_by(row, cost, len(rows)),
            prefill=_sum_by(row, prefill, len(rows)),
            energy=_sum_by(row, energy, len(rows)),
            busy_us=_sum_by(row, grid.pair_end - grid.pair_start, len(rows)),
            tokens={
                "prompt_tokens": spread(requests.prompt, begin, first),
                "cached_tokens": spread(requests.cached, begin, first),
                "completion_tokens": spread(requests.completion, decode_from, end),
                "reasoning_tokens": spread(requests.reasoning, decode_from, end),
            },
            ends_here=((end > low) & (end <= high) & (requests.gpu_rank[owner] == 0)).astype(np.int64),
        )

    def lines(self, requests: Requests, has_energy: np.ndarray[Any, Any], cells: int) -> list[list[LedgerLine]]:
        """Lines of each cell, ordered by model, tenant, method."""
        found: list[list[LedgerLine]] = [[] for _ in range(cells)]
        if not len(self.cell):
            return found
        labels = list(zip(requests.models, requests.tenants, requests.method.tolist(), strict=True))
        groups = sorted(set(labels))
        number = {group: index for index, group in enumerate(groups)}
        group_of = np.array([number[label] for label in labels], dtype=np.int64)[self.request]
        rows, row = np.unique(self.cell * len(groups) + group_of, return_inverse=True)
        sums = {
            name: _sum_by(row, column, len(rows)).tolist()
            for name, column in (
                ("requests", self.ends_here),
                *self.tokens.items(),
                ("cost_nusd", self.cost),
                ("prefill_cost_nusd", self.prefill),
                ("energy_mj", self.energy),
                ("busy_us", self.busy_us),
            )
        }
        for index, key in enumerate(rows.tolist()):
            cell, group = divmod(key, len(groups))
            model, tenant, method = groups[group]
            found[cell].append(
                LedgerLine(
                    model=model,
                    tenant=tenant,
                    method=METHODS[method].value,
                    requests=sums["requests"][index],
                    prompt_tokens=sums["prompt_tokens"][index],
                    cached_tokens=sums["cached_tokens"][index],
                    completion_tokens=sums["completion_tokens"][index],
                    reasoning_tokens=sums["reasoning_tokens"][index],
                    cost_nusd=sums["cost_nusd"][index],
                    prefill_cost_nusd=sums["prefill_cost_nusd"][index],
                    energy_mj=sums["energy_mj"][index] if has_energy[cell] else None,
                    busy_us=sums["busy_us"][index],
                )
            )
        return found

    def shares(self, has_energy: np.ndarray[Any, Any], cells: int) -> list[list[RequestShare]]:
        """The part of each request in each cell."""
        found: list[list[RequestShare]] = [[] for _ in range(cells)]
        for index, cell in enumerate(self.cell.tolist()):
            found[cell].append(
                RequestShare(
                    request=int(self.request[index]),
                    cost_nusd=int(self.cost[index]),
                    prefill_cost_nusd=int(self.prefill[index]),
                    energy_mj=int(self.energy[index]) if has_energy[cell] else None,
                    busy_us=int(self.busy_us[index]),
                    ends_here=bool(self.ends_here[index]),
                    **{name: int(column[index]) for name, column in self.tokens.items()},
                )
            )
        return found


def slice_sevenths(mig_profile: str) -> int:
    """Compute slices of a MIG profile: 3 for `3g.40gb`."""
    return int(mig_profile.split("g.", 1)[0])


def _sum_by(index: Int64, values: Int64, size: int) -> Int64:
    found = np.zeros(size, dtype=np.int64)
    np.add.at(found, index, values)
    return found


def _floats(documents: Sequence[Mapping[str, Any]], name: str) -> Float64:
    return np.array([np.nan if doc.get(name) is None else doc[name] for doc in documents], dtype=np.float64)
