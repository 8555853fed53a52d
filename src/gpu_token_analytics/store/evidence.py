"""The evidence of a GPU next to a minute: samples, and requests that named it by its UUID or by a label that meant it.

Looked for among the events, not among the cells, which may be in somebody's hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from gpu_token_analytics.documents import GpuId, minute_of
from gpu_token_analytics.store.books import Books
from gpu_token_analytics.store.ledger import LedgerStore


def evidence_before(store: LedgerStore, books: Books, gpu: GpuId, minute_us: int) -> int | None:
    """The last minute before this one with evidence."""
    sample = store.raw.last_samples({(gpu, minute_us)}).get((gpu, minute_us))
    active = last_activity(store, books, gpu, minute_us)
    times = ([sample["ts_us"]] if sample else []) + ([active] if active is not None else [])
    return minute_of(max(times)) if times else None


def evidence_from(store: LedgerStore, books: Books, gpu: GpuId, minute_us: int) -> int | None:
    """The first minute from this one on with evidence."""
    sample = store.raw.first_samples({(gpu, minute_us)}).get((gpu, minute_us))
    active = next_activity(store, books, gpu, minute_us)
    times = ([sample["ts_us"]] if sample else []) + ([active] if active is not None else [])
    return minute_of(min(times)) if times else None


def last_activity(store: LedgerStore, books: Books, gpu: GpuId, before_us: int) -> int | None:
    """The newest instant, before a time, of a request that ended on this GPU, named by UUID or by a label that meant it."""
    found: list[int] = []
    for name in (gpu, *books.placements.labels(gpu)):
        # Only the times that are its own: another GPU may have had the label for millions of requests since.
        own = [(start, min(end, before_us + 1)) for start, end in books.placements.times(name, gpu) if start <= before_us]
        ended = (_last_instant(doc) for start, end in reversed(own) for doc in store.raw.usage_newest(name, start, end))
        found.extend(islice((at for at in ended if at < before_us), 1))
    return max(found, default=None)


def next_activity(store: LedgerStore, books: Books, gpu: GpuId, from_us: int) -> int | None:
    """An instant, at or after a time, in which a request is active on this GPU; none of those it leaves out ended earlier."""
    found: list[int] = []
    for name in (gpu, *books.placements.labels(gpu)):
        own = [(max(start, from_us), end) for start, end in books.placements.times(name, gpu) if end > from_us]
        ended = (doc for start, end in own for doc in store.raw.usage_oldest(name, start, end))
        found.extend(islice((max(doc["start_us"], from_us) for doc in ended if _last_instant(doc) >= from_us), 1))
    return min(found, default=None)


def _last_instant(usage: Mapping[str, Any]) -> int:
    """A request is active up to its end, its end excluded; without a known duration it is its end."""
    end_us: int = usage["ts_us"]
    start_us: int = usage["start_us"]
    return end_us - (start_us < end_us)
