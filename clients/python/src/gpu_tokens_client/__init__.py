"""Sends one `token.usage.v1` event per finished LLM request to GPU Token Analytics.

    from gpu_tokens_client import UsageClient

    client = UsageClient(
        "http://analytics:8080", api_key="gta_...", spool_dir="/var/spool/gpu-tokens"
    )
    client.emit(
        model="llama-3-70b", prompt_tokens=1200, completion_tokens=340, latency_ms=5210.0,
        host="gpu-7", gpu_uuids=["GPU-1f0c..."], tenant="search",
    )

`emit` never raises and never waits for the network. With `spool_dir` an event whose `emit` returned
survives the end of the process, `kill -9` included; it is sent again with the same id until it is
acknowledged, so it counts once.
"""

from __future__ import annotations

from gpu_tokens_client.client import Stats, UsageClient
from gpu_tokens_client.event import Usage, new_event_id
from gpu_tokens_client.transport import (
    Delivered,
    HttpTransport,
    Outcome,
    Refused,
    Transport,
    Unavailable,
)

__all__ = [
    "Delivered",
    "HttpTransport",
    "Outcome",
    "Refused",
    "Stats",
    "Transport",
    "Unavailable",
    "Usage",
    "UsageClient",
    "new_event_id",
]
