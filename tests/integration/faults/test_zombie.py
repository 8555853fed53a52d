"""A processor whose reading thread stands still: its heartbeats go on, so to the group it lives,
until its poll interval is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.integration.delivery_support import (
    Start,
    all_is_stored_once,
    committed,
    delivery_settings,
    eventually,
    lag,
    send,
    usages,
)
from tests.integration.faults.one_thread import standing_still
from tests.integration.faults.wire import Wire

from gpu_token_analytics.embedded.child import LOOPBACK
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.topics import create_topics, describe_group

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.kafka,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux stops one thread of a process"),
]


@pytest.fixture
def wire(mongod: EmbeddedMongod) -> Iterator[Wire]:
    with closing(Wire(mongod.port)) as made:
        yield made


def test_a_zombie_past_its_poll_interval_writes_late_and_harms_nobody(
    kafka: KafkaBroker, mongo_uri: str, mongo_database: str, start: Start, wire: Wire
) -> None:
    """It has a batch half written when it falls silent; another member reads, stores and commits
    that batch; then the zombie's write comes through, and it wakes up."""
    settings = delivery_settings(
        kafka.bootstrap,
        mongo_uri,
        mongo_database,
        kafka_topic=mongo_database,
        kafka_group=mongo_database,
        kafka_extra_config={
            "session.timeout.ms": "6000",
            "heartbeat.interval.ms": "1000",
            "max.poll.interval.ms": "8000",
        },
    )
    create_topics(settings)
    through_the_wire = f"mongodb://{LOOPBACK}:{wire.port}/?directConnection=true"
    zombie = start(
        settings, MONGODB_URI=through_the_wire, MONGODB_TIMEOUT_MS="60000", BATCH_MAX_RECORDS="500"
    ).wait_ready()
    sent = send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0)
    wire.cut(requests=True, answers=False)
    sent |= send(settings, usages(500, hosts=60))
    eventually(
        lambda: zombie.metric("gpu_tokens_consumed_total") > 1000, what="having a batch in hand"
    )
    assert committed(settings) == 1000
    with standing_still(zombie.process.pid):
        heir = start(settings)
        eventually(lambda: lag(settings) == 0, 60, "another member taking over")
        assert heir.metric("gpu_tokens_consumed_total") >= 500
        before = {state.partition: state.committed for state in describe_group(settings)}
        duplicates = zombie.metric("gpu_tokens_duplicates_total")
        wire.mend()
        eventually(
            lambda: zombie.metric("gpu_tokens_duplicates_total") > duplicates,
            what="its late write",
        )
        sent |= send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0, 60, "going on without it")
    eventually(
        lambda: (
            zombie.metric("gpu_tokens_assigned_partitions")
            == heir.metric("gpu_tokens_assigned_partitions")
            == 6
        ),
        60,
        "the zombie coming back as a member",
    )
    assert "maximum poll interval" in zombie.text(), "it was that, not the end of a session"
    after = {state.partition: state.committed for state in describe_group(settings)}
    assert all((after[number] or 0) >= (before[number] or 0) for number in before), (
        "no offset was set back"
    )
    sent |= send(settings, usages(500, hosts=60))
    eventually(lambda: lag(settings) == 0, 60)
    all_is_stored_once(settings, sent)
    assert zombie.stop() == 0
    assert heir.stop() == 0
