"""A site is lost, and the other one's cluster has what a mirror leaves: the same events at other
offsets, some of them twice, the last ones not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition  # the mirror's own clients
from tests.integration.delivery_support import (
    Start,
    committed,
    delivery_settings,
    eventually,
    lag,
    send,
    stored,
    usages,
)

from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import describe_group, seed_offsets
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.settings import Settings

pytestmark = pytest.mark.minutes

TOPICS = {"tokens": 12, "tokens.dlq": 12}


@pytest.fixture
def other_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(TOPICS) as broker:
        yield broker


def records(settings: Settings, first: dict[int, int]) -> list[Message]:
    """All of the topic from these offsets on, by partition."""
    states = describe_group(settings)
    wanted = sum(state.high - first.get(state.partition, 0) for state in states)
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, "group.id": "mirror"})
    found: list[Message] = []
    with closing(consumer):
        consumer.assign(
            [
                TopicPartition("tokens", state.partition, first.get(state.partition, 0))
                for state in states
            ]
        )
        deadline = time.monotonic() + 30
        while len(found) < wanted:
            assert time.monotonic() < deadline
            found += [message for message in consumer.consume(1000, 0.2) if not message.error()]
    return found


def mirror(messages: Sequence[Message], to: Settings, twice_every: int = 7) -> None:
    """As at-least-once copies do: a few of them come twice, one right behind the other or later."""
    producer = Producer({"bootstrap.servers": to.kafka_bootstrap})
    for message in [*messages, *messages[::twice_every]]:
        producer.produce("tokens", message.value(), message.key())
    assert producer.flush(30) == 0


def test_a_site_is_lost_and_comes_back_and_every_event_counts_once(
    mock_broker: EmbeddedBroker,
    other_broker: EmbeddedBroker,
    mongo_uri: str,
    mongo_database: str,
    start: Start,
) -> None:
    a, b = (
        delivery_settings(broker.bootstrap, mongo_uri, mongo_database)
        for broker in (mock_broker, other_broker)
    )
    seed_offsets(a)
    seed_offsets(b)
    sent = send(b, usages(70, hosts=60))  # so that no offset of one is that of the other
    at_a = start(a).wait_ready()
    copied, late = usages(2000, hosts=60), usages(300, hosts=60)
    sent |= send(a, copied)
    mirrored = records(a, {})
    eventually(lambda: lag(a) == 0)
    sent |= send(a, late)  # behind the mirror's lag
    at_a.process.kill()  # the site is lost
    at_a.process.wait(10)
    mirror(mirrored, b)
    send(b, [*copied[-200:], *late])  # its producers send again what they kept
    ends = {state.partition: state.high for state in describe_group(b)}
    at_b = start(b).wait_ready()
    sent |= send(b, usages(500, hosts=60))
    eventually(lambda: lag(b) == 0, 60, "reading all of it again at the other site")
    assert at_b.metric("gpu_tokens_duplicates_total") >= 2000, "nearly all of it was known"
    with closing(open_store(b)) as store:
        assert stored(store).keys() == sent.keys()
        assert at_b.stop() == 0
        mirror(records(b, ends), a)  # the site comes back, and gets what it missed
        before = committed(a)
        back = start(a).wait_ready()
        sent |= send(a, usages(200, hosts=60))
        eventually(lambda: lag(a) == 0, 60, "going on where it was")
        assert committed(a) > before
        assert stored(store).keys() == sent.keys()
        ledger = LedgerStore(store)
        eventually(lambda: ledger.cells.count_due() == 0, 60, "closing")
        assert back.stop() == 0
        report = audit(ledger, params_of(a))
        assert report.holds, report.findings[:3]
    assert not list(read_dead_letters(a))
    assert not list(read_dead_letters(b))
