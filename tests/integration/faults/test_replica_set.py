"""Three members: the primary dies; then the majority is gone for minutes, and what the last one
took alone is taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient  # members and elections are the operator's
from pymongo.errors import PyMongoError
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

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.child import LOOPBACK
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.topics import seed_offsets

pytestmark = pytest.mark.minutes

SET = "rs0"
AWAY_SECONDS = 120.0


class Member(EmbeddedMongod):
    """One of several of a set; who initiates it is the test."""

    def _set_up(self) -> None:
        pass

    def hello(self) -> dict[str, Any]:
        """What it says of itself; nothing when it does not answer."""
        with (
            suppress(PyMongoError),
            MongoClient[dict[str, Any]](
                LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=1000
            ) as client,
        ):
            return client.admin.command("hello")
        return {}


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    with ExitStack() as stack:
        started = [
            stack.enter_context(Member(tmp_path / f"member-{number}", replica_set=SET))
            for number in range(3)
        ]
        hosts = [
            {"_id": number, "host": f"{LOOPBACK}:{member.port}"}
            for number, member in enumerate(started)
        ]
        with MongoClient[dict[str, Any]](
            LOOPBACK, started[0].port, directConnection=True
        ) as client:
            client.admin.command("replSetInitiate", {"_id": SET, "members": hosts})
        eventually(lambda: primary(started), 60, "electing a primary")
        eventually(
            lambda: sum(bool(member.hello().get("secondary")) for member in started) == 2, 60
        )
        yield started
        for member in started:
            member.kill()  # without a majority they would take their time to stop


def primary(members: list[Member]) -> Member | None:
    """The one that takes writes, if any does."""
    return next((each for each in members if each.hello().get("isWritablePrimary")), None)


def test_a_primary_dies_and_then_the_majority_for_minutes(
    members: list[Member], mock_broker: EmbeddedBroker, start: Start
) -> None:
    addresses = ",".join(f"{LOOPBACK}:{member.port}" for member in members)
    settings = delivery_settings(
        mock_broker.bootstrap,
        f"mongodb://{addresses}/?replicaSet={SET}",
        "faults",
        mongodb_timeout_ms=2000,
        batch_max_records=200,
        # that it polls on is seen when it may be silent for less than the outage
        kafka_extra_config={
            "session.timeout.ms": "2000",
            "heartbeat.interval.ms": "500",
            "max.poll.interval.ms": "10000",
        },
    )
    seed_offsets(settings)
    processor = start(settings).wait_ready()
    sent = send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0)

    sent |= send(settings, usages(2000, hosts=60))
    first = primary(members)
    assert first is not None
    first.kill()
    sent |= send(settings, usages(1000, hosts=60))
    eventually(lambda: primary(members), 60, "electing another primary")
    eventually(lambda: lag(settings) == 0, 60, "going on with it")
    first.start()
    eventually(lambda: first.hello().get("secondary"), 60, "coming back")

    last = primary(members)
    assert last is not None
    others = [member for member in members if member is not last]
    before = committed(settings)
    for member in others:
        member.kill()
    sent |= send(settings, usages(2000, hosts=60))
    eventually(lambda: processor.metric("gpu_tokens_store_up") == 0, what="noticing it")
    deadline = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < deadline:
        assert committed(settings) == before, "one member's word is no majority's"
        assert processor.process.poll() is None, processor.text()
        assert processor.get("/health")[0] == 200, "a restart would not help"
        time.sleep(1)
    assert processor.get("/ready")[0] == 503
    assert processor.metric("gpu_tokens_assigned_partitions") == 12
    with MongoClient[dict[str, Any]](LOOPBACK, last.port, directConnection=True) as alone:
        assert alone["faults"]["token_usage"].estimated_document_count() > len(sent) - 2000, (
            "the last one had taken some of it"
        )
    last.kill()
    for member in others:
        member.start()
    eventually(lambda: primary(others), 60, "the majority electing one that has none of it")
    last.start()
    eventually(lambda: lag(settings) == 0, 60, "going on")
    eventually(lambda: last.hello().get("secondary"), 60, "the last one taking back what it took")
    assert "lost (" not in processor.text(), "it kept its partitions throughout"
    all_is_stored_once(settings, sent)
    assert processor.stop() == 0
