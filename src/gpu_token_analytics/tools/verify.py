"""`verify`: marked events go in at one end, and are waited for at every place on the way.

    1 Kafka takes them   2 the raw documents are there, each once   3 they are in the ledger, tokens
      exact, classes = C
    4 they are taken out again: the raw documents and the GPU, and the cells are marked, so that the
      closer computes them from what is left, which is nothing; hours and days follow as after any
      change

The marked GPU is new each time, so runs do not disturb each other. It costs 0.006 $/h for the one
or two minutes its events touch (source `replay`: it is not owned any longer than that), and nothing
after step 4. What a run that was killed, or a replay of the topic from its beginning, left behind,
the next run takes out.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.documents import Collection, MoneyClass
from gpu_token_analytics.errors import StoreError, VerifyFailed
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.wire.events import touching_kinds
from gpu_token_analytics.wire.identity import new_event_id
from gpu_token_analytics.wire.kind import E, Event, Kind
from gpu_token_analytics.wire.sample import SAMPLE, GpuSample
from gpu_token_analytics.wire.sinks import EventSink
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

PRICE_PER_HOUR_USD = 0.006
REQUESTS = 3
GPU_PREFIX = "GPU-verify-"
FORGOTTEN_AFTER = timedelta(hours=1)
_FLUSH_SECONDS = 30.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Check:
    """One thing that was waited for, and how long it took."""

    name: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class Marked:
    """The events of one run, recognisable by their GPU."""

    gpu: str
    usages: Sequence[TokenUsage]
    samples: Sequence[GpuSample]


def marked_events(clock: Clock) -> Marked:
    """Three requests and two samples of a GPU that nobody else has, ending now."""
    now = clock.now()
    gpu = f"{GPU_PREFIX}{secrets.token_hex(6)}"
    samples = [
        GpuSample(
            event_id=new_event_id(),
            ts=now - timedelta(seconds=before),
            host="gpu-tokens-verify",
            gpu_index=0,
            gpu_uuid=gpu,
            name="verify",
            utilization=0.5,
            mem_used_mb=2048.0,
            mem_total_mb=8192.0,
            power_w=100.0,
            price_per_hour_usd=PRICE_PER_HOUR_USD,
            source="replay",
        )
        for before in (4, 0)
    ]
    usages = [
        TokenUsage(
            event_id=new_event_id(),
            ts=now - timedelta(seconds=0.5 * index),
            host="gpu-tokens-verify",
            gpu_uuids=[gpu],
            model="verify",
            tenant="verify",
            request_id=f"{gpu}-{index}",
            prompt_tokens=100 + index,
            completion_tokens=10 + index,
            latency_ms=1500.0,
            ttft_ms=200.0,
        )
        for index in range(REQUESTS)
    ]
    return Marked(gpu, usages, samples)


def verify(
    sink: EventSink,
    store: Store,
    clock: Clock,
    stop: threading.Event,
    timeout_seconds: float,
    debounce_seconds: float,
) -> Iterator[Check]:
    """Yield each step as it is done. debounce_seconds: CLOSE_DEBOUNCE_SECONDS of the processors.

    Raises VerifyFailed naming the step that was not, DeliveryFailed, StoreError.
    """
    begun = clock.monotonic()
    marked = marked_events(clock)
    events: list[Event] = [*marked.samples, *marked.usages]
    for event in events:
        sink.send(event)
    sink.flush(min(timeout_seconds, _FLUSH_SECONDS))
    yield Check(
        "kafka", f"{len(events)} events of {marked.gpu} acknowledged", clock.monotonic() - begun
    )

    def wait(name: str, look: Callable[[], str | None], why_not: str) -> Check:
        why = ""
        while clock.monotonic() - begun < timeout_seconds:
            try:
                seen = look()
            except StoreError as error:
                seen, why = None, f"; {error}"
            else:
                why = ""
            if seen is not None:
                return Check(name, seen, clock.monotonic() - begun)
            if clock.wait(stop, _POLL_SECONDS):
                raise VerifyFailed(f"{name}: interrupted")
        raise VerifyFailed(f"{name}: not within {timeout_seconds:g} s; {why_not}{why}")

    why_not_closed = "the closer has not computed the cells; see cells due in /metrics"
    try:
        yield wait(
            "token_usage",
            lambda: _stored(store, USAGE, marked.usages),
            "is a processor running? see its /ready",
        )
        yield wait(
            "gpu_metrics",
            lambda: _stored(store, SAMPLE, marked.samples),
            "see the processor's /metrics",
        )
        yield wait("ledger", lambda: _in_ledger(store, marked), why_not_closed)
    finally:
        with store_errors("take the check's events out"):
            gpus = _take_out(store, marked, debounce_seconds)
    yield wait("taken out", lambda: _out_of_reports(store, gpus), why_not_closed)


def _stored(store: Store, kind: Kind[E], events: Sequence[E]) -> str | None:
    ids = [kind.raw_id(event) for event in events]
    count = store[kind.collection].count_documents({"_id": {"$in": ids}})
    return f"{count} documents, each once" if count == len(ids) else None


def _in_ledger(store: Store, marked: Marked) -> str | None:
    cells = [
        cell
        for cell in store[Collection.LEDGER_CELLS].find({"gpu": marked.gpu})
        if "cost_nusd" in cell
    ]
    lines = [line for cell in cells for line in cell.get("lines", ())]
    sums = {
        name: sum(line[name] for line in lines)
        for name in ("requests", "prompt_tokens", "completion_tokens")
    }
    wanted = {
        "requests": len(marked.usages),
        "prompt_tokens": sum(usage.prompt_tokens for usage in marked.usages),
        "completion_tokens": sum(usage.completion_tokens for usage in marked.usages),
    }
    # null: not computed since the samples came
    if sums != wanted or any(line["cost_nusd"] is None for line in lines):
        return None
    for cell in cells:
        _check_identity(cell)
    cost = sum(cell["cost_nusd"] for cell in cells)
    attributed = sum(cell["classes"][MoneyClass.ATTRIBUTED] for cell in cells)
    return (
        f"{len(cells)} cells, {wanted['prompt_tokens']} + {wanted['completion_tokens']} tokens "
        "exact, "
        f"{cost:,} nano-USD = {attributed:,} attributed + {cost - attributed:,} not"
    )


def _take_out(store: Store, marked: Marked, debounce_seconds: float) -> Sequence[str]:
    """Remove the raw events and the GPU of this check, and of earlier ones that did not come to
    their end. Returns the GPUs."""
    forgotten = {
        "_id": {"$regex": f"^{GPU_PREFIX}"},
        # a younger one may be another check that runs now
        "last_us": {"$lt": to_us(store.now() - FORGOTTEN_AFTER)},
    }
    gpus: list[str] = [marked.gpu, *store[Collection.INVENTORY].distinct("_id", forgotten)]
    for kind, touches in touching_kinds():
        store[kind.collection].delete_many({touches.gpus: {"$in": gpus}})
    names = [*gpus, *(f"name|{gpu}" for gpu in gpus)]
    store[Collection.INVENTORY].delete_many(
        {"$or": [{"_id": {"$in": names}}, {"gpu": {"$in": gpus}}]}
    )
    # After the events, as ever: whoever computes a cell from now on computes it without them.
    cells = store[Collection.LEDGER_CELLS].find({"gpu": {"$in": gpus}}, {"gpu": 1, "minute": 1})
    CellMarker(store, debounce_seconds).mark(
        [(cell["gpu"], to_us(cell["minute"])) for cell in cells]
    )
    return gpus


def _out_of_reports(store: Store, gpus: Sequence[str]) -> str | None:
    cells = list(store[Collection.LEDGER_CELLS].find({"gpu": {"$in": gpus}}))
    due = any(cell["done_gen"] < cell["gen"] or not cell["rolled"] for cell in cells)
    if due or any(cell.get("cost_nusd") or cell.get("lines") for cell in cells):
        return None
    return f"{len(cells)} cells are empty again"


def _check_identity(cell: Mapping[str, Any]) -> None:
    if sum(cell["classes"].values()) != cell["cost_nusd"]:
        raise VerifyFailed(
            f"ledger: the classes of cell {cell['_id']} do not sum to its cost: {cell['classes']}"
        )
