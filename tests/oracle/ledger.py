"""The ledger a second time, from its specification (docs/cost-model.md), to judge the first by.

Plain Python and rational numbers: no numpy, no running sums, nothing imported from the package. It
is obvious on purpose, and slow: 0.15 s for a cell of 300 requests. What requests share is kept in
integers of 1e-45 nano-USD, since sums of hundreds of fractions would have denominators of thousands
of digits. Input is what the store holds: documents of `token_usage`, `gpu_metrics` and `prices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from tests.oracle.energy import energy_of
from tests.oracle.idle import (
    OracleCard,
    idle_class,
    is_heard,
    is_partitioned,
    memory_mb,
    unexplained_us,
)
from tests.oracle.numbers import HOUR_US, TINY, Doc, round_half_up, split, tiny
from tests.oracle.prices import Book, money_of
from tests.oracle.work import METHODS, OracleParams, Work, gpus_of

MJ_PER_KWH = 3_600_000_000
CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")


@dataclass
class OracleRequest:
    """One request in one cell. `quota` is its cost before rounding; `cost` after."""

    event_id: str
    model: str
    tenant: str
    method: str
    quota: Fraction = Fraction(0)
    prefill_quota: Fraction = Fraction(0)
    cost: int = 0
    energy_mj: Fraction = Fraction(0)
    busy_us: int = 0
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)  # prompt, cached, completion, reasoning
    ends_here: bool = False


@dataclass
class OracleCell:
    """What one cell must say."""

    start_us: int
    owned_us: int
    cost_nusd: int
    classes: dict[str, int]
    class_us: dict[str, int]
    memory_unknown_us: int  # of warm and cold idle, classed without a reading of the memory
    # price x time (and energy) of each class, before any rounding
    exact_classes: dict[str, Fraction]
    energy_mj: Fraction | None
    energy_observed_us: int
    samples: int
    requests: dict[str, OracleRequest]

    def lines(self) -> list[dict[str, Any]]:
        """By model, tenant, method; `cost_nusd` and `prefill` as rationals before rounding."""
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for request in self.requests.values():
            key = (request.model, request.tenant, METHODS.index(request.method))
            line = found.setdefault(
                key,
                {
                    "model": request.model,
                    "tenant": request.tenant,
                    "method": request.method,
                    "members": 0,
                    "requests": 0,
                    "prompt_tokens": 0,
                    "cached_tokens": 0,
                    "completion_tokens": 0,
                    "reasoning_tokens": 0,
                    "cost_nusd": Fraction(0),
                    "prefill_cost_nusd": Fraction(0),
                    "energy_mj": Fraction(0),
                    "busy_us": 0,
                },
            )
            line["members"] += 1
            line["requests"] += request.ends_here
            names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
            for name, count in zip(names, request.tokens, strict=True):
                line[name] += count
            line["cost_nusd"] += request.quota
            line["prefill_cost_nusd"] += request.prefill_quota
            line["energy_mj"] += request.energy_mj
            line["busy_us"] += request.busy_us
        return [found[key] for key in sorted(found)]


def oracle_cells(
    gpu: str,
    cells: Sequence[tuple[int, int]],
    usages: Iterable[Doc],
    samples: Iterable[Doc],
    prices: Iterable[Doc],
    params: OracleParams | None = None,
    *,
    meanings: Mapping[str, str] | None = None,
    priced_as: str | None = None,
    host: str | None = None,
    gpu_name: str | None = None,
    card: OracleCard | None = None,
    known: bool = True,
) -> list[OracleCell]:
    """The cells [start_us, until_us) of one GPU.

    meanings: label -> the GPU it means; any other name stands for itself. priced_as: the card of a
    MIG slice. known: whether it was sampled or declared; else requests are there with their tokens,
    and there is no money, and no time that anybody owns.
    """
    params = params or OracleParams()
    meant = meanings or {}
    by_id = {doc["_id"]: doc for doc in usages}
    on_gpu = [by_id[key] for key in sorted(by_id) if gpu in gpus_of(by_id[key], meant)]
    found = sorted(
        {doc["_id"]: doc for doc in samples}.values(), key=lambda doc: (doc["ts_us"], doc["_id"])
    )
    work = [Work(doc, gpus_of(doc, meant), gpu, params) for doc in on_gpu]
    book = Book(list(prices), priced_as or gpu, host, gpu_name, found)
    whole = [_cell(start, until, work, found, book, params, card) for start, until in cells]
    return whole if known else [_without_money(cell) for cell in whole]


def _cell(
    start: int,
    until: int,
    work: list[Work],
    samples: list[Doc],
    book: Book,
    params: OracleParams,
    card: OracleCard | None,
) -> OracleCell:
    until = max(until, start)
    pieces = book.pieces(start, until)
    here = [item for item in work if item.touches(start, until)]
    segments = [
        (begin, end, tiny(rate), prefill, item)
        for item in here
        for begin, end, rate, prefill in item.segments
    ]
    shares = {item.doc["_id"]: [0, 0, 0] for item in here}  # cost, of it prefill, energy
    cuts = {start, until, *(begin for begin, _, _ in pieces)}
    cuts |= {at for begin, end, *_ in segments for at in (begin, end)}
    cuts |= {at for doc in samples for at in (doc["ts_us"], doc["ts_us"] + params.gap_us)}
    if any(doc["mem_used_mb"] is None for doc in samples):
        told = {
            at for item in work for at in (item.start, item.doc["ts_us"] + params.model_kept_us)
        }
        cuts |= {
            at for at in told if is_heard(samples, at, params) and memory_mb(samples, at) is None
        }
    edges = sorted(at for at in cuts if start <= at <= until)

    requests = {
        item.doc["_id"]: OracleRequest(
            item.doc["_id"], item.doc["model"], item.doc["tenant"], item.method
        )
        for item in here
    }
    exact = dict.fromkeys(CLASSES, Fraction(0))
    time = dict.fromkeys(CLASSES, 0)
    memory_unknown_us = 0
    energy_total, energy_us = Fraction(0), 0
    energy_cost = [Fraction(0)] * len(pieces)
    numerator, denominator = _part(card)
    for low, high in pairwise(edges):
        index = max(i for i, piece in enumerate(pieces) if piece[0] <= low)
        price = pieces[index][2]
        joules = energy_of(samples, low, high, params)
        amount = Fraction(price.nusd_per_hour * (high - low) * numerator, HOUR_US * denominator)
        if joules is not None:
            energy_total, energy_us = energy_total + joules, energy_us + high - low
            energy_cost[index] += joules * price.energy_nusd_per_kwh / MJ_PER_KWH
            amount += joules * price.energy_nusd_per_kwh / MJ_PER_KWH
        active = [
            (rate, prefill, item)
            for begin, end, rate, prefill, item in segments
            if begin <= low and high <= end
        ]
        kind = "attributed" if active else idle_class(work, samples, low, params, card)
        proven = not active and not is_partitioned(card) and is_heard(samples, low, params)
        unknown_us = unexplained_us(work, samples, low, high, params) if proven else 0
        exact["unmetered_work"] += amount * unknown_us / (high - low)
        exact[kind] += amount * (high - low - unknown_us) / (high - low)
        time["unmetered_work"] += unknown_us
        time[kind] += high - low - unknown_us
        if proven and memory_mb(samples, low) is None:
            memory_unknown_us += high - low - unknown_us
        together = sum(rate for rate, _, _ in active)
        for rate, prefill, item in active:
            share = shares[item.doc["_id"]]
            part = tiny(amount) * rate // together
            share[0] += part
            share[1] += part if prefill else 0
            share[2] += tiny(joules or Fraction(0)) * rate // together
            requests[item.doc["_id"]].busy_us += high - low
    for key, (quota, prefill_quota, energy) in shares.items():
        requests[key].quota = Fraction(quota, TINY)
        requests[key].prefill_quota = Fraction(prefill_quota, TINY)
        requests[key].energy_mj = Fraction(energy, TINY)

    whole = sum(money_of(price.nusd_per_hour, begin, end) for begin, end, price in pieces)
    cost = _own_money(whole, card) + sum(round_half_up(amount) for amount in energy_cost)
    classes = dict(zip(CLASSES, split(cost, [exact[name] for name in CLASSES]), strict=True))
    _settle(requests, classes["attributed"], exact["attributed"])
    for item in here:
        requests[item.doc["_id"]].tokens = item.tokens(start, until)
        requests[item.doc["_id"]].ends_here = (
            item.rank == 0 and item.touches(start, until) and item.end <= until
        )
    return OracleCell(
        start_us=start,
        owned_us=until - start,
        cost_nusd=cost,
        classes=classes,
        class_us=time,
        memory_unknown_us=memory_unknown_us,
        exact_classes=exact,
        energy_mj=energy_total if energy_us else None,
        energy_observed_us=energy_us,
        samples=sum(start <= doc["ts_us"] < until for doc in samples),
        requests=requests,
    )


def _without_money(cell: OracleCell) -> OracleCell:
    nothing = dict.fromkeys(CLASSES, 0)
    for request in cell.requests.values():
        request.method, request.cost, request.energy_mj = "unknown_gpu", 0, Fraction(0)
        request.quota = request.prefill_quota = Fraction(0)
    return OracleCell(
        start_us=cell.start_us,
        owned_us=0,
        cost_nusd=0,
        classes=nothing,
        class_us=nothing,
        exact_classes=dict.fromkeys(CLASSES, Fraction(0)),
        energy_mj=None,
        energy_observed_us=0,
        memory_unknown_us=0,
        samples=cell.samples,
        requests=cell.requests,
    )


def _settle(requests: dict[str, OracleRequest], attributed: int, exact: Fraction) -> None:
    """Scale the quotas to the attributed nano-dollars, and make integers of them, ties by event
    id."""
    ratio = attributed / exact if exact else Fraction(0)
    for request in requests.values():
        request.quota *= ratio
        request.prefill_quota *= ratio
    ordered = sorted(requests)
    for key, cost in zip(
        ordered, split(attributed, [requests[key].quota for key in ordered]), strict=True
    ):
        requests[key].cost = cost


def _part(card: OracleCard | None) -> tuple[int, int]:
    if card is None:
        return 1, 1
    if card.slice_parts is not None:
        return card.slice_parts, card.denominator
    return max(1, card.denominator - sum(card.child_parts)), card.denominator


def _own_money(whole: int, card: OracleCard | None) -> int:
    if card is None:
        return whole
    if card.slice_parts is not None:
        return whole * card.slice_parts // card.denominator
    return whole - sum(whole * parts // card.denominator for parts in card.child_parts)
