"""Two brokers with a copy each: one goes and the other leads; both are away for minutes; one that
lacks records leads, against all care."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

# Who may lead is the operator's to say.
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic
from tests.integration.delivery_support import (
    Start,
    all_is_stored_once,
    committed,
    delivery_settings,
    eventually,
    lag,
    send,
    stored,
    usages,
)
from tests.integration.faults.kafka_cluster import Cluster, Node, kafka_cluster

from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import create_topics, describe_group
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.minutes]

AWAY_SECONDS = 120.0
OFFSETS_TOPIC = "__consumer_offsets"


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, java: str, tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[Cluster]:
    """Parameter: whether there is a third broker, and whether it alone has the group's offsets."""
    third, offsets_on_it = getattr(request, "param", (False, False))
    with kafka_cluster(tmp_path / "kafka", third=third) as started:
        for broker in started.brokers:
            keep_log(broker.log_file)
        one, other = (broker.number for broker in started.brokers)
        pair = [[one, other], [other, one]] * 6
        offsets = [[started.third.number]] if started.third and offsets_on_it else pair[:1]
        topics = [
            NewTopic("tokens", replica_assignment=pair, num_partitions=12),
            NewTopic("tokens.dlq", replica_assignment=pair, num_partitions=12),
            NewTopic(
                OFFSETS_TOPIC,
                replica_assignment=offsets,
                num_partitions=1,
                config={"cleanup.policy": "compact"},
            ),
        ]
        admin = AdminClient({"bootstrap.servers": started.bootstrap})
        for future in admin.create_topics(topics).values():
            future.result(30)
        yield started


@pytest.fixture
def settings(cluster: Cluster, mongo_uri: str, mongo_database: str) -> Settings:
    made = delivery_settings(
        cluster.bootstrap,
        mongo_uri,
        mongo_database,
        kafka_extra_config={"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"},
    )
    create_topics(made)
    return made


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with closing(open_store(settings)) as opened:
        yield opened


def leaders(settings: Settings, topic: str) -> dict[int, int]:
    """Which broker leads which partition; those that nobody leads are left out."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    partitions = admin.list_topics(topic, timeout=15).topics[topic].partitions
    return {
        number: partition.leader for number, partition in partitions.items() if partition.leader > 0
    }


def in_sync(settings: Settings, topic: str) -> set[tuple[int, ...]]:
    """Which brokers have all of a partition, one set for each that there is."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    partitions = admin.list_topics(topic, timeout=15).topics[topic].partitions
    return {tuple(sorted(partition.isrs)) for partition in partitions.values()}


def test_one_of_two_brokers_goes_and_then_both_for_minutes(
    cluster: Cluster, settings: Settings, store: Store, start: Start
) -> None:
    one, other = cluster.brokers
    processor = start(settings).wait_ready()
    sent = send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0)
    assert set(leaders(settings, settings.kafka_topic).values()) == {one.number, other.number}
    one.kill()
    eventually(
        lambda: list(leaders(settings, settings.kafka_topic).values()) == [other.number] * 12,
        60,
        "the other one leading all",
    )
    sent |= send(settings, usages(2000, hosts=60))
    eventually(lambda: lag(settings) == 0, 60, "going on with one broker")
    assert stored(store).keys() == sent.keys()
    sent |= send(settings, usages(2000, hosts=60))
    other.kill()
    deadline = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < deadline:
        assert processor.process.poll() is None, processor.text()
        assert processor.get("/health")[0] == 200, "a restart would not help"
        time.sleep(2)
    other.start()
    one.start()
    sent |= send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0, 120, "going on with both")
    all_is_stored_once(settings, sent)
    assert processor.stop() == 0


@pytest.mark.parametrize(
    "cluster",
    [(True, True), (True, False)],
    ids=["offsets kept", "offsets lost, too"],
    indirect=True,
)
def test_a_leader_that_lacks_records_hides_no_loss(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    settings: Settings,
    store: Store,
    start: Start,
) -> None:
    """What one broker alone had acknowledged is gone with it, and the other one is made to lead.
    Where the group's offsets are beyond the end of the log, it stops; where they went back with the
    log, it reads on, and nothing of what it had read is lost or doubled."""
    offsets_kept = "kept" in request.node.name
    survivor, only = cluster.brokers
    topics = [settings.kafka_topic, settings.dlq_topic, *([] if offsets_kept else [OFFSETS_TOPIC])]
    processor = start(settings).wait_ready()
    sent = send(settings, usages(600, hosts=60))
    eventually(lambda: lag(settings) == 0)
    allow_anybody_to_lead(settings, topics)
    survivor.stop()
    for topic in topics:
        eventually(partial(_copied, settings, topic, (only.number,)), 60, "being the only one")
    sent |= send(settings, usages(3000, hosts=60))
    eventually(lambda: lag(settings) == 0, 60)
    only.kill()
    survivor.start()
    for topic in topics:
        eventually(partial(_leads_all, settings, topic, survivor), 60, "leading without them")
    ends = sum(state.high for state in describe_group(settings))
    assert ends == 600, "acknowledged records are gone, and Kafka does not say so"
    before = committed(settings)
    assert before == (3600 if offsets_kept else 600)
    after = send(settings, usages(600, hosts=60))
    if offsets_kept:
        assert processor.wait(90) == 1, "an operator has to act, and sees it"
        assert "the next record to read is no longer in Kafka" in processor.text()
        assert committed(settings) == before, "no offset was moved behind the operator's back"
        assert stored(store).keys() == sent.keys(), "what was read stays"
    else:
        eventually(lambda: lag(settings) == 0, 90, "reading on")
        assert stored(store).keys() == (sent | after).keys()
        assert processor.stop() == 0
    assert not list(read_dead_letters(settings))


def _copied(settings: Settings, topic: str, brokers: tuple[int, ...]) -> bool:
    return in_sync(settings, topic) == {brokers}


def allow_anybody_to_lead(settings: Settings, topics: list[str]) -> None:
    """`unclean.leader.election.enable`: better one that lacks records than none."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    entry = ConfigEntry(
        "unclean.leader.election.enable", "true", incremental_operation=AlterConfigOpType.SET
    )
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for topic in topics
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)


def _leads_all(settings: Settings, topic: str, broker: Node) -> bool:
    return set(leaders(settings, topic).values()) == {broker.number}
