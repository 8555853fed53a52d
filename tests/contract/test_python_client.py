"""The Python client's event is the contract's `token.usage.v1`: same fields, same defaults, same
bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.usage import TokenUsage
from gpu_tokens_client.event import Usage
from gpu_tokens_client.event import encode as client_encode


def test_the_clients_event_has_the_fields_and_defaults_of_the_contract() -> None:
    def fields(kind: type) -> list[tuple[str, object]]:
        return [(field.name, field.default if field.default_factory is msgspec.NODEFAULT else [])
                for field in msgspec.structs.fields(kind)]  # fmt: skip

    assert fields(Usage) == fields(TokenUsage)
    assert Usage.__struct_config__.tag == TokenUsage.__struct_config__.tag


def test_what_the_client_writes_is_read_as_the_same_event_byte_for_byte() -> None:
    usage = Usage(
        event_id="0190163d-8694-739b-aea5-966c26f8ad91", ts=datetime(2026, 1, 31, 12, 0, 0,
        123_000, tzinfo=UTC), host="h",
        model="m", request_id="r", prompt_tokens=5, completion_tokens=2, gpu_uuids=["GPU-1"],
        latency_ms=3.5, tenant="t",
    )  # fmt: skip
    record = client_encode(usage)
    assert encode(decode(record)) == record
