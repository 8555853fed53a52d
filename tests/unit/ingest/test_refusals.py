"""Refused records are said in the log, bounded, with what is needed to find them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.ingest.refusals import EVERY_SECONDS, RefusalLog, event_id_in
from gpu_token_analytics.kafka.records import DeadLetter


def letter(offset: int, value: bytes | None = b"{}") -> DeadLetter:
    return DeadLetter("tokens", 3, offset, "not_json", "no", None, None, value)


def test_many_refusals_are_one_line_with_where_the_last_one_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    refusals = RefusalLog(clock)
    with caplog.at_level(logging.WARNING):
        refusals.add([letter(1), letter(2, b'{"event_id": "e-2", "ts": 7}')])
        refusals.add([letter(3)])
        assert len(caplog.records) == 1
        clock.advance(EVERY_SECONDS)
        refusals.add([letter(4)])
    first, second = (vars(record) for record in caplog.records)
    assert (first["records"], first["partition"], first["offset"], first["event_id"]) == (
        2,
        3,
        2,
        "e-2",
    )
    assert (second["records"], second["offset"], second["event_id"]) == (2, 4, None), (
        "those in between are counted"
    )


@pytest.mark.parametrize(
    "value", [None, b"", b"\xff", b'{"event_id": "a\\nb"}', b'{"event_id": "' + b"x" * 65 + b'"}']
)
def test_what_is_no_id_is_none(value: bytes | None) -> None:
    assert event_id_in(value) is None
