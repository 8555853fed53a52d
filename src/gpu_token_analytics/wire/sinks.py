"""Where producers put events: the one thing agents, simulations and replays know of Kafka.

`kafka.EventProducer` satisfies `EventSink`; `MemorySink` does so for tests, benches and dry runs.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID, uuid5

from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.names import gpu_label

# namespace of GPUs that are declared, not detected
_DECLARED_GPUS = UUID("6f6b3c1e-3a55-5c1d-9a53-1c7d1f0b2a84")


class EventSink(Protocol):
    """Takes events on their way to Kafka."""

    def send(self, event: Event) -> None:
        """Queue one event under the key `event.host`. Returns at once, or waits while the queue is
        full."""

    def send_raw(self, value: bytes, key: str) -> None:
        """Queue bytes that need not be an event (broken records on request)."""

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything queued is acknowledged. Raises DeliveryFailed when a record was
        not."""


class MemorySink:
    """A sink that keeps the records it was given, encoded as Kafka would get them."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []
        self.flushes: list[float] = []

    def send(self, event: Event) -> None:
        """Keep the event's bytes under its host."""
        self.records.append((event.host, encode(event)))

    def send_raw(self, value: bytes, key: str) -> None:
        """Keep the bytes as they are."""
        self.records.append((key, value))

    def flush(self, timeout_seconds: float) -> None:
        """Nothing is ever in flight here; only that it was called is kept."""
        self.flushes.append(timeout_seconds)


def declared_gpu_uuid(host: str, index: int) -> str:
    """The UUID of a GPU that no driver names (seed file, simulated fleet): the same for the same
    host and index."""
    return f"GPU-{uuid5(_DECLARED_GPUS, gpu_label(host, index))}"
