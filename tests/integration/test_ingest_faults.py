"""What breaks in a data centre: processes, MongoDB, Kafka's offsets, producers. Nothing is lost,
nothing is counted twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
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

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import describe_group, seed_offsets
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings


@pytest.fixture
def settings(mock_broker: EmbeddedBroker, mongo_uri: str, mongo_database: str) -> Settings:
    return delivery_settings(mock_broker.bootstrap, mongo_uri, mongo_database)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings)
    yield found
    found.close()


def test_two_processors_share_and_one_is_killed(
    settings: Settings, store: Store, start: Start
) -> None:
    seed_offsets(settings)
    sent: dict[str, bytes] = {}
    first = start(settings).wait_ready()
    sent |= send(settings, usages(2000, hosts=60))
    second = start(settings).wait_ready()
    eventually(
        lambda: first.metric("gpu_tokens_assigned_partitions") == 6,
        what="sharing the partitions evenly",
    )
    eventually(
        lambda: second.metric("gpu_tokens_assigned_partitions") == 6,
        what="sharing the partitions evenly",
    )
    for _ in range(4):
        sent |= send(settings, usages(1000, hosts=60))
    eventually(
        lambda: second.metric("gpu_tokens_consumed_total") > 500, what="the second one being used"
    )
    assert first.metric("gpu_tokens_consumed_total") > 2000
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    sent |= send(settings, usages(2000, hosts=60))
    eventually(lambda: lag(settings) == 0, 60, "the survivor taking over")
    eventually(
        lambda: second.metric("gpu_tokens_assigned_partitions") == 12, what="owning all partitions"
    )
    assert stored(store).keys() == sent.keys()
    assert second.stop() == 0


def test_a_zombie_does_no_harm(settings: Settings, store: Store, start: Start) -> None:
    """Stopped for longer than its session, it wakes up with a batch of partitions that are somebody
    else's by now."""
    seed_offsets(settings)
    zombie = start(settings, BATCH_MAX_RECORDS="50").wait_ready()
    sent = send(settings, usages(3000, hosts=60))
    eventually(lambda: zombie.metric("gpu_tokens_consumed_total") > 100)
    zombie.signal(signal.SIGSTOP)
    heir = start(settings).wait_ready()
    sent |= send(settings, usages(1000, hosts=60))
    eventually(lambda: lag(settings) == 0, 60, "the heir reading everything")
    before = {state.partition: state.committed for state in describe_group(settings)}
    zombie.signal(signal.SIGCONT)
    sent |= send(settings, usages(1000, hosts=60))
    eventually(lambda: zombie.get("/ready")[0] == 200, 60, "the zombie joining again")
    eventually(lambda: lag(settings) == 0, 60)
    after = {state.partition: state.committed for state in describe_group(settings)}
    assert all((after[number] or 0) >= (before[number] or 0) for number in before), (
        "no offset was set back"
    )
    assert stored(store).keys() == sent.keys()
    assert zombie.stop() == 0
    assert heir.stop() == 0


@pytest.mark.parametrize("outage", ["frozen", "killed"])
def test_a_mongodb_outage_is_waited_out(
    outage: str, mock_broker: EmbeddedBroker, tmp_path: Path, start: Start
) -> None:
    with EmbeddedMongod(tmp_path / "mongod") as mongod:
        settings = delivery_settings(
            mock_broker.bootstrap,
            mongod.uri,
            "outage",
            mongodb_timeout_ms=1000,
            batch_max_records=200,
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(2000, hosts=60))
        eventually(lambda: processor.metric("gpu_tokens_inserted_total") > 200)
        assert mongod.pid is not None
        if outage == "frozen":
            os.kill(mongod.pid, signal.SIGSTOP)
        else:
            mongod.kill()
        sent |= send(settings, usages(2000, hosts=60))
        eventually(lambda: processor.get("/ready")[0] == 503, what="saying that it is not ready")
        time.sleep(6)  # three sessions: it must stay in the group without a store
        assert processor.get("/health")[0] == 200, "a restart would not help, so it is healthy"
        assert processor.metric("gpu_tokens_store_up") == 0
        assert lag(settings) > 0
        if outage == "frozen":
            os.kill(mongod.pid, signal.SIGCONT)
        else:
            mongod.start()
        eventually(lambda: lag(settings) == 0, 60, "going on")
        assert processor.metric("gpu_tokens_write_retries_total") > 0
        assert processor.metric("gpu_tokens_dead_letters_total") == 0
        assert "lost (" not in processor.text(), "it kept its partitions throughout"
        all_is_stored_once(settings, sent)
        assert processor.stop() == 0


def test_stopping_while_mongodb_is_down_takes_no_longer_than_promised(
    mock_broker: EmbeddedBroker, tmp_path: Path, start: Start
) -> None:
    with EmbeddedMongod(tmp_path / "mongod") as mongod:
        settings = delivery_settings(
            mock_broker.bootstrap, mongod.uri, "outage", mongodb_timeout_ms=1000
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        mongod.kill()
        send(settings, usages(200))
        eventually(lambda: processor.metric("gpu_tokens_write_retries_total") > 0)
        begun = time.monotonic()
        processor.stop()
        assert 15 < time.monotonic() - begun < 30
        assert lag(settings) == 200, "nothing was committed that is not stored"


def test_sigterm_finishes_the_batch_and_a_second_one_ends_at_once(
    settings: Settings, store: Store, start: Start
) -> None:
    seed_offsets(settings)
    processor = start(settings, BATCH_MAX_RECORDS="100").wait_ready()
    sent = send(settings, usages(3000, hosts=60))
    eventually(lambda: processor.metric("gpu_tokens_consumed_total") > 200)
    begun = time.monotonic()
    assert processor.stop() == 0
    assert time.monotonic() - begun < 20
    assert committed(settings) == len(stored(store)), (
        "what was stored was committed: the stop was clean"
    )
    again = start(settings).wait_ready()
    eventually(lambda: lag(settings) == 0)
    assert stored(store).keys() == sent.keys()
    assert again.metric("gpu_tokens_duplicates_total") == 0
    again.signal(signal.SIGTERM)
    time.sleep(0.05)
    again.signal(signal.SIGTERM)
    assert again.wait(10) in (0, -signal.SIGTERM)


def test_records_deleted_before_they_were_read_stop_the_process(
    mock_broker: EmbeddedBroker, settings: Settings, start: Start
) -> None:
    with EventProducer(settings) as producer:
        for number in range(50):  # one batch each: the embedded broker deletes whole batches
            producer.send_raw(b"%d" % number, "vm1")
            producer.flush(10)
    seed_offsets(settings)
    (state,) = [state for state in describe_group(settings) if state.high]
    mock_broker.delete_records(settings.kafka_topic, state.partition, 20)
    processor = start(settings)
    assert processor.wait(60) == 1
    assert (
        f"{settings.kafka_topic}/{state.partition}: the next record to read is no longer in Kafka"
        in processor.text()
    )
    after = {found.partition: found.committed for found in describe_group(settings)}
    assert after[state.partition] == 0, "no offset was moved behind the operator's back"


def test_a_group_without_offsets_stops_with_the_command_to_run(
    settings: Settings, start: Start
) -> None:
    processor = start(settings)
    assert processor.wait(60) == 1
    assert "gpu-tokens topics create" in processor.text()


def test_bad_records_stop_nobody_however_many_they_are(
    settings: Settings, store: Store, start: Start
) -> None:
    seed_offsets(settings)
    sent = send(settings, usages(500))
    processor = start(settings).wait_ready()
    eventually(lambda: lag(settings) == 0)
    with EventProducer(settings) as producer:
        for number in range(3000):
            producer.send_raw(b"not json %d" % number, "vm1")
    sent |= send(settings, usages(500))  # of somebody else, behind the bad ones
    eventually(lambda: lag(settings) == 0)
    eventually(lambda: stored(store).keys() == sent.keys())
    assert len({letter.value for letter in read_dead_letters(settings)}) == 3000
    assert "of the last 1,000 records are bad" in processor.text()
    assert processor.stop() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mongodb_uri": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"},
            "check MONGODB_URI",
        ),
        ({"kafka_bootstrap": "127.0.0.1:9"}, "check KAFKA_BOOTSTRAP"),
        ({"kafka_topic": "nowhere"}, "gpu-tokens topics create"),
        ({"kafka_extra_config": {"auto.offset.reset": "latest"}}, "auto.offset.reset"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    changes: dict[str, object], message: str, settings: Settings, start: Start
) -> None:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    processor = start(Settings(**{**given, **changes}))
    assert processor.wait(60) in (1, 2)
    last = processor.text().strip().splitlines()[-1]
    assert last.startswith("gpu-tokens: ")
    assert message in last
    assert "Traceback" not in processor.text()


def test_the_agent_beside_the_processor_sends_through_kafka(
    settings: Settings, start: Start, tmp_path: Path
) -> None:
    seed_offsets(settings)
    seed = [
        {
            "gpu_index": 0,
            "name": "A100",
            "utilization": 0.4,
            "mem_used_mb": 1,
            "mem_total_mb": 2,
            "power_w": 300.0,
        }
    ]
    (tmp_path / "gpu_seed.json").write_text(json.dumps(seed))
    processor = start(
        settings,
        GPU_METRICS_SOURCE="seed",
        GPU_SEED_FILE=str(tmp_path / "gpu_seed.json"),
        HOST_NAME="vm3",
        SAMPLE_INTERVAL_SECONDS="0.5",
    ).wait_ready()
    eventually(lambda: processor.metric("gpu_tokens_inserted_total", collection="gpu_metrics") >= 3)
    status, body = processor.get("/gpu/info")
    assert status == 200
    (gpu,) = json.loads(body)
    assert gpu["host"] == "vm3"
    assert gpu["power_w"] == 300.0
    assert gpu["temperature_c"] is None, "unknown stays unknown"
    assert 0 <= gpu["age_seconds"] < 10
    assert sum(state.high for state in describe_group(settings)) >= 3, (
        "the samples are in the topic"
    )
    assert processor.stop() == 0
