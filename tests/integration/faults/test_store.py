"""What an operator or a tired server does to MongoDB: rights taken away, no primary, every write
five seconds late."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient  # rights, elections and slowness are not the product's business
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
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import create_topics, seed_offsets
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.settings import load
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.usage import USAGE

DATABASE = "faults"
ROOT = ("root", "of-the-test")


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


class FrequentMongod(EmbeddedMongod):
    """A mongod that writes its files every two seconds, not every minute."""

    def _command(self, binary: Path) -> list[str]:
        return [*super()._command(binary), "--syncdelay", "2"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 320 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system that can be full needs root (mount)")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Until nothing more goes on its disk."""
    block = b"x" * 65_536
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(block)


def test_a_full_disk_of_mongodb_is_waited_out(
    mock_broker: EmbeddedBroker, small_disk: Path, start: Start
) -> None:
    """A mongod that cannot write its files ends itself; with room again it is started again."""
    with FrequentMongod(small_disk / "mongod") as mongod:
        settings = delivery_settings(
            mock_broker.bootstrap, mongod.uri, DATABASE, mongodb_timeout_ms=2000
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        fill(small_disk / "of somebody else")
        deadline = time.monotonic() + 120
        while processor.metric("gpu_tokens_store_up") == 1:
            assert time.monotonic() < deadline, "a full disk was no hindrance"
            sent |= send(settings, usages(2000, hosts=60))
            time.sleep(0.5)
        assert mongod.pid is None, "it ended itself"
        assert "No space left on device" in mongod.log_file.read_text()
        before = committed(settings)
        time.sleep(6)  # three sessions
        assert processor.process.poll() is None, processor.text()
        assert processor.get("/health")[0] == 200, "a restart would not help"
        assert processor.get("/ready")[0] == 503
        assert committed(settings) == before < len(sent), "nothing is committed that is not stored"
        (small_disk / "of somebody else").unlink()
        mongod.start()
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


MOST_MB = 400.0  # of memory, whatever waits
BACKLOG = 200_000


@pytest.mark.kafka
@pytest.mark.minutes
def test_five_seconds_a_write_and_ten_times_the_input_grow_a_lag_and_nothing_else(
    kafka: KafkaBroker,
    slow_mongod: EmbeddedMongod,
    mongo_database: str,
    start: Start,
) -> None:
    """As it comes: no setting is made smaller for it."""
    settings = load(
        kafka_bootstrap=kafka.bootstrap,
        kafka_topic=mongo_database,
        kafka_group=mongo_database,
        mongodb_uri=slow_mongod.uri,
        mongodb_database=DATABASE,
    )
    create_topics(settings)
    processor = start(settings).wait_ready()
    sent = set(send(settings, usages(BACKLOG // 10, hosts=60)))
    eventually(lambda: lag(settings) == 0, 60)
    eventually(
        lambda: processor.metric("gpu_tokens_assigned_partitions") == 12,
        what="the metric, set every few seconds",
    )
    with MongoClient[dict[str, Any]](slow_mongod.uri) as control:
        how = {"failCommands": ["insert"], "blockConnection": True, "blockTimeMS": 5000}
        control.admin.command("configureFailPoint", "failCommand", mode={"times": 10}, data=how)
        begun = time.monotonic()
        most_lag = 0
        for _ in range(10):
            sent |= set(send(settings, usages(BACKLOG // 10, hosts=60)))
            most_lag = max(most_lag, lag(settings))
        while lag(settings):
            most_lag = max(most_lag, lag(settings))
            assert processor.get("/health")[0] == 200
            assert processor.metric("gpu_tokens_assigned_partitions") == 12, "it is slow, not gone"
            assert time.monotonic() - begun < 300
            time.sleep(1)
        assert time.monotonic() - begun > 20, "the store was slow"
    print(f"peak {processor.peak_rss_mb():.0f} MB, lag at most {most_lag:,} records")
    assert most_lag > BACKLOG / 2
    assert processor.peak_rss_mb() < MOST_MB, "what waits, waits in Kafka"
    assert "lost (" not in processor.text()
    with closing(open_store(settings)) as store:
        ids = [
            event_id_of(document) for document in store[USAGE.collection].find({}, {"event_id": 1})
        ]
    assert len(ids) == len(sent), "each once"
    assert set(ids) == sent
    assert not list(read_dead_letters(settings)), "the store's fault is no reason for dead letters"
    assert processor.stop() == 0
