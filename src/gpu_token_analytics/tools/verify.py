"""`verify`: marked events go in at one end, and are waited for at every place on the way.

    1 Kafka takes them   2 the raw documents are there, each once   3 they are in the ledger, tokens exact, classes = C

The marked GPU is new each time, so runs do not disturb each other. It costs 0.006 $/h for the one or two minutes its
events touch (source `replay`: it is not owned any longer than that): the price of a check is 0.0002 USD in the ledger.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.documents import Collection, MoneyClass
from gpu_token_analytics.errors import StoreError, VerifyFailed
from gpu_token_analytics.events import Event, GpuSample, TokenUsage, new_event_id
from gpu_token_analytics.names import canonical_host
from gpu_token_analytics.sinks import EventSink
from gpu_token_analytics.store.client import Store
from gpu_token_analytics.store.identity import raw_id

PRICE_PER_HOUR_USD = 0.006
REQUESTS = 3
_FLUSH_SECONDS = 30.0
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Step:
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
    gpu = f"GPU-verify-{secrets.token_hex(6)}"
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


def verify(sink: EventSink, store: Store, clock: Clock, stop: threading.Event, timeout_seconds: float) -> Iterator[Step]:
    """Yield each step as it is done. Raises VerifyFailed naming the step that was not, DeliveryFailed, StoreError."""
    begun = clock.monotonic()
    marked = marked_events(clock)
    events: list[Event] = [*marked.samples, *marked.usages]
    for event in events:
        sink.send(event)
    sink.flush(min(timeout_seconds, _FLUSH_SECONDS))
    yield Step("kafka", f"{len(events)} events of {marked.gpu} acknowledged", clock.monotonic() - begun)

    def wait(name: str, look: Callable[[], str | None], why_not: str) -> Step:
        why = ""
        while clock.monotonic() - begun < timeout_seconds:
            try:
                found = look()
            except StoreError as error:
                found, why = None, f"; {error}"
            else:
                why = ""
            if found is not None:
                return Step(name, found, clock.monotonic() - begun)
            if clock.wait(stop, _POLL_SECONDS):
                raise VerifyFailed(f"{name}: interrupted")
        raise VerifyFailed(f"{name}: not within {timeout_seconds:g} s; {why_not}{why}")

    yield wait(
        "token_usage", lambda: _stored(store, Collection.TOKEN_USAGE, marked.usages), "is a processor running? see its /ready"
    )
    yield wait("gpu_metrics", lambda: _stored(store, Collection.GPU_METRICS, marked.samples), "see the processor's /metrics")
    yield wait("ledger", lambda: _in_ledger(store, marked), "the closer has not computed the cells; see cells due in /metrics")


def _stored(store: Store, name: Collection, events: Sequence[TokenUsage] | Sequence[GpuSample]) -> str | None:
    ids = [
        raw_id(event.tenant if isinstance(event, TokenUsage) else canonical_host(event.host), event.event_id)
        for event in events
    ]
    count = store[name].count_documents({"_id": {"$in": ids}})
    return f"{count} documents, each once" if count == len(ids) else None


def _in_ledger(store: Store, marked: Marked) -> str | None:
    cells = [cell for cell in store[Collection.LEDGER_CELLS].find({"gpu": marked.gpu}) if "cost_nusd" in cell]
    lines = [line for cell in cells for line in cell.get("lines", ())]
    sums = {name: sum(line[name] for line in lines) for name in ("requests", "prompt_tokens", "completion_tokens")}
    wanted = {
        "requests": len(marked.usages),
        "prompt_tokens": sum(usage.prompt_tokens for usage in marked.usages),
        "completion_tokens": sum(usage.completion_tokens for usage in marked.usages),
    }
    if sums != wanted:
        return None
    for cell in cells:
        _check_identity(cell)
    cost = sum(cell["cost_nusd"] for cell in cells)
    attributed = sum(cell["classes"][MoneyClass.ATTRIBUTED] for cell in cells)
    return (
        f"{len(cells)} cells, {wanted['prompt_tokens']} + {wanted['completion_tokens']} tokens exact, "
        f"{cost:,} nano-USD = {attributed:,} attributed + {cost - attributed:,} idle"
    )


def _check_identity(cell: Mapping[str, Any]) -> None:
    if sum(cell["classes"].values()) != cell["cost_nusd"]:
        raise VerifyFailed(f"ledger: the classes of cell {cell['_id']} do not sum to its cost: {cell['classes']}")
