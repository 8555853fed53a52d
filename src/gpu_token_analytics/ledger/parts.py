"""One request in one cell: its money, energy, tokens and time, and the lines they sum to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_token_analytics.documents import COUNTS, TOKEN_COUNTS, Method, NanoUsd
from gpu_token_analytics.ledger.arrays import distinct, numbered, sum_by, sums_by_key
from gpu_token_analytics.ledger.document import LedgerLine
from gpu_token_analytics.ledger.money import Float64, Int64, largest_remainder
from gpu_token_analytics.ledger.requests import METHODS, PREFILL, Requests, Segments, spread_tokens


@dataclass(frozen=True)
class RequestShare:
    """One request's part in one cell."""

    request: int  # index into the GPU's Requests
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
class Pairs:
    """Segments clipped to cells, ordered by (cell, event id, phase). All shapes (pairs,)."""

    cell: Int64  # index of the cell
    segment: Int64  # index into Segments
    start_us: Int64
    end_us: Int64


@dataclass(frozen=True)
class Busy:
    """What the requests of each cell share: the float part of each pair (Sweep.share) and the
    integer it must sum to."""

    shares: Float64  # (pairs,)
    totals: Int64  # (cells,)


@dataclass(frozen=True)
class Parts:
    """Pairs joined per (cell, request), its two phases together. Shapes (rows,), ordered by (cell,
    event id)."""

    cell: Int64
    request: Int64  # index into Requests
    cost: Int64
    prefill: Int64  # part of cost
    energy: Int64
    busy_us: Int64
    tokens: dict[str, Int64]
    ends_here: Int64

    @staticmethod
    def of(
        pairs: Pairs,
        segments: Segments,
        requests: Requests,
        span_us: tuple[Int64, Int64],
        money: Busy,
        energy: Busy,
    ) -> Parts:
        """Join the pairs, round to integers inside each cell (ties by event id) and spread the
        tokens.

        span_us: owned [start, until) of each cell.
        """
        width = len(requests) + 1
        # pairs and segments are in order
        rows, row = distinct(pairs.cell * width + segments.request[pairs.segment])
        cell, owner = np.divmod(rows, width)
        size = len(rows)
        share = np.bincount(row, weights=money.shares, minlength=size).astype(np.float64)
        joules = np.bincount(row, weights=energy.shares, minlength=size).astype(np.float64)
        early = np.where(segments.phase[pairs.segment] == PREFILL, money.shares, 0.0)
        cost = largest_remainder(share, cell, money.totals)
        ratio = np.divide(
            np.bincount(row, weights=early, minlength=size),
            share,
            out=np.zeros(size),
            where=share > 0,
        )
        low, high = span_us[0][cell], span_us[1][cell]
        return Parts(
            cell=cell,
            request=owner,
            cost=cost,
            prefill=np.rint(cost * ratio).astype(np.int64),
            energy=largest_remainder(joules, cell, energy.totals),
            busy_us=sum_by(row, pairs.end_us - pairs.start_us, size),
            tokens=_tokens(requests, owner, low, high),
            # A part exists only where the request is active (or, never active, at its end), so this
            # is the one cell of its end.
            ends_here=((requests.end_us[owner] <= high) & (requests.gpu_rank[owner] == 0)).astype(
                np.int64
            ),
        )

    def lines(self, requests: Requests, has_energy: list[bool]) -> list[list[LedgerLine]]:
        """Lines of each cell, ordered by model, tenant, method. has_energy: of each cell."""
        by_cell: list[list[LedgerLine]] = [[] for _ in has_energy]
        table = requests.labels.table
        pairs, pair = numbered(
            requests.labels.codes * len(METHODS) + requests.method, len(table) * len(METHODS)
        )
        named = [
            (table[code].model, table[code].tenant, method)
            for code, method in (divmod(at, len(METHODS)) for at in pairs.tolist())
        ]
        groups = sorted(set(named))
        number = {group: index for index, group in enumerate(groups)}
        group_of = np.array([number[group] for group in named], dtype=np.int64)[pair][self.request]
        keys = self.cell * len(groups) + group_of
        columns = (
            self.ends_here,
            *self.tokens.values(),
            self.cost,
            self.prefill,
            self.energy,
            self.busy_us,
        )
        rows, sums = sums_by_key(keys, columns)
        for key, (ended, prompt, cached, completion, reasoning, cost, prefill, energy, busy) in zip(
            rows.tolist(), sums.tolist(), strict=True
        ):
            cell, group = divmod(key, len(groups))
            model, tenant, method = groups[group]
            by_cell[cell].append(
                LedgerLine(
                    model=model,
                    tenant=tenant,
                    method=METHODS[method].value,
                    requests=ended,
                    prompt_tokens=prompt,
                    cached_tokens=cached,
                    completion_tokens=completion,
                    reasoning_tokens=reasoning,
                    cost_nusd=cost,
                    prefill_cost_nusd=prefill,
                    energy_mj=energy if has_energy[cell] else None,
                    busy_us=busy,
                )
            )
        return by_cell

    def shares(self, has_energy: list[bool], first_request: Int64) -> list[list[RequestShare]]:
        """The part of each request in each cell. has_energy: of each cell; first_request: of each
        request, the first one of its GPU, from which RequestShare.request counts."""
        by_cell: list[list[RequestShare]] = [[] for _ in has_energy]
        for index, cell in enumerate(self.cell.tolist()):
            by_cell[cell].append(
                RequestShare(
                    request=int(self.request[index] - first_request[self.request[index]]),
                    cost_nusd=int(self.cost[index]),
                    prefill_cost_nusd=int(self.prefill[index]),
                    energy_mj=int(self.energy[index]) if has_energy[cell] else None,
                    busy_us=int(self.busy_us[index]),
                    ends_here=bool(self.ends_here[index]),
                    **{name: int(column[index]) for name, column in self.tokens.items()},
                )
            )
        return by_cell


def lines_without_money(lines: Sequence[LedgerLine]) -> list[LedgerLine]:
    """Lines of a GPU that is not known, by model and tenant alone: how their money was found is no
    question."""
    summed: dict[tuple[str, str], LedgerLine] = {}
    for line in lines:
        key = line["model"], line["tenant"]
        together = summed.get(key)
        if together is None:
            unknown: Any = {
                "method": Method.UNKNOWN_GPU.value,
                "cost_nusd": None,
                "prefill_cost_nusd": None,
                "energy_mj": None,
            }
            summed[key] = {**line, **unknown}
        else:
            for name in _COUNTED:
                together[name] += line[name]  # type: ignore[literal-required]  # names of its fields
    return list(summed.values())


_COUNTED = (*COUNTS, "busy_us")


def _tokens(requests: Requests, owner: Int64, low: Int64, high: Int64) -> dict[str, Int64]:
    """Tokens of each row: prompt tokens up to the first token, completion tokens from there; else
    all along."""
    begin, end, first = requests.start_us[owner], requests.end_us[owner], requests.first_us[owner]
    known = first >= 0
    counts = np.stack([requests.prompt, requests.cached, requests.completion, requests.reasoning])[
        :, owner
    ]
    prefill_end, decode_start = np.where(known, first, end), np.where(known, first, begin)
    starts, ends = (
        np.stack([begin, begin, decode_start, decode_start]),
        np.stack([prefill_end, prefill_end, end, end]),
    )
    spread = spread_tokens(
        counts, starts, ends, low, high, requests.gpu_count[owner], requests.gpu_rank[owner]
    )
    return dict(zip(TOKEN_COUNTS, spread, strict=True))
