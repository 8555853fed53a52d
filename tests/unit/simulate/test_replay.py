"""Replay: what the trace says is kept, what is assumed is stated, and a second replay is the same
events."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.simulate.fleet import TokenTimes
from gpu_token_analytics.simulate.replay import Assumptions, replay, shift_to_now_us
from gpu_token_analytics.simulate.trace import TraceRow
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

START = datetime(2023, 11, 16, 18, tzinfo=UTC)
ROWS = [
    TraceRow(
        number,
        number + 1,
        to_us(START + timedelta(seconds=number * 0.37)),
        100 + number % 700,
        1 + number % 300,
    )
    for number in range(1, 1501)
]
ASSUMED = Assumptions("0" * 64)


def usages(
    assumptions: Assumptions = ASSUMED, rows: list[TraceRow] = ROWS, limit: int | None = None
) -> list[TokenUsage]:
    return [event for event in replay(rows, assumptions, limit) if isinstance(event, TokenUsage)]


def test_every_row_is_one_valid_usage_with_its_own_tokens() -> None:
    found = {usage.request_id: usage for usage in usages()}
    assert len(found) == len(ROWS)
    for row in ROWS:
        usage = found[f"trace-{row.number}"]
        assert (usage.prompt_tokens, usage.completion_tokens) == (
            row.context_tokens,
            row.generated_tokens,
        )
        assert to_us(usage.ts) - round((usage.latency_ms or 0) * 1000) == row.arrival_us
        assert decode(encode(usage)) == usage


def test_the_stated_duration_model() -> None:
    times = TokenTimes(base_ms=10, prefill_ms_per_token=0.5, decode_ms_per_token=20)
    usage = usages(replace(ASSUMED, times=times), [TraceRow(1, 2, to_us(START), 200, 11)])[0]
    assert usage.queue_ms == 0
    assert usage.ttft_ms == 10 + 0.5 * 200
    assert usage.latency_ms == 110 + 20 * 10
    assert usage.ts == START + timedelta(milliseconds=310)


def test_no_more_than_concurrency_requests_run_at_once() -> None:
    found = usages(replace(ASSUMED, gpus=1, hosts=1, concurrency=3))
    edges = []
    for usage in found:
        edges.append((to_us(usage.ts), -1))
        edges.append(
            (to_us(usage.ts) - round(((usage.latency_ms or 0) - (usage.queue_ms or 0)) * 1000), 1)
        )
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    assert most == 3
    assert any((usage.queue_ms or 0) > 0 for usage in found)


def test_a_second_replay_is_the_same_events() -> None:
    assumed = replace(ASSUMED, sample_interval_seconds=5.0)
    assert [encode(event) for event in replay(ROWS, assumed)] == [
        encode(event) for event in replay(ROWS, assumed)
    ]


def test_events_are_in_order_of_time() -> None:
    events = list(replay(ROWS, replace(ASSUMED, sample_interval_seconds=5.0)))
    assert all(before.ts <= after.ts for before, after in pairwise(events))


def test_a_limit_sends_the_first_rows_unchanged() -> None:
    whole = {usage.event_id: usage for usage in usages()}
    part = usages(limit=100)
    assert len(part) == 100
    assert all(whole[usage.event_id] == usage for usage in part)


def test_no_id_ever_stands_for_two_payloads_whatever_the_limit() -> None:
    """The last samples of a limited replay know of fewer requests; under the same id they would be
    id conflicts."""
    assumed = replace(ASSUMED, sample_interval_seconds=5.0)
    whole = {event.event_id: event for event in replay(ROWS, assumed)}
    part = list(replay(ROWS, assumed, 100))
    assert any(isinstance(event, GpuSample) for event in part)
    assert all(whole.get(event.event_id, event) == event for event in part)


@pytest.mark.parametrize(
    "other",
    [
        replace(ASSUMED, seed=2),
        replace(ASSUMED, trace_sha256="1" * 64),
        replace(ASSUMED, gpus=5),
        replace(ASSUMED, concurrency=31),
        replace(ASSUMED, shift_us=1),
        replace(ASSUMED, tenants=("a",)),
        replace(ASSUMED, times=TokenTimes(1, 1, 1)),
    ],
    ids=["seed", "file", "gpus", "concurrency", "shift", "tenants", "times"],
)
def test_other_assumptions_never_share_an_id(other: Assumptions) -> None:
    assert {usage.event_id for usage in usages()}.isdisjoint(
        usage.event_id for usage in usages(other)
    )


def test_rows_spread_over_gpus_and_tenants() -> None:
    found = usages()
    parts = (
        [usage.gpus[0] for usage in found],
        [usage.tenant for usage in found],
        [usage.host for usage in found],
    )
    for part, ways in zip(parts, (4, 3, 2), strict=True):
        counts = Counter(part)
        assert len(counts) == ways
        assert min(counts.values()) > 0.8 * len(found) / ways
    assert len({(usage.gpus[0], usage.model) for usage in found}) == 4  # one model per GPU


def test_a_row_out_of_order_waits_for_the_one_before() -> None:
    rows = [TraceRow(1, 2, to_us(START), 10, 10), TraceRow(2, 3, to_us(START) - 2_000_000, 10, 10)]
    second = next(
        usage
        for usage in usages(replace(ASSUMED, gpus=1, hosts=1), rows)
        if usage.request_id == "trace-2"
    )
    assert second.queue_ms == 2000


def test_an_impossible_wait_is_refused_with_its_line() -> None:
    slow = replace(ASSUMED, gpus=1, hosts=1, concurrency=1, times=TokenTimes(600_000, 0, 0))
    with pytest.raises(TraceUnreadable, match=r"line 38: .* --gpus"):
        usages(slow)


@pytest.mark.parametrize("speed", [0.5, 1.0, 7.0, 0.0])
def test_a_shifted_replay_is_never_ahead_of_the_clock(speed: float) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    shifted = usages(replace(ASSUMED, shift_us=shift_to_now_us(ROWS, ASSUMED, now, speed)))
    first_us, last_us = to_us(shifted[0].ts), to_us(shifted[-1].ts)
    # Sent by the pace of run.send_stream: the first at once, each other (ts - first) / speed later.
    for usage in shifted:
        sent_us = to_us(now) + ((to_us(usage.ts) - first_us) / speed if speed else 0)
        assert to_us(usage.ts) <= sent_us + 1000
    latest = to_us(now) + ((last_us - first_us) / speed if speed else 0)
    assert (
        first_us == to_us(now)
        if speed in {0.5, 1.0}
        else last_us == pytest.approx(latest, abs=1000)
    )


def test_a_shift_of_nothing_is_nothing() -> None:
    assert shift_to_now_us([], ASSUMED, START, 1.0) == 0


def test_samples_are_off_unless_asked_and_say_their_source() -> None:
    assert len(usages()) == len(list(replay(ROWS, ASSUMED)))
    events: list[Event] = list(replay(ROWS, replace(ASSUMED, sample_interval_seconds=5.0)))
    samples = [event for event in events if isinstance(event, GpuSample)]
    assert {sample.source for sample in samples} == {"replay"}
    assert {sample.gpu for sample in samples} == {usage.gpus[0] for usage in usages()}
    assert any((sample.utilization or 0) > 0.5 for sample in samples)
    assert [event for event in events if isinstance(event, TokenUsage)] == usages()


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"gpus": 0, "hosts": 1}, "--gpus 0"),
        ({"hosts": 5}, "--hosts 5"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"models": ()}, "--models"),
        ({"tenants": ("a", "")}, "--tenants"),
        ({"times": TokenTimes(1, 1, float("nan"))}, "--decode-ms-per-token nan"),
        ({"sample_interval_seconds": 0.0}, "sample interval 0.0"),
    ],
)
def test_assumptions_that_cannot_be_used_are_named(bad: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        replay(ROWS, replace(ASSUMED, **bad))  # type: ignore[arg-type]
