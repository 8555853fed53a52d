"""A real Kafka of both supported lines, from Maven's jars: it starts, keeps records across kill -9,
and asks for passwords."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, REFERENCE_VERSION, KafkaBroker
from gpu_token_analytics.errors import EmbeddedServiceError

pytestmark = pytest.mark.kafka
both_lines = pytest.mark.parametrize("version", [REFERENCE_VERSION, CURRENT_VERSION])


@pytest.fixture
def folder(tmp_path: Path, keep_log: Callable[[Path], None], java: str) -> Path:
    keep_log(tmp_path / "kafka" / "kafka.log")
    return tmp_path / "kafka"


def quiet(config: dict[str, Any]) -> dict[str, Any]:
    """Clients whose broker is killed on purpose need not say so twice a second."""
    return {"log_level": 0, **config}


def create(bootstrap: str, topic: str, **config: Any) -> None:
    admin = AdminClient(quiet({"bootstrap.servers": bootstrap, **config}))
    admin.create_topics([NewTopic(topic, 12, 1)])[topic].result(30)


def produce(bootstrap: str, topic: str, values: range, **config: Any) -> None:
    producer = Producer(
        quiet({"bootstrap.servers": bootstrap, "enable.idempotence": True, **config})
    )
    for value in values:
        producer.produce(topic, key=f"host-{value % 40}", value=str(value))
    assert producer.flush(30) == 0


def read_all(bootstrap: str, topic: str, count: int, **config: Any) -> list[int]:
    consumer = Consumer(
        quiet(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "g",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                **config,
            }
        )
    )
    consumer.subscribe([topic])
    found: list[int] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, 0.5):
            assert message.error() is None, message.error()
            found.append(int(message.value() or b""))
    consumer.close()
    return sorted(found)


@both_lines
def test_records_survive_kill_9_and_the_address_stays(version: str, folder: Path) -> None:
    with KafkaBroker(version, folder) as broker:
        address = broker.bootstrap
        create(address, "tokens")
        produce(address, "tokens", range(1000))
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert broker.bootstrap == address
        produce(address, "tokens", range(1000, 1200))
        assert read_all(address, "tokens", 1200) == list(range(1200))
    # Another object, other ports, the same folder.
    with KafkaBroker(version, folder) as again:
        admin = AdminClient(quiet({"bootstrap.servers": again.bootstrap}))
        assert len(admin.list_topics(timeout=20).topics["tokens"].partitions) == 12
        assert read_all(again.bootstrap, "tokens", 1200, **{"group.id": "another"}) == list(
            range(1200)
        )


def test_unknown_topics_are_not_created(kafka: KafkaBroker) -> None:
    producer = Producer(quiet({"bootstrap.servers": kafka.bootstrap, "message.timeout.ms": 5000}))
    errors: list[KafkaError | None] = []
    producer.produce("tokenz", value=b"x", on_delivery=lambda error, _message: errors.append(error))
    producer.flush(20)
    assert errors
    assert errors[0] is not None
    assert errors[0].code() in (
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._MSG_TIMED_OUT,
    )
    assert (
        "tokenz"
        not in AdminClient(quiet({"bootstrap.servers": kafka.bootstrap}))
        .list_topics(timeout=10)
        .topics
    )


@both_lines
def test_sasl_lets_in_who_knows_the_password(version: str, folder: Path) -> None:
    password = 'pä"ss\\ wörd'  # every escape between here and the broker's JAAS parser
    known = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "app",
        "sasl.password": password,
    }
    with KafkaBroker(
        version, folder, sasl_users={"admin": "admin-secret", "app": password}
    ) as broker:
        create(broker.bootstrap, "tokens", **known)
        produce(broker.bootstrap, "tokens", range(20), **known)
        assert read_all(broker.bootstrap, "tokens", 20, **known) == list(range(20))
        for refused in ({**known, "sasl.password": "wrong"}, {}):
            admin = AdminClient(quiet({"bootstrap.servers": broker.bootstrap, **refused}))
            with pytest.raises(KafkaException):
                admin.list_topics(timeout=3)


def test_a_port_that_is_taken_is_named(kafka: KafkaBroker, folder: Path) -> None:
    with pytest.raises(EmbeddedServiceError, match="Address already in use"):
        KafkaBroker(kafka.version, folder, port=kafka.port).start()


def test_the_command_prints_its_address_and_stops_on_sigterm(folder: Path) -> None:
    command = (
        "import typer; from gpu_token_analytics.embedded.commands import kafka; typer.run(kafka)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            create(address, "tokens")
            produce(address, "tokens", range(10))
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 0
    assert f"Kafka {CURRENT_VERSION} runs in {folder}" in said
    pid = int(said.partition("pid ")[2].partition(")")[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "shut down completed" in (folder / "kafka.log").read_text()
