"""What needs a real broker: rights on the dead-letter topic, its limits, and a log that lost its
end."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# ACLs and topic settings are the operator's.
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from tests.integration.delivery_support import (
    Start,
    all_is_stored,
    delivery_settings,
    eventually,
    lag,
    send,
    usages,
)

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics, describe_group
from gpu_token_analytics.settings import Settings

pytestmark = pytest.mark.kafka

SESSION = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}


def settings_of(broker: KafkaBroker, mongo_uri: str, database: str, **more: Any) -> Settings:
    topic = f"tokens-{uuid.uuid4().hex[:8]}"
    return delivery_settings(
        broker.bootstrap,
        mongo_uri,
        database,
        kafka_topic=topic,
        kafka_group=topic,
        kafka_extra_config=SESSION,
        bad_record_limit_ratio=1.0,
        **more,
    )


def send_bad(settings: Settings, values: list[bytes]) -> None:
    with EventProducer(settings) as producer:
        for number, value in enumerate(values):
            producer.send_raw(value, f"vm{number}")


class GuardedBroker(KafkaBroker):
    """One that asks its ACLs; who has none against him may do everything."""

    def _write_properties(self) -> None:
        super()._write_properties()
        more = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # the controller's own listener has no logins
            "super.users": "User:admin;User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
        }
        with self._properties_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in more.items())


@pytest.fixture
def guarded(java: str, tmp_path: Path, keep_log: Callable[[Path], None]) -> Iterator[KafkaBroker]:
    users = {"admin": "a", "processor": "p"}
    broker = GuardedBroker(CURRENT_VERSION, tmp_path / "guarded", sasl_users=users)
    keep_log(broker.log_file)
    with broker:
        yield broker


def test_a_dead_letter_topic_it_may_not_write_to_stops_it(
    guarded: KafkaBroker, mongo_uri: str, mongo_database: str, start: Start
) -> None:
    login = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN"}
    admin_login = login | {"kafka_sasl_username": "admin", "kafka_sasl_password": "a"}
    admin_settings = settings_of(guarded, mongo_uri, mongo_database, **admin_login)
    names = {"kafka_topic": admin_settings.kafka_topic, "kafka_group": admin_settings.kafka_group}
    own_login = login | {"kafka_sasl_username": "processor", "kafka_sasl_password": "p"}
    settings = delivery_settings(
        guarded.bootstrap,
        mongo_uri,
        mongo_database,
        kafka_extra_config=SESSION,
        **names,
        **own_login,
    )
    create_topics(admin_settings)
    admin = AdminClient(
        {
            "bootstrap.servers": guarded.bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "a",
        }
    )
    processor = start(settings).wait_ready()
    sent = send(admin_settings, usages(200, hosts=60))
    eventually(lambda: lag(admin_settings) == 0)
    denial = AclBinding(
        ResourceType.TOPIC,
        settings.dlq_topic,
        ResourcePatternType.LITERAL,
        "User:processor",
        "*",
        AclOperation.WRITE,
        AclPermissionType.DENY,
    )
    for future in admin.create_acls([denial]).values():
        future.result(30)
    send_bad(admin_settings, [b"not json"])
    assert processor.wait(90) == 1, "an operator has to act, and sees it"
    last = processor.text().strip().splitlines()[-1]
    assert last.startswith("gpu-tokens: "), last
    assert f"{settings.dlq_topic}: " in last, last
    assert "TOPIC_AUTHORIZATION_FAILED" in last, last
    assert lag(admin_settings) == 1, "no commit past a record that is nowhere yet"
    for deletion in admin.delete_acls([denial_filter(denial)]).values():
        deletion.result(30)
    again = start(settings).wait_ready()
    sent |= send(admin_settings, usages(200, hosts=60))
    eventually(lambda: lag(admin_settings) == 0, 90, "going on")
    assert [letter.value for letter in read_dead_letters(admin_settings)] == [b"not json"]
    all_is_stored(admin_settings, sent)
    assert again.stop() == 0


def denial_filter(acl: AclBinding) -> Any:
    return AclBindingFilter(
        acl.restype,
        acl.name,
        acl.resource_pattern_type,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
    )


@pytest.mark.parametrize("most_bytes", [20_000, 700])
def test_a_record_too_large_for_the_dead_letter_topic_is_cut_and_holds_nobody_up(
    most_bytes: int, kafka: KafkaBroker, mongo_uri: str, mongo_database: str, start: Start
) -> None:
    """Somebody made the topic with a small limit; one sender's record must not stop everybody's for
    ever."""
    settings = settings_of(kafka, mongo_uri, mongo_database)
    create_topics(settings)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    entry = ConfigEntry(
        "max.message.bytes", str(most_bytes), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, settings.dlq_topic, incremental_configs=[entry]
    )
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    processor = start(settings).wait_ready()
    sent = send(settings, usages(100, hosts=60))
    # Random digits compress to a half. Not from the first on: 99590689918e4115 would be a number,
    # out of range.
    noise = b"x" + b"".join(uuid.uuid4().hex.encode() for _ in range(1500))[1:]
    assert len(noise) == 48_000
    send_bad(settings, [b"short", noise])
    sent |= send(settings, usages(100, hosts=60))
    eventually(lambda: lag(settings) == 0, 60, "going on")
    letters = sorted(read_dead_letters(settings), key=lambda letter: letter.cut_from_bytes or 0)
    assert [letter.cut_from_bytes for letter in letters] == [None, len(noise)]
    assert letters[0].value == b"short"
    assert noise.startswith(letters[1].value or b"")
    assert {letter.reason for letter in letters} == {"not_json"}
    all_is_stored(settings, sent)
    assert processor.stop() == 0


def test_a_log_that_lost_its_end_stops_it(
    java: str,
    tmp_path: Path,
    mongo_uri: str,
    mongo_database: str,
    start: Start,
    keep_log: Callable[[Path], None],
) -> None:
    """What an unclean leader leaves: acknowledged records gone, offsets given a second time. It
    must not read on as if nothing had been."""
    with KafkaBroker(CURRENT_VERSION, tmp_path / "kafka") as broker:
        keep_log(broker.log_file)
        settings = settings_of(broker, mongo_uri, mongo_database)
        create_topics(settings)
        first = start(settings).wait_ready()
        send(settings, usages(600, hosts=60))
        eventually(lambda: lag(settings) == 0)
        assert first.stop() == 0
        broker.stop()
        data = broker.folder / "data"
        behind = tmp_path / "behind"
        partitions = sorted(data.glob(f"{settings.kafka_topic}-[0-9]*"))
        assert len(partitions) == 12
        for folder in partitions:
            shutil.copytree(folder, behind / folder.name)
        broker.start()
        second = start(settings).wait_ready()
        send(settings, usages(6000, hosts=60))
        eventually(lambda: lag(settings) == 0)
        assert second.stop() == 0
        committed = {state.partition: state.committed for state in describe_group(settings)}
        broker.stop()
        for folder in partitions:
            shutil.rmtree(folder)
            shutil.copytree(behind / folder.name, folder)
        broker.start()
        ends = {state.partition: state.high for state in describe_group(settings)}
        assert all(ends[number] < (committed[number] or 0) for number in ends), (
            "the log lost its end"
        )
        send(settings, usages(60, hosts=60))
        third = start(settings)
        assert third.wait(90) == 1
        assert "the next record to read is no longer in Kafka" in third.text()
        after = {state.partition: state.committed for state in describe_group(settings)}
        assert after == committed, "no offset was moved behind the operator's back"
