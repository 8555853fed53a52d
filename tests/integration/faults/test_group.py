"""Members that are too many or too slow, and partitions that only sometimes have a leader."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
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

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.kafka.consumer import EventSource
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.kafka.topics import seed_offsets
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.usage import TokenUsage

TOPICS = {"tokens": 12, "tokens.dlq": 12}


@pytest.fixture
def settings(mock_broker: EmbeddedBroker, mongo_uri: str, mongo_database: str) -> Settings:
    return delivery_settings(mock_broker.bootstrap, mongo_uri, mongo_database)


def test_one_replica_more_than_partitions_is_idle_and_takes_over(
    mongo_uri: str, mongo_database: str, start: Start
) -> None:
    """The thirteenth of twelve."""
    with EmbeddedBroker(TOPICS) as broker:
        settings = delivery_settings(broker.bootstrap, mongo_uri, mongo_database)
        seed_offsets(settings)
        replicas = [start(settings) for _ in range(13)]
        eventually(
            lambda: all("listening on" in replica.text() for replica in replicas), 120, "starting"
        )

        def partitions() -> list[float]:
            return sorted(replica.metric("gpu_tokens_assigned_partitions") for replica in replicas)

        eventually(lambda: partitions() == [0] + 12 * [1], 120, "sharing twelve among thirteen")
        sent = send(settings, usages(600, hosts=60))
        eventually(lambda: lag(settings) == 0)
        (idle,) = [one for one in replicas if one.metric("gpu_tokens_assigned_partitions") == 0]
        assert idle.get("/health")[0] == 200, "nothing is wrong with it"
        status, body = idle.get("/ready")
        assert status == 503
        assert "more processors than partitions" in body, "it says why it has nothing to do"
        lines = idle.text().count("\n")
        time.sleep(6)
        assert idle.text().count("\n") - lines < 5, "no loop of errors"
        assert idle.metric("gpu_tokens_consumed_total") == 0

        one, *others = [replica for replica in replicas if replica is not idle]
        one.process.kill()
        one.process.wait(10)
        sent |= send(settings, usages(600, hosts=60))
        eventually(lambda: lag(settings) == 0, 60, "taking over")
        eventually(
            lambda: idle.metric("gpu_tokens_assigned_partitions") == 1, 60, "owning a partition"
        )
        opened = open_store(settings)
        assert stored(opened).keys() == sent.keys()
        opened.close()
        assert idle.stop() == 0
        for other in others:
            other.signal(signal.SIGTERM)
        assert [other.wait(60) for other in others] == 11 * [0]


def test_a_member_slower_than_the_poll_interval_commits_nothing_any_more(
    mock_broker: EmbeddedBroker,
) -> None:
    """Its heartbeats go on while it is stuck in a batch: alive to the group until its interval is
    over, and a zombie then."""
    slow_settings = delivery_settings(
        mock_broker.bootstrap,
        "mongodb://127.0.0.1:9/",
        "unused",
        kafka_extra_config={
            "session.timeout.ms": "2000",
            "heartbeat.interval.ms": "500",
            "max.poll.interval.ms": "3000",
        },
    )
    settings = delivery_settings(mock_broker.bootstrap, "mongodb://127.0.0.1:9/", "unused")
    seed_offsets(settings)
    send(settings, usages(200, hosts=60))
    slow, heir = EventSource(slow_settings), EventSource(settings)
    try:
        slow.start()
        stuck_with = read(slow, 200)
        heir.start()
        begun = time.monotonic()
        taken: list[RecordBatch] = []

        def taken_over() -> bool:
            taken.append(heir.poll(500, 0.2))
            return sum(map(len, taken)) >= 200

        eventually(taken_over, 60, "another member reading what the slow one does not finish")
        assert time.monotonic() - begun > 1, "it was not the end of a session"
        assert not slow.commit(stuck_with.positions), "refused"
        assert committed(settings) == 0

        def all_committed() -> bool:
            # waiting for its answer the slow one has come back: partitions move once more
            for member in (slow, heir):
                if len(batch := member.poll(500, 0.05)):
                    member.commit(batch.positions)
            return committed(settings) == 200

        eventually(all_committed, 60, "both reading and committing what is left")
        assert len(slow.owned) == len(heir.owned) == 6
        slow.commit(stuck_with.positions)
        assert committed(settings) == 200, "no offset was set back"
    finally:
        slow.close()
        heir.close()


def send_in_background(
    settings: Settings, events: list[TokenUsage]
) -> Callable[[], dict[str, bytes]]:
    """Send while nobody waits for it: some of it cannot be sent yet. Returns what waits, and gives
    what was sent."""
    pool = ThreadPoolExecutor(1)
    sending = pool.submit(send, settings, events)

    def wait() -> dict[str, bytes]:
        with pool:
            return sending.result(60)

    return wait


def read(source: EventSource, count: int) -> RecordBatch:
    """One batch with all of `count` records."""
    whole = RecordBatch("tokens")

    def all_there() -> bool:
        batch = source.poll(count, 0.2)
        whole.values += batch.values
        whole.positions |= batch.positions
        return len(whole) >= count

    eventually(all_there)
    return whole


class Member:
    """A consumer that reads and commits in a thread of its own until it is told to leave."""

    def __init__(self, settings: Settings, read: set[bytes]) -> None:
        self._source, self._read, self._leave = EventSource(settings), read, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def owned(self) -> int:
        return len(self._source.owned)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._source.start()
        while not self._leave.is_set():
            batch = self._source.poll(500, 0.1)
            self._read.update(value for value in batch.values if value is not None)
            self._source.commit(batch.positions)
        self._source.close()


def shared_evenly(members: list[Member]) -> bool:
    return [member.owned for member in members] == [12 // len(members)] * len(members)


def test_members_come_and_go_under_load(settings: Settings) -> None:
    """1, 12, 3 and 12 members: what is committed was read by somebody, and at twelve each has one
    partition."""
    seed_offsets(settings)
    read: set[bytes] = set()
    sent: dict[str, bytes] = {}
    members = [Member(settings, read)]
    try:
        for count in (1, 12, 3, 12):
            while len(members) > count:
                members.pop().leave()
            members += [Member(settings, read) for _ in range(count - len(members))]
            sent |= send(settings, usages(1000, hosts=60))  # while they are sharing anew
            eventually(partial(shared_evenly, members), 90, f"{count} members sharing")
            sent |= send(settings, usages(1000, hosts=60))
        eventually(lambda: lag(settings) == 0, 60, "reading the rest")
    finally:
        for member in members:
            member.leave()
    assert read == set(sent.values())


def test_partitions_of_a_broker_that_is_away_keep_nobody_waiting(
    mongo_uri: str, mongo_database: str, start: Start
) -> None:
    """Half of the topic can be read, half of it cannot."""
    with EmbeddedBroker(TOPICS, broker_count=2) as broker:
        settings = delivery_settings(broker.bootstrap, mongo_uri, mongo_database)
        broker.set_coordinator(settings.kafka_group, 1)
        seed_offsets(settings)
        store = open_store(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        broker.stop_broker(2)
        wait = send_in_background(settings, usages(2000, hosts=60))
        try:
            eventually(
                lambda: len(stored(store)) > 500 + 500,
                60,
                "storing what comes through the other broker",
            )
            time.sleep(3)
            assert len(stored(store)) < 2500, "and it was away"
            assert processor.get("/health")[0] == 200
            assert processor.metric("gpu_tokens_assigned_partitions") == 12
            assert processor.metric("gpu_tokens_dead_letters_total") == 0
        finally:
            broker.start_broker(2)
            sent |= wait()
        eventually(lambda: lag(settings) == 0, 60, "reading the rest")
        assert stored(store).keys() == sent.keys()
        store.close()
        assert processor.stop() == 0
