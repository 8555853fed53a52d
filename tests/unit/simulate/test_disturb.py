"""Late, repeated and broken records: what is valid stays whole, what is broken is refused for its
reason."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from gpu_token_analytics.errors import InvalidRecord, Reason, SettingsError
from gpu_token_analytics.simulate import Load, default_fleet, events_for_bench, generate
from gpu_token_analytics.simulate.disturb import Disturbances, disturb, hostile_records
from gpu_token_analytics.simulate.run import Delivery
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

EVENTS = events_for_bench(5000)


def test_a_clean_stream_passes_unchanged() -> None:
    assert [delivery.event for delivery in disturb(EVENTS, Disturbances(), 1)] == EVENTS


def test_every_event_arrives_and_repeats_are_identical() -> None:
    out = list(disturb(EVENTS, Disturbances(late=0.1, duplicates=0.05, broken=0.02), 1))
    times = Counter(delivery.event.event_id for delivery in out if delivery.event)
    assert set(times) == {event.event_id for event in EVENTS}
    repeated = sum(1 for count in times.values() if count == 2)
    assert repeated == pytest.approx(250, rel=0.3)
    assert max(times.values()) == 2
    by_id = {event.event_id: event for event in EVENTS}
    assert all(
        delivery.event == by_id[delivery.event.event_id] for delivery in out if delivery.event
    )
    assert sum(1 for delivery in out if delivery.event is None) == pytest.approx(100, rel=0.4)


def test_late_events_come_after_younger_ones_and_none_is_kept() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = list(generate(default_fleet(), start, 3600, 7, load=Load(1.0)))
    out = list(disturb(events, Disturbances(late=0.1), 1))
    waited = [(item.at_us - to_us(item.event.ts)) / 1e6 for item in out if item.event]
    assert sum(1 for seconds in waited if seconds >= 60) == pytest.approx(
        len(events) * 0.1, rel=0.25
    )
    assert max(waited) <= 900
    assert all(before.at_us <= after.at_us for before, after in pairwise(out))
    # a paced stream does not wait for them after its end
    assert out[-1].at_us == to_us(events[-1].ts)


def test_disturbing_is_reproducible() -> None:
    def once(seed: int) -> list[Delivery]:
        return list(disturb(EVENTS, Disturbances(0.1, 0.1, 0.1), seed))

    assert once(5) == once(5)
    assert once(5) != once(6)


@pytest.mark.parametrize(
    "event",
    [
        next(event for event in EVENTS if isinstance(event, GpuSample)),
        next(event for event in EVENTS if isinstance(event, TokenUsage)),
    ],
    ids=["sample", "usage"],
)
def test_each_broken_record_is_refused_for_its_reason(event: Event) -> None:
    kinds = hostile_records(event)
    assert len({kind.name for kind in kinds}) == len(kinds)
    for kind in kinds:
        with pytest.raises(InvalidRecord) as caught:
            decode(kind.value)
        assert caught.value.reason == kind.reason, kind.name


def test_broken_records_cover_every_reason_a_record_alone_can_have() -> None:
    found = {kind.reason for kind in hostile_records(EVENTS[0])}
    beyond_the_record = {Reason.FUTURE_TS, Reason.ID_CONFLICT, Reason.REFUSED_BY_STORE}
    assert found == set(Reason) - beyond_the_record


def test_a_share_is_between_0_and_1() -> None:
    with pytest.raises(SettingsError, match=r"--late 1\.5"):
        disturb(EVENTS, Disturbances(late=1.5), 1)
