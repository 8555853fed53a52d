"""One request's part of the ledger, cell by cell: the ledger's own function over the raw events,
looked at from a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_token_analytics.closing.load import load_timelines
from gpu_token_analytics.closing.runs import runs_of
from gpu_token_analytics.documents import GpuId, Method, NanoUsd, cell_id, touched_minutes
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.computed import ComputedCell
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.requests import first_token_us
from gpu_token_analytics.raw.read import RawReads


@dataclass(frozen=True)
class RequestPart:
    """What one cell holds of a request. Money in nano-USD, energy in millijoules (null: not
    measured)."""

    cell: str
    gpu: GpuId
    minute_us: int
    cost_nusd: NanoUsd | None  # null, and so are the prices: nobody sampled or declared the GPU
    prefill_cost_nusd: NanoUsd | None
    energy_mj: int | None
    method: str
    price_row: str | None
    nusd_per_hour: NanoUsd | None
    prompt_tokens: int
    completion_tokens: int


def request_parts(
    raw: RawReads, books: Books, params: LedgerParams, usage: Mapping[str, Any], now_us: int
) -> list[RequestPart]:
    """The parts of one stored usage document, by GPU then minute; cells that hold nothing of it are
    left out."""
    minutes = list(touched_minutes(usage["start_us"], usage["ts_us"]))
    names = {books.shared.card(name, usage["host"]) for name in usage["gpus"]}
    gpus = sorted({books.placements.resolve(name, usage["ts_us"]) for name in names})
    return [
        part for gpu in gpus for part in _of_gpu(raw, books, params, gpu, minutes, usage, now_us)
    ]


def _of_gpu(
    raw: RawReads,
    books: Books,
    params: LedgerParams,
    gpu: GpuId,
    minutes: Iterable[int],
    usage: Mapping[str, Any],
    now_us: int,
) -> Iterable[RequestPart]:
    for run in runs_of(minutes):
        for timelines in load_timelines(raw, books, params, {gpu: run}, now_us):
            for computed in compute_runs(timelines, params, with_shares=True):
                for cell in computed.cells:
                    yield from _of_cell(cell, usage)


def _of_cell(computed: ComputedCell, usage: Mapping[str, Any]) -> Iterable[RequestPart]:
    price = computed.prices[0] if computed.known else None
    for share in computed.content.shares:
        if computed.request_ids[share.request] == usage["_id"]:
            yield RequestPart(
                cell=cell_id(computed.gpu, computed.content.start_us),
                gpu=computed.gpu,
                minute_us=computed.content.start_us,
                cost_nusd=share.cost_nusd if computed.known else None,
                prefill_cost_nusd=share.prefill_cost_nusd if computed.known else None,
                energy_mj=share.energy_mj,
                method=_method(usage) if computed.known else str(Method.UNKNOWN_GPU),
                price_row=None if price is None else price.row,
                nusd_per_hour=None if price is None else price.nusd_per_hour,
                prompt_tokens=share.prompt_tokens,
                completion_tokens=share.completion_tokens,
            )


def _method(usage: Mapping[str, Any]) -> str:
    """As ledger/requests.py finds it."""
    if usage.get("latency_ms") is None:
        return str(Method.WINDOW)
    first = first_token_us(usage)
    return str(Method.SWEEP if usage["start_us"] < first < usage["ts_us"] else Method.SWEEP_NO_TTFT)
