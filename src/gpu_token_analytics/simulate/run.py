"""Sending a stream: at its own pace or as fast as the sink takes it, counted, and stopped
cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.sinks import EventSink
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

_FLUSH_TIMEOUT_SECONDS = 60.0
_PACED_FLUSH_EVERY_SECONDS = 10.0
_ACKNOWLEDGED_EVERY = 5_000  # records: what an interrupted stream has to send again at most


class Delivery(NamedTuple):
    """One record on its way to Kafka: `event`, or `raw` bytes that are not one. `at_us`: event time
    it is sent at."""

    at_us: int
    event: Event | None
    raw: bytes
    key: str


@dataclass
class Sent:
    """What went out. Tokens count each usage sent, repeats included."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    samples: int = 0
    broken: int = 0
    gpus: set[str] = field(default_factory=set)
    first_ts: datetime | None = None
    last_ts: datetime | None = None
    stopped: bool = False

    @property
    def records(self) -> int:
        """All records, broken ones included."""
        return self.requests + self.samples + self.broken

    def count(self, delivery: Delivery) -> None:
        """Add one record."""
        event = delivery.event
        if event is None:
            self.broken += 1
            return
        if isinstance(event, TokenUsage):
            self.requests += 1
            self.prompt_tokens += event.prompt_tokens
            self.completion_tokens += event.completion_tokens
            self.gpus.update(event.gpus)
        elif isinstance(event, GpuSample):
            self.samples += 1
            self.gpus.add(event.gpu)
        if self.first_ts is None or event.ts < self.first_ts:
            self.first_ts = event.ts
        if self.last_ts is None or event.ts > self.last_ts:
            self.last_ts = event.ts


def send_stream(
    deliveries: Iterable[Delivery],
    sink: EventSink,
    clock: Clock,
    stop: threading.Event,
    *,
    speed: float = 0.0,
    paced_from: datetime | None = None,
    on_sent: Callable[[Sent, Delivery], None] | None = None,
    on_acknowledged: Callable[[int], None] | None = None,
) -> Sent:
    """Send everything and wait until it is acknowledged; `stop` ends it early, what was sent is
    still flushed.

    speed: event seconds per second of the clock; 0 is as fast as the sink takes it. Pacing starts
    with the first record, or at `paced_from`: the event time that it is now, so that everything
    before it goes out at once and nothing has to be caught up with afterwards. It does not drift: a
    late record does not delay the ones after it. A paced
    stream can go on for days, so it looks every few seconds whether its records arrive. Raises
    DeliveryFailed from the sink.

    on_acknowledged: is told again and again, and at the end, how many records from the first on
    have arrived.
    """
    sent = Sent()

    def arrived() -> None:
        sink.flush(_FLUSH_TIMEOUT_SECONDS)
        if on_acknowledged is not None:
            on_acknowledged(sent.records)

    begun = flushed = clock.monotonic()
    first_us = None if paced_from is None else to_us(paced_from)
    for delivery in deliveries:
        if speed > 0:
            first_us = delivery.at_us if first_us is None else first_us
            due = begun + (delivery.at_us - first_us) / 1e6 / speed
            clock.wait(stop, due - clock.monotonic())
            if clock.monotonic() - flushed >= _PACED_FLUSH_EVERY_SECONDS:
                arrived()
                flushed = clock.monotonic()
        if stop.is_set():
            sent.stopped = True
            break
        if delivery.event is None:
            sink.send_raw(delivery.raw, delivery.key)
        else:
            sink.send(delivery.event)
        sent.count(delivery)
        if on_sent is not None:
            on_sent(sent, delivery)
        if on_acknowledged is not None and sent.records % _ACKNOWLEDGED_EVERY == 0:
            arrived()
    arrived()
    return sent
