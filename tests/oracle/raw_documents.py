"""The documents of one request and of one sample, written plainly: what the encoders of whole
batches have to make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

import bson
from bson import Binary
from xxhash import xxh3_64_digest

from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.wire.names import canonical_host
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

LONG_US = 5 * 60 * 1_000_000


def identity(owner: str, event_id: str) -> bytes:
    """What an event of a tenant (a sample of a host) is stored under."""
    whole = blake2b(owner.encode(), digest_size=32).digest() + event_id.encode()
    try:
        uuid = UUID(event_id)
    except ValueError:
        uuid = None
    if uuid is not None and str(uuid) == event_id and uuid.hex[12] == "7":
        return uuid.bytes[:6] + blake2b(whole, digest_size=10).digest()
    return blake2b(whole, digest_size=16).digest()


def _shown(event_id: str) -> str | Binary:
    try:
        uuid = UUID(event_id)
    except ValueError:
        return event_id
    return Binary(uuid.bytes, 4) if str(uuid) == event_id else event_id


def usage_document(
    event: TokenUsage, value: bytes, stored_at: datetime, source: str
) -> dict[str, Any]:
    """As MongoDB gives it back (dates in whole milliseconds, UTC without a zone), but for the live
    rate."""
    ts_us = to_us(event.ts)
    latency_ms, queue_ms, ttft_ms = event.latency_ms, event.queue_ms, event.ttft_ms
    active_us = 0 if latency_ms is None else max(0, round((latency_ms - (queue_ms or 0.0)) * 1000))
    document: dict[str, Any] = {
        "_id": identity(event.tenant, event.event_id),
        "event_id": _shown(event.event_id),
        "ts": _bson_date(event.ts),
        "ts_us": ts_us,
        "start_us": ts_us - active_us,
        "host": canonical_host(event.host),
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
        "period": (stored_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=5),
    }
    if event.gpu_index is not None:
        document["gpu_index"] = event.gpu_index
    if active_us > LONG_US:
        document["long"] = True
    return document


def sample_document(
    event: GpuSample, value: bytes, stored_at: datetime, source: str
) -> dict[str, Any]:
    """As MongoDB gives it back."""
    document: dict[str, Any] = {
        "_id": identity(canonical_host(event.host), event.event_id),
        "event_id": _shown(event.event_id),
        "ts": _bson_date(event.ts),
        "ts_us": to_us(event.ts),
        "host": canonical_host(event.host),
        "gpu": event.gpu,
        "gpu_uuid": event.gpu_uuid,
        "gpu_index": event.gpu_index,
        "name": event.name,
        "utilization": event.utilization,
        "mem_used_mb": event.mem_used_mb,
        "mem_total_mb": event.mem_total_mb,
        "power_w": event.power_w,
        "temperature_c": event.temperature_c,
        "energy_j": event.energy_j,
        "price_per_hour_usd": event.price_per_hour_usd,
        "source": event.source,
        "h": xxh3_64_digest(value),
        "src": source,
        "ingested_at": _bson_date(stored_at),
    }
    if event.parent_uuid is not None:
        document["parent_uuid"] = event.card
        document["mig_profile"] = event.mig_profile
    return document


def encoded_documents(documents: Iterable[Mapping[str, Any]]) -> EncodedDocuments:
    """Any documents with an id and a hash, encoded one by one."""
    found = EncodedDocuments()
    for document in documents:
        encoded = bson.encode(document)
        found.extend([document["_id"]], [document["h"]], [len(encoded)], encoded)
    return found


def _bson_date(at: datetime) -> datetime:
    plain = at.astimezone(UTC).replace(tzinfo=None)
    return plain.replace(microsecond=plain.microsecond // 1000 * 1000)
