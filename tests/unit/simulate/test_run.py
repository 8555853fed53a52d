"""Sending a stream: paced without drift, stopped cleanly, counted exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.errors import DeliveryFailed
from gpu_token_analytics.simulate import events_for_bench
from gpu_token_analytics.simulate.disturb import Disturbances, disturb
from gpu_token_analytics.simulate.run import Delivery, Sent, send_stream
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.sinks import MemorySink
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

EVENTS = events_for_bench(3000)


def clean() -> Iterator[Delivery]:
    return disturb(EVENTS, Disturbances(), 1)


def test_what_is_past_goes_out_at_once_and_the_rest_at_its_time() -> None:
    """History and live load as one stream: after the past was sent there is nothing to catch up
    with."""
    live_from = EVENTS[1000].ts
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    sent_at: list[tuple[float, float]] = []

    def note(_: Sent, delivery: Delivery) -> None:
        sent_at.append((clock.monotonic(), (delivery.at_us - to_us(live_from)) / 1e6))

    send_stream(
        clean(),
        MemorySink(),
        clock,
        threading.Event(),
        speed=1.0,
        paced_from=live_from,
        on_sent=note,
    )
    assert {at for at, due in sent_at if due <= 0} == {0.0}
    assert all(at == pytest.approx(due, abs=1e-3) for at, due in sent_at if due > 0)
    assert sent_at[-1][0] > 0


def test_everything_is_sent_under_its_host_and_flushed() -> None:
    sink = MemorySink()
    sent = send_stream(clean(), sink, ManualClock(EVENTS[0].ts), threading.Event())
    assert sink.records == [(event.host, encode(event)) for event in EVENTS]
    assert len(sink.flushes) == 1
    usages = [event for event in EVENTS if isinstance(event, TokenUsage)]
    assert (sent.requests, sent.samples, sent.broken) == (len(usages), len(EVENTS) - len(usages), 0)
    assert sent.prompt_tokens == sum(usage.prompt_tokens for usage in usages)
    assert sent.completion_tokens == sum(usage.completion_tokens for usage in usages)
    assert (sent.first_ts, sent.last_ts) == (EVENTS[0].ts, EVENTS[-1].ts)


def test_broken_records_go_out_raw_and_are_counted_apart() -> None:
    sink = MemorySink()
    stream = disturb(EVENTS, Disturbances(broken=0.1), 1)
    sent = send_stream(stream, sink, ManualClock(EVENTS[0].ts), threading.Event())
    assert sent.broken > 200
    assert len(sink.records) == len(EVENTS) + sent.broken == sent.records


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_the_pace_is_the_one_of_event_time(speed: float) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    offsets: list[float] = []

    def note(_: Sent, delivery: Delivery) -> None:
        due = (delivery.at_us - to_us(EVENTS[0].ts)) / 1e6 / speed
        offsets.append(clock.monotonic() - due)
        clock.advance(0.0001)  # the sink takes time too; that must not add up

    send_stream(clean(), MemorySink(), clock, threading.Event(), speed=speed, on_sent=note)
    span_seconds = (EVENTS[-1].ts - EVENTS[0].ts).total_seconds()
    assert clock.monotonic() == pytest.approx(span_seconds / speed, abs=0.05)
    assert min(offsets) >= -1e-6


def test_stop_ends_it_and_still_flushes() -> None:
    sink, stop = MemorySink(), threading.Event()

    def stop_after_100(sent: Sent, _: Delivery) -> None:
        if sent.records == 100:
            stop.set()

    sent = send_stream(clean(), sink, ManualClock(EVENTS[0].ts), stop, on_sent=stop_after_100)
    assert sent.stopped
    assert len(sink.records) == 100
    assert len(sink.flushes) == 1


def test_a_failed_delivery_is_not_hidden() -> None:
    class Failing(MemorySink):
        def flush(self, timeout_seconds: float) -> None:
            raise DeliveryFailed("1 record was not acknowledged")

    with pytest.raises(DeliveryFailed):
        send_stream(clean(), Failing(), ManualClock(EVENTS[0].ts), threading.Event())


def test_a_paced_stream_looks_after_its_deliveries_on_the_way() -> None:
    sink = MemorySink()
    send_stream(clean(), sink, ManualClock(EVENTS[0].ts), threading.Event(), speed=0.2)
    span_seconds = (EVENTS[-1].ts - EVENTS[0].ts).total_seconds() / 0.2
    assert len(sink.flushes) == pytest.approx(span_seconds / 10, abs=2)
