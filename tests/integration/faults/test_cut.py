"""Cut off from MongoDB only, or from Kafka only, in one direction or both; and answers that are
lost after what they answer was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
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
from tests.integration.faults.wire import Wire

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.child import LOOPBACK, free_port
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.topics import create_topics, seed_offsets
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings

DATABASE = "faults"
# of raw events: what is written, and what is asked for before it is written again
ASKED = tuple(command + b"\x00\x0c\x00\x00\x00token_usage" for command in (b"insert", b"find"))
CUTS = pytest.mark.parametrize(
    "cut",
    [
        {"requests": True, "answers": True},
        {"requests": True, "answers": False},
        {"requests": False, "answers": True},
    ],
    ids=["both ways", "what it says", "what it hears"],
)


def never_ahead(settings: Settings, store: Store, seconds: float) -> None:
    """For so long, at every look: no offset is committed whose record is not stored."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = committed(settings)
        assert before <= len(stored(store)), "a commit of what is not stored"
        time.sleep(0.2)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with closing(Wire()) as made:
        yield made


@CUTS
def test_cut_off_from_mongodb_only_it_stalls_and_commits_no_half(
    cut: dict[str, bool], mock_broker: EmbeddedBroker, tmp_path: Path, start: Start, wire: Wire
) -> None:
    with EmbeddedMongod(tmp_path / "mongod", replica_set="rs0") as mongod:
        wire.server_port = mongod.port
        beside = delivery_settings(
            mock_broker.bootstrap,
            f"mongodb://{LOOPBACK}:{mongod.port}/?directConnection=true",
            DATABASE,
        )
        settings = delivery_settings(
            mock_broker.bootstrap,
            f"mongodb://{LOOPBACK}:{wire.port}/?directConnection=true",
            DATABASE,
            mongodb_timeout_ms=1000,
            batch_max_records=200,
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        with closing(open_store(beside)) as store:
            sent = send(settings, usages(1000, hosts=60))
            eventually(lambda: lag(settings) == 0)
            wire.cut(**cut)
            sent |= send(settings, usages(2000, hosts=60))
            eventually(lambda: processor.metric("gpu_tokens_store_up") == 0, what="noticing it")
            never_ahead(settings, store, 8)  # four sessions
            assert lag(settings) > 0
            assert processor.get("/health")[0] == 200, "a restart would not help"
            assert processor.get("/ready")[0] == 503
            if not cut["requests"]:
                assert len(stored(store)) > committed(settings), (
                    "what it said was heard, and it does not count on it"
                )
            wire.mend()
            eventually(lambda: lag(settings) == 0, 60, "going on")
            assert "lost (" not in processor.text(), "it kept its partitions throughout"
        all_is_stored_once(beside, sent)
        assert processor.stop() == 0


class WiredBroker(KafkaBroker):
    """One that processors reach through a wire, and tests beside it."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        super().__init__(CURRENT_VERSION, folder)
        self._wire, self._beside = wire, free_port()

    @property
    def beside(self) -> str:
        """`host:port` past the wire."""
        return f"{LOOPBACK}:{self._beside}"

    def _write_properties(self) -> None:
        super()._write_properties()
        beside = f"BESIDE://{self.beside}"
        more = {
            "listeners": (
                f"CLIENTS://{self.bootstrap},{beside},"
                f"CONTROLLER://{LOOPBACK}:{self._controller_port}"
            ),
            "advertised.listeners": f"CLIENTS://{LOOPBACK}:{self._wire.port},{beside}",
            "listener.security.protocol.map": (
                "CLIENTS:PLAINTEXT,BESIDE:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name": "BESIDE",
        }
        with self._properties_file.open("a") as file:  # of two lines the later one counts
            file.writelines(f"{key}={value}\n" for key, value in more.items())


@pytest.mark.kafka
@CUTS
def test_cut_off_from_kafka_only_it_stalls_and_commits_no_half(
    cut: dict[str, bool],
    java: str,
    mongo_uri: str,
    mongo_database: str,
    tmp_path: Path,
    start: Start,
    wire: Wire,
    keep_log: Callable[[Path], None],
) -> None:
    session = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
    with WiredBroker(tmp_path / "kafka", wire) as broker:
        keep_log(broker.log_file)
        wire.server_port = broker.port
        beside = delivery_settings(
            broker.beside, mongo_uri, mongo_database, kafka_extra_config=session
        )
        settings = delivery_settings(
            f"{LOOPBACK}:{wire.port}",
            mongo_uri,
            mongo_database,
            kafka_extra_config=session,
            batch_max_records=200,
        )
        create_topics(beside)
        processor = start(settings).wait_ready()
        with closing(open_store(beside)) as store:
            sent = send(beside, usages(1000, hosts=60))
            eventually(lambda: lag(beside) == 0)
            sent |= send(beside, usages(3000, hosts=60))  # so that it is cut in the midst of them
            wire.cut(**cut)
            sent |= send(beside, usages(1000, hosts=60))
            never_ahead(beside, store, 15)  # longer than a session
            assert lag(beside) > 0, "nothing comes through"
            assert processor.get("/health")[0] == 200, "a restart would not help"
            wire.mend()
            eventually(lambda: lag(beside) == 0, 90, "going on")
            assert stored(store).keys() == sent.keys()
        assert processor.metric("gpu_tokens_dead_letters_total") == 0
        assert processor.stop() == 0


@pytest.mark.parametrize("times", [1, 5])
def test_an_answer_that_is_lost_after_the_write_is_asked_for_again(
    times: int, mock_broker: EmbeddedBroker, tmp_path: Path, start: Start, wire: Wire
) -> None:
    """What it wrote is there, and it has to find out: as often as that takes."""
    with EmbeddedMongod(tmp_path / "mongod", replica_set="rs0") as mongod:
        wire.server_port = mongod.port
        settings = delivery_settings(
            mock_broker.bootstrap,
            f"mongodb://{LOOPBACK}:{wire.port}/?directConnection=true",
            DATABASE,
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        wire.lose_answers(times, lambda request: any(asked in request for asked in ASKED))
        sent |= send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0, 60, "going on")
        assert wire.lost == times
        assert processor.metric("gpu_tokens_write_retries_total") > 0
        assert processor.metric("gpu_tokens_duplicates_total") > 0, "they were written before"
        all_is_stored_once(settings, sent)
        assert processor.stop() == 0
