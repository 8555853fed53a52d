"""The document of one request, written plainly: what the encoder of whole batches has to make of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from xxhash import xxh3_64_digest

from gpu_token_analytics.events import TokenUsage, to_us

LONG_US = 5 * 60 * 1_000_000


def usage_document(event: TokenUsage, value: bytes, stored_at: datetime, source: str) -> dict[str, Any]:
    """As MongoDB gives it back (dates in whole milliseconds, UTC without a zone), but for the live rate."""
    ts_us = to_us(event.ts)
    latency_ms, queue_ms, ttft_ms = event.latency_ms, event.queue_ms, event.ttft_ms
    active_us = 0 if latency_ms is None else max(0, round((latency_ms - (queue_ms or 0.0)) * 1000))
    document: dict[str, Any] = {
        "_id": event.event_id,
        "ts": _bson_date(event.ts),
        "ts_us": ts_us,
        "start_us": ts_us - active_us,
        "host": event.host,
        "gpus": event.gpus,
        "model": event.model,
        "tenant": event.tenant,
        "request_id": event.request_id,
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "cached_tokens": event.cached_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "latency_ms": latency_ms,
        "queue_ms": queue_ms,
        "ttft_ms": ttft_ms,
        "finish_reason": event.finish_reason,
        "h": xxh3_64_digest(value),
        "src": source,
        "ingested_at": _bson_date(stored_at),
        "tokens": event.prompt_tokens + event.completion_tokens,
    }
    if event.gpu_index is not None:
        document["gpu_index"] = event.gpu_index
    if ttft_ms is not None and latency_ms is not None:
        document["first_us"] = ts_us - round((latency_ms - ttft_ms) * 1000)
    if active_us > LONG_US:
        document["long"] = True
    return document


def _bson_date(at: datetime) -> datetime:
    plain = at.astimezone(UTC).replace(tzinfo=None)
    return plain.replace(microsecond=plain.microsecond // 1000 * 1000)
