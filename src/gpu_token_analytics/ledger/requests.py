"""Requests as arrays: what the sweep needs of each usage event, and how its tokens spread over
time.

A request works in one or two segments on each of its GPUs:

    start            first token              end
      |--- prefill: W_in ---|--- decode: W_out ---|
    W_in = input*(prompt - cached) + cached*cached      W_out = output*completion

start = end - latency + queue: waiting in a queue uses no GPU. Without a usable first token there is
one segment of W_in + W_out. Without a latency the request is spread over its own minute (method
`window`). Work on n GPUs is W/n on each; n counts GPUs, not names: two labels that one GPU carried
are one GPU.

A latency that is known and leaves no microsecond of active time (0, or all of it in the queue) is
not a missing one: the request is a point in time at its end. It costs nothing and uses no energy,
and its tokens count in the cell of that point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.documents import GpuId, Method
from gpu_token_analytics.ledger.labels import LabelColumn, Labels
from gpu_token_analytics.ledger.money import Float64, Int64, NDArrayBool
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.shared import SharedUuids

Objects: TypeAlias = NDArray[np.object_]

METHODS: tuple[Method, ...] = tuple(Method)
_SWEEP, _NO_TTFT, _WINDOW = (
    METHODS.index(m) for m in (Method.SWEEP, Method.SWEEP_NO_TTFT, Method.WINDOW)
)

PREFILL, DECODE = 0, 1
UNKNOWN_US = -1  # in place of a first token's time


@dataclass(frozen=True)
class UsageRows:
    """Usage events as columns, as they are stored (raw/usage_columns.py says what each is), in any
    order. All of length n."""

    ids: Objects  # bytes: what each is stored under
    labels: LabelColumn
    start_us: Int64
    ts_us: Int64
    first_us: Int64  # UNKNOWN_US: not known
    has_latency: NDArrayBool  # False: `start_us` is `ts_us` because nothing else is known
    prompt: Int64
    cached: Int64
    completion: Int64
    reasoning: Int64

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(documents: Sequence[Mapping[str, Any]]) -> UsageRows:
        """From documents of `token_usage`."""
        return UsageRows(
            ids=objects(doc["_id"] for doc in documents),
            labels=LabelColumn.of(
                Labels(doc["host"], tuple(doc["gpus"]), doc["model"], doc["tenant"])
                for doc in documents
            ),
            start_us=_ints(documents, "start_us"),
            ts_us=_ints(documents, "ts_us"),
            first_us=np.array([first_token_us(doc) for doc in documents], dtype=np.int64),
            has_latency=np.array(
                [doc.get("latency_ms") is not None for doc in documents], dtype=bool
            ),
            prompt=_ints(documents, "prompt_tokens"),
            cached=_ints(documents, "cached_tokens"),
            completion=_ints(documents, "completion_tokens"),
            reasoning=_ints(documents, "reasoning_tokens"),
        )

    @staticmethod
    def joined(parts: Sequence[UsageRows]) -> UsageRows:
        """The rows of all parts, in their order."""
        if not parts:
            return UsageRows.of(())
        if len(parts) == 1:
            return parts[0]
        return UsageRows(
            labels=LabelColumn.joined([part.labels for part in parts]),
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in _ROW_ARRAYS
            },
        )

    def of_cards(self, shared: SharedUuids) -> UsageRows:
        """The same with the names of the cards that are meant by UUIDs that several have."""
        return replace(self, labels=self.labels.of_cards(shared)) if shared else self

    def take(self, where: Int64) -> UsageRows:
        """The rows at these places. Shape of where: (m,)."""
        return UsageRows(
            labels=self.labels.take(where),
            **{name: getattr(self, name)[where] for name in _ROW_ARRAYS},
        )


_ROW_ARRAYS = tuple(field.name for field in fields(UsageRows) if field.name != "labels")


def first_token_us(document: Mapping[str, Any]) -> int:
    """When a request's first token came, of a document of `token_usage`; UNKNOWN_US: not known."""
    stored = document.get("first_us")  # which earlier versions wrote
    if stored is not None:
        return int(stored)
    latency_ms, ttft_ms = document.get("latency_ms"), document.get("ttft_ms")
    if latency_ms is None or ttft_ms is None:
        return UNKNOWN_US
    to_end_us: int = round((latency_ms - ttft_ms) * 1000)
    return int(document["ts_us"]) - to_end_us


def objects(values: Iterable[Any]) -> Objects:
    """Any values as an array of themselves, tuples and lists, too. Shape (n,)."""
    return np.fromiter(values, dtype=object)


def active_span(
    usage: UsageRows, cell_us: int, where: Int64 | slice = slice(None)
) -> tuple[Int64, Int64]:
    """[start, end) in which each is active on its GPUs: for `window` all of its minute. where: the
    places of those that are asked for. Shapes (n,)."""
    start_us, ts_us = usage.start_us[where], usage.ts_us[where]
    has_latency = usage.has_latency[where]
    if has_latency.all():
        return start_us, ts_us
    begin = ts_us - ts_us % cell_us
    return np.where(has_latency, start_us, begin), np.where(has_latency, ts_us, begin + cell_us)


def active_in(usage: UsageRows, from_us: int, to_us: int, cell_us: int) -> NDArrayBool:
    """Whether each is active, or a point in time, in [from, to). Shape (n,)."""
    return _overlap(*active_span(usage, cell_us), from_us, to_us)


def _overlap(start_us: Int64, end_us: Int64, from_us: int, to_us: int) -> NDArrayBool:
    active: NDArrayBool = (start_us < to_us) & (np.maximum(end_us, start_us + 1) > from_us)
    return active


def active_on(
    usage: UsageRows, names: Iterable[str], from_us: int, to_us: int, cell_us: int
) -> Int64:
    """The places of those that name one of these GPUs and are active in [from, to), ascending.
    Shape (m,)."""
    named = np.flatnonzero(usage.labels.named(names))
    start_us, end_us = active_span(usage, cell_us, named)
    return named[_overlap(start_us, end_us, from_us, to_us)]


@dataclass(frozen=True)
class Requests:
    """Usage events that name one GPU, ordered by event id. All of length n."""

    ids: Sequence[bytes]
    labels: LabelColumn  # those that occur and no others
    start_us: Int64
    # >= start_us, equal for a request that was never active; for `window` the end of its minute
    end_us: Int64
    ts_us: Int64
    first_us: Int64  # first token; UNKNOWN_US: not known
    method: Int64  # index into METHODS
    gpu_count: Int64
    gpu_rank: Int64  # position of this GPU among the request's GPUs, in the order of their names
    prompt: Int64
    cached: Int64
    completion: Int64
    reasoning: Int64

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(usage: UsageRows, gpu: GpuId, placements: Placements, cell_us: int) -> Requests:
        """usage: requests on this GPU, all of them, under whatever name."""
        ids = usage.ids.tolist()
        # mostly in order already; numpy takes three times as long
        order = sorted(range(len(ids)), key=ids.__getitem__)
        rows = usage.take(np.array(order, dtype=np.int64))
        labels = rows.labels.compact()
        start, ts, first = rows.start_us, rows.ts_us, rows.first_us
        gpu_count, gpu_rank = _shared(labels, ts, gpu, placements)
        window = ~rows.has_latency
        active_from, active_until = active_span(rows, cell_us)
        usable = (first > start) & (first < ts) & ~window
        return Requests(
            ids=rows.ids.tolist(),
            labels=labels,
            start_us=active_from,
            end_us=active_until,
            ts_us=ts,
            first_us=np.where(usable, first, UNKNOWN_US),
            method=np.where(window, _WINDOW, np.where(usable, _SWEEP, _NO_TTFT)),
            gpu_count=gpu_count,
            gpu_rank=gpu_rank,
            prompt=rows.prompt,
            cached=rows.cached,
            completion=rows.completion,
            reasoning=rows.reasoning,
        )

    @staticmethod
    def joined(parts: Sequence[Requests], moves_us: Sequence[int]) -> Requests:
        """Those of all parts, one after another, the times of each moved. Ids come in order within
        each part only."""
        if len(parts) == 1 and not moves_us[0]:
            return parts[0]
        move = np.repeat(np.array(moves_us, dtype=np.int64), [len(part) for part in parts])
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _REQUEST_ARRAYS
        }
        arrays |= {name: arrays[name] + move for name in ("start_us", "end_us", "ts_us")}
        arrays["first_us"] = np.where(
            arrays["first_us"] == UNKNOWN_US, UNKNOWN_US, arrays["first_us"] + move
        )
        return Requests(
            ids=[name for part in parts for name in part.ids],
            labels=LabelColumn.joined([part.labels for part in parts]),
            **arrays,
        )

    @property
    def seen_until_us(self) -> Int64:
        """The end of the time in which each is seen on its GPU: `end_us`, and for a point in time
        the microsecond after it."""
        return np.maximum(self.end_us, self.start_us + 1)

    def work(self, params: LedgerParams) -> tuple[Float64, Float64]:
        """(W_in, W_out) on this GPU. Shapes (n,)."""
        a_in = self.labels.each(lambda of_one: params.weights(of_one.model).input, np.float64)
        a_cached = self.labels.each(lambda of_one: params.weights(of_one.model).cached, np.float64)
        a_out = self.labels.each(lambda of_one: params.weights(of_one.model).output, np.float64)
        w_in = a_in * (self.prompt - self.cached) + a_cached * self.cached
        w_out = a_out * self.completion
        nothing = w_in + w_out <= 0
        # A request with no work by the weights still held the GPU: it must not vanish, nor divide
        # by zero.
        w_out = np.where(nothing, 1.0, w_out)
        return w_in / self.gpu_count, w_out / self.gpu_count

    def segments(self, params: LedgerParams) -> Segments:
        """One or two segments per request, ordered by (event id, phase)."""
        w_in, w_out = self.work(params)
        # A phase without work would be time that belongs to nobody: the request then is one
        # segment.
        two = (self.method == _SWEEP) & (w_in > 0) & (w_out > 0)
        index = np.repeat(np.arange(len(self)), np.where(two, 2, 1))
        is_second = np.zeros(len(index), dtype=bool)
        is_second[1:] = index[1:] == index[:-1]
        split = two[index]
        start = np.where(is_second, self.first_us[index], self.start_us[index])
        end = np.where(split & ~is_second, self.first_us[index], self.end_us[index])
        work = np.where(
            split, np.where(is_second, w_out[index], w_in[index]), (w_in + w_out)[index]
        )
        phase = np.where(split & ~is_second, PREFILL, DECODE)
        active_us = end - start
        rate = np.divide(work, active_us, out=np.zeros(len(work)), where=active_us > 0)
        return Segments(index, phase.astype(np.int64), start, end, rate)


_REQUEST_ARRAYS = tuple(
    field.name for field in fields(Requests) if field.name not in ("ids", "labels")
)


@dataclass(frozen=True)
class Segments:
    """Spans of constant work rate. All shapes (segments,), ordered by (event id, phase)."""

    request: Int64
    phase: Int64  # PREFILL only where a first token splits the request; else DECODE
    start_us: Int64
    end_us: Int64  # >= start_us
    # work per microsecond on this GPU; 0 for a point in time, which has no share in anything
    rate: Float64


def spread_tokens(
    count: Int64,
    start_us: Int64,
    end_us: Int64,
    from_us: Int64,
    to_us: Int64,
    gpu_count: Int64,
    gpu_rank: Int64,
) -> Int64:
    """Tokens of [from, to) out of `count` spread evenly over [start, end) and over gpu_count GPUs.
    Shapes (n,).

    Telescoping in time and round-robin over the GPUs: the parts of one request sum to `count`
    exactly, however its time is cut. count <= 1e8 and spans <= 6 h keep the product below 2^63.
    """
    span = np.maximum(end_us - start_us, 1)

    def upto(at_us: Int64) -> Int64:
        done = np.clip(at_us - start_us, 0, span)
        tokens = (2 * count * done + span) // (2 * span)
        spread: Int64 = (tokens + gpu_count - 1 - gpu_rank) // gpu_count
        return spread

    return upto(to_us) - upto(from_us)


def _ints(documents: Sequence[Mapping[str, Any]], field: str) -> Int64:
    return np.array([doc[field] for doc in documents], dtype=np.int64)


def _shared(
    labels: LabelColumn, ts_us: Int64, gpu: GpuId, placements: Placements
) -> tuple[Int64, Int64]:
    """(number of GPUs of each request, place of this one among them). Shapes (n,)."""
    by_label = [
        len(of_one.gpus) > 1 and any(map(placements.is_label, of_one.gpus))
        for of_one in labels.table
    ]
    count = labels.each(lambda of_one: len(of_one.gpus), np.int64)
    rank = labels.each(lambda of_one: of_one.gpus.index(gpu) if gpu in of_one.gpus else 0, np.int64)
    for row in np.flatnonzero(np.array(by_label, dtype=np.bool_)[labels.codes]).tolist():
        gpus = placements.resolve_all(labels.at(row).gpus, int(ts_us[row]))
        count[row], rank[row] = len(gpus), gpus.index(gpu)
    return count, rank
