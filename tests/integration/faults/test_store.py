"""What an operator or a tired server does to MongoDB: rights taken away, no primary, every write
five seconds late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient  # rights, elections and slowness are not the product's business
from tests.integration.delivery_support import (
    Processor,
    delivery_settings,
    eventually,
    lag,
    send,
    stored,
    usages,
)

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import describe_group, seed_offsets
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.settings import Settings

Start = Callable[..., Processor]
DATABASE = "faults"
ROOT = ("root", "of-the-test")


def committed(settings: Settings) -> int:
    return sum(state.committed or 0 for state in describe_group(settings))


def all_is_stored_once(settings: Settings, sent: dict[str, bytes]) -> None:
    """The end of every test here: nothing lost, nothing twice, no dead letter."""
    with closing(open_store(settings)) as store:
        assert stored(store).keys() == sent.keys()
    assert not list(read_dead_letters(settings)), "the store's fault is no reason for dead letters"


@pytest.mark.parametrize("left", [["read"], []], ids=["read-only", "revoked"])
def test_rights_taken_away_stop_it_and_given_back_lose_nothing(
    left: list[str], mock_broker: EmbeddedBroker, tmp_path: Path, start: Start
) -> None:
    with (
        EmbeddedMongod(tmp_path / "mongod", auth=ROOT) as mongod,
        MongoClient[dict[str, Any]](mongod.uri) as root,
    ):
        database = root[DATABASE]
        roles = [{"role": "readWrite", "db": DATABASE}, {"role": "dbAdmin", "db": DATABASE}]
        database.command("createUser", "processor", pwd="p", roles=roles)
        uri = (
            f"mongodb://processor:p@127.0.0.1:{mongod.port}/?directConnection=true&"
            f"authSource={DATABASE}"
        )
        settings = delivery_settings(mock_broker.bootstrap, uri, DATABASE, mongodb_timeout_ms=2000)
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        stored_until_then = committed(settings)

        database.command(
            "updateUser", "processor", roles=[{"role": role, "db": DATABASE} for role in left]
        )
        sent |= send(settings, usages(500, hosts=60))
        assert processor.wait(90) == 1, "an operator has to act, and sees it"
        last = processor.text().strip().splitlines()[-1]
        assert last.startswith("gpu-tokens: "), last
        assert "not authorized" in last, last
        assert "Traceback" not in processor.text()
        assert committed(settings) == stored_until_then, "nothing was committed that is not stored"

        database.command("updateUser", "processor", roles=roles)
        again = start(settings).wait_ready()
        eventually(lambda: lag(settings) == 0)
        all_is_stored_once(settings, sent)
        assert again.stop() == 0


def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    mock_broker: EmbeddedBroker, tmp_path: Path, start: Start
) -> None:
    """Its only member is a secondary: reads would be answered, writes are not."""
    with EmbeddedMongod(tmp_path / "mongod", replica_set="rs0") as mongod:
        settings = delivery_settings(
            mock_broker.bootstrap, mongod.uri, DATABASE, mongodb_timeout_ms=1000
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        with MongoClient[dict[str, Any]](
            f"mongodb://127.0.0.1:{mongod.port}/?directConnection=true"
        ) as member:
            member.admin.command({"replSetStepDown": 15, "force": True})
            assert not member.admin.command("hello")["isWritablePrimary"]
            sent |= send(settings, usages(500, hosts=60))
            eventually(lambda: processor.metric("gpu_tokens_store_up") == 0, what="noticing it")
            assert processor.get("/ready")[0] == 503
            assert processor.get("/health")[0] == 200, "a restart would not help"
            assert lag(settings) > 0, "nothing is committed that is not stored"
            eventually(
                lambda: member.admin.command("hello")["isWritablePrimary"], 60, "electing it again"
            )
        eventually(lambda: lag(settings) == 0, 60, "going on")
        all_is_stored_once(settings, sent)
        assert processor.stop() == 0


class SlowMongod(EmbeddedMongod):
    """A mongod that can be told to wait before it answers."""

    def _command(self, binary: Path) -> list[str]:
        return [*super()._command(binary), "--setParameter", "enableTestCommands=1"]


@pytest.fixture
def slow_mongod(tmp_path: Path) -> Iterator[EmbeddedMongod]:
    with SlowMongod(tmp_path / "mongod") as server:
        yield server


def test_five_seconds_a_write_and_ten_times_the_input_grow_a_lag_and_nothing_else(
    mock_broker: EmbeddedBroker, slow_mongod: EmbeddedMongod, start: Start
) -> None:
    settings = delivery_settings(
        mock_broker.bootstrap, slow_mongod.uri, DATABASE, batch_max_records=2000
    )
    seed_offsets(settings)
    processor = start(settings).wait_ready()
    sent = send(settings, usages(2000, hosts=60))
    eventually(lambda: lag(settings) == 0)
    eventually(
        lambda: processor.metric("gpu_tokens_assigned_partitions") == 12,
        what="the metric, set every few seconds",
    )
    before_mb = processor.rss_mb()
    with MongoClient[dict[str, Any]](slow_mongod.uri) as control:
        how = {"failCommands": ["insert"], "blockConnection": True, "blockTimeMS": 5000}
        control.admin.command("configureFailPoint", "failCommand", mode={"times": 10}, data=how)
        begun = time.monotonic()
        sent |= send(settings, usages(20_000, hosts=60))
        most_lag, most_mb = 0, before_mb
        while lag(settings):
            most_lag, most_mb = max(most_lag, lag(settings)), max(most_mb, processor.rss_mb())
            assert processor.get("/health")[0] == 200
            assert processor.metric("gpu_tokens_assigned_partitions") == 12, "it is slow, not gone"
            assert time.monotonic() - begun < 300
            time.sleep(1)
        assert time.monotonic() - begun > 10, "the store was slow"
    assert most_lag > 10_000
    assert most_mb < before_mb + 120, (
        f"{before_mb:.0f} MB -> {most_mb:.0f} MB: what waits, waits in Kafka"
    )
    assert "lost (" not in processor.text()
    all_is_stored_once(settings, sent)
    assert processor.stop() == 0
