"""Lag, age and loss of the group as they are seen from outside, from a broker over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.kafka.group_watch import GroupWatch
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import seed_offsets
from gpu_token_analytics.settings import Settings, load


@pytest.fixture
def settings(mock_broker: EmbeddedBroker) -> Settings:
    found = load(kafka_bootstrap=mock_broker.bootstrap)
    seed_offsets(found)
    return found


@pytest.fixture
def watch(settings: Settings) -> Iterator[GroupWatch]:
    group = GroupWatch(settings)
    yield group
    group.close()


def send(settings: Settings, *hosts: str) -> None:
    with EventProducer(settings) as producer:
        for host in hosts:
            producer.send_raw(b"{}", host)
        producer.flush(30)


def test_a_group_without_backlog_has_no_age(watch: GroupWatch) -> None:
    state = watch.look()
    assert (state.oldest_unread_at, state.events_end, state.dead_letters_end) == (None, 0, 0)
    assert sum(one.lag for one in state.partitions) == 0


def test_the_age_is_that_of_the_oldest_in_every_look_not_only_in_the_first(
    settings: Settings, watch: GroupWatch
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    send(settings, *(f"host-{number}" for number in range(40)))
    after = datetime.now(UTC) + timedelta(seconds=1)
    first = watch.look()
    assert sum(one.lag for one in first.partitions) == 40
    assert first.events_end == 40
    assert first.oldest_unread_at is not None
    assert before <= first.oldest_unread_at <= after
    send(settings, *(f"host-{number}" for number in range(40)))
    for _ in range(3):
        again = watch.look()
        assert again.oldest_unread_at == first.oldest_unread_at
        assert again.events_end == 80
