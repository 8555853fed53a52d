"""The event that is sent: `token.usage.v1`, encoded as the server would encode it.

The fields are those of the contract's JSON Schema (CA0/schemas of the server's repository); a test
of that repository holds the two against each other. The server judges values; here only types are
fixed.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec


class Usage(
    msgspec.Struct, tag_field="schema", tag="token.usage.v1", kw_only=True, omit_defaults=True
):
    """One finished request. `ts` is its end, in UTC; counts are inclusive (cached tokens are part
    of the prompt's, reasoning tokens of the completion's); times are milliseconds; None is unknown,
    which is not 0."""

    event_id: str
    ts: datetime
    host: str
    model: str
    request_id: str
    prompt_tokens: int
    completion_tokens: int
    gpu_uuids: list[str] = []
    gpu_index: int | None = None
    tenant: str = "default"
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    latency_ms: float | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    finish_reason: str | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Usage)


def encode(usage: Usage) -> bytes:
    """Return the record of one event: a JSON object on one line, without a line end.

    Raises TypeError, ValueError or OverflowError where a value has no JSON form, and
    msgspec.ValidationError where a value has another type than its field: encoding alone would let
    a text through where a number belongs.
    """
    record = _encoder.encode(usage)
    _decoder.decode(record)
    return record


def new_event_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562, section 5.7): ordered by time, so the store appends to its
    index."""
    unix_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    rand_a, rand_b = random >> 68, random & ((1 << 62) - 1)
    return str(UUID(int=unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b))


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)
