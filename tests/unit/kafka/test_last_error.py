"""librdkafka says the same of each broker, many times a second: our log says it once a minute."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import pytest
from confluent_kafka import KafkaError as RdError

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.kafka.config import LastError


class Said:
    """An error of librdkafka."""

    def __init__(self, text: str) -> None:
        self.str, self.name = lambda: text, lambda: "_TRANSPORT"


def test_each_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    last = LastError(clock)

    def tell(seconds: int) -> int:
        caplog.clear()
        for second in range(seconds):
            for broker in "ab":
                text = (
                    f"{broker}:9092/1: Connect failed: refused (after {second}ms in state CONNECT)"
                )
                last(cast("RdError", Said(text)))
            clock.advance(1)
        return len(caplog.records)

    assert tell(60) == 2
    assert last.text.startswith("b:9092/1: Connect failed: refused (after 59ms"), "the last one"
    assert tell(61) == 4, "it lasts, which is said again"
    for number in range(1000):
        last(cast("RdError", Said(f"host-{number}: no such host")))
    assert len(last._said) <= 100
