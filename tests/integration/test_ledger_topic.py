"""The ledger's topic on real Kafka and MongoDB: the newest revision of every cell, whatever dies,
never an older one last."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import jsonschema  # type: ignore[import-untyped]
import pytest

# the warehouse's side, which is not the product's
from confluent_kafka import Consumer, TopicPartition
from tests.integration.delivery_support import (
    ROOT,
    Processor,
    delivery_settings,
    environment_of,
    eventually,
    run_with,
    send,
    usages,
)
from tests.integration.ledger_support import (
    MINUTE,
    Pipeline,
    fleet_events,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.kafka.ledger_topic import LedgerTopic
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.warehouse import outbox as outbox_module
from gpu_token_analytics.warehouse.outbox import Outbox
from gpu_token_analytics.warehouse.publish import Publisher, PublishStage
from gpu_token_analytics.warehouse.record import json_schema

pytestmark = pytest.mark.kafka

MakePipeline = Callable[..., Pipeline]
Records = list[dict[str, Any]]

AT = minutes_ago(30) + timedelta(seconds=50)
BUSY = f"{AT:%Y-%m-%dT%H:%M:00Z}"


@pytest.fixture
def one(kafka: KafkaBroker, pipeline: MakePipeline) -> Pipeline:
    """A pipeline whose changed cells are to be sent, and the topic for them, switched on before
    there is any."""
    made = of_topics(kafka, pipeline, ledger_topic=f"ledger-{uuid.uuid4().hex[:8]}")
    publish(made)
    return made


def of_topics(kafka: KafkaBroker, pipeline: MakePipeline, ledger_topic: str) -> Pipeline:
    topic = f"tokens-{uuid.uuid4().hex[:8]}"
    made = pipeline(
        kafka_bootstrap=kafka.bootstrap,
        kafka_topic=topic,
        kafka_group=topic,
        kafka_partitions=3,
        ledger_topic=ledger_topic,
        silent_gpu_owned_minutes=0,
    )
    create_topics(made.settings)
    return made


def publisher(
    one: Pipeline, checkpoint: Callable[[PublishStage], None] = lambda _step: None
) -> Publisher:
    return Publisher(Outbox(one.store), LedgerTopic(one.settings), one.metrics, checkpoint)


def publish(one: Pipeline) -> None:
    """Until nothing is to be sent, by a process that starts now."""
    sending = publisher(one)
    while sending.step():
        pass
    sending.close()


def lease_runs_out(store: Store) -> None:
    """As if 31 s had passed."""
    store[Collection.LEDGER_TOPIC].update_one(
        {"_id": "lead"}, {"$set": {"until": store.now() - timedelta(seconds=1)}}
    )


def reader(settings: Settings, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )


def ends(settings: Settings) -> dict[int, int]:
    """Of each partition the offset after its last record, whether its transaction is over or
    not."""
    name, consumer = settings.ledger_topic, reader(settings, "read_uncommitted")
    try:
        partitions = consumer.list_topics(name, timeout=15).topics[name].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(name, number), timeout=15)[1]
            for number in partitions
        }
    finally:
        consumer.close()


def committed(settings: Settings) -> Records:
    """All that a reader sees, in order of each partition."""
    # Kafka tells the writer that a transaction is committed before every partition has it: a
    # reader of what is committed may come to an end before these records.
    left = ends(settings)
    consumer = reader(settings, "read_committed")
    try:
        consumer.assign([TopicPartition(settings.ledger_topic, number, 0) for number in left])
        found = []
        until = time.monotonic() + 60
        while left and time.monotonic() < until:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is not None:
                assert error.name() == "_PARTITION_EOF", error
                number = message.partition() or 0
                if (message.offset() or 0) >= left.get(number, 0):
                    left.pop(number, None)
                continue
            found.append(
                {"key": (message.key() or b"").decode(), **json.loads(message.value() or b"")}
            )
        assert not left, "the end of these partitions was not reached"
        return found
    finally:
        consumer.close()


def last_of_each_key(records: Records) -> dict[str, dict[str, Any]]:
    """What compaction leaves."""
    return {record["key"]: record for record in records}


def assert_topic_is_the_ledger(store: Store, settings: Settings) -> Records:
    records = committed(settings)
    last = last_of_each_key(records)
    cells = list(store[Collection.LEDGER_CELLS].find({"revision": {"$gt": 0}}))
    assert {record["cell"]: record["revision"] for record in last.values()} == {
        c["_id"]: c["revision"] for c in cells
    }
    for cell in cells:
        record = last[cell["_id"]]
        same = (
            "gpu",
            "host",
            "cost_nusd",
            "classes",
            "class_us",
            "owned_us",
            "energy_mj",
            "price",
            "samples",
            "params",
        )
        assert {name: record[name] for name in same} == {name: cell[name] for name in same}
        money = [
            (line["model"], line["tenant"], line["cost_nusd"], line["requests"])
            for line in record["lines"]
        ]
        assert money == [
            (line["model"], line["tenant"], line["cost_nusd"], line["requests"])
            for line in cell["lines"]
        ]
    assert store[Collection.LEDGER_CELLS].count_documents({"unsent": True}) == 0
    return records


def test_every_cell_and_every_correction_comes_once(one: Pipeline) -> None:
    one.ingest(fleet_events())
    one.close()
    publish(one)
    first = assert_topic_is_the_ledger(one.store, one.settings)
    assert len(first) == len(one.cells()) > 30
    for record in first:
        jsonschema.validate(
            {name: value for name, value in record.items() if name != "key"}, json_schema()
        )
    publish(one)
    assert len(committed(one.settings)) == len(first), "nothing changed, so nothing is sent"

    one.store[Collection.LEDGER_CELLS].update_many({}, {"$set": {"state": "final"}})
    gpu = next(iter(one.cells().values()))["gpu"]
    late = usage(
        9_000,
        minutes_ago(60) + timedelta(seconds=110),
        gpu_uuids=[gpu],
        host=gpu.split("/")[0],
        model="late",
    )
    one.ingest([late])
    one.close()
    publish(one)
    added = [
        record
        for record in assert_topic_is_the_ledger(one.store, one.settings)
        if record["revision"] > 1
    ]
    assert 1 <= len(added) <= 3
    assert {record["corrections"] for record in added} == {1}
    assert {line["model"] for record in added for line in record["lines"]} >= {"late"}


def test_a_minute_that_is_not_over_waits(one: Pipeline) -> None:
    one.declare()
    now = one.store.now()
    one.ingest([usage(1, now, 1.0), usage(2, now - 5 * MINUTE)])
    one.close()
    publish(one)
    minutes = {record["minute"] for record in committed(one.settings)}
    assert minutes
    assert f"{now:%Y-%m-%dT%H:%M:00Z}" not in minutes
    assert one.store[Collection.LEDGER_CELLS].count_documents({"unsent": True}) >= 1


_DYING = """
import os, signal, sys, threading
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.kafka.ledger_topic import LedgerTopic
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.settings import load
from gpu_token_analytics.warehouse.outbox import Outbox
from gpu_token_analytics.warehouse.publish import Publisher

def die(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

settings = load()
publisher = Publisher(Outbox(open_store(settings)), LedgerTopic(settings), Metrics(), die)
publisher.run(threading.Event(), SystemClock())
"""


@pytest.mark.parametrize("step", list(PublishStage))
def test_killed_between_any_two_steps_it_loses_nothing(one: Pipeline, step: PublishStage) -> None:
    one.ingest(fleet_events())
    one.close()
    dead = run_with(one.settings, [sys.executable, "-c", _DYING, step.value])
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    sending = publisher(one)
    assert sending.step() == 0, "the dead one leads until its lease has run out"
    lease_runs_out(one.store)
    publish(one)
    records = assert_topic_is_the_ledger(one.store, one.settings)
    twice = len(records) - len(last_of_each_key(records))
    assert twice == (len(one.cells()) if step is PublishStage.COMMITTED else 0)
    assert len({json.dumps(record, sort_keys=True) for record in records}) == len(one.cells()), (
        "sent twice is the same twice"
    )


def test_a_writer_that_wakes_up_late_writes_no_older_revision(one: Pipeline) -> None:
    """It read revision 1, hung, and another process sent revision 2: what it still sends is
    refused."""
    one.declare()
    one.ingest([usage(1, AT)])
    one.close()

    def meanwhile(step: PublishStage) -> None:
        if step is PublishStage.SENT:
            one.ingest([usage(2, AT + timedelta(seconds=5))])
            one.close()
            lease_runs_out(one.store)
            publish(one)

    late = publisher(one, meanwhile)
    with pytest.raises(KafkaError):
        late.step()
    records = assert_topic_is_the_ledger(one.store, one.settings)
    assert [record["revision"] for record in records if record["minute"] == BUSY] == [2]
    assert late.step() == 0, "it goes on, and has nothing to send"


def test_a_cell_that_changes_while_it_is_sent_is_sent_again(one: Pipeline) -> None:
    one.declare()
    one.ingest([usage(1, AT)])
    one.close()

    def meanwhile(step: PublishStage) -> None:
        if step is PublishStage.COMMITTED and not changed:
            changed.append(step)
            one.ingest([usage(2, AT + timedelta(seconds=5))])
            one.close()

    changed: list[PublishStage] = []

    sending = publisher(one, meanwhile)
    while sending.step():
        pass
    records = assert_topic_is_the_ledger(one.store, one.settings)
    assert [record["revision"] for record in records if record["minute"] == BUSY] == [1, 2]


def test_cells_from_before_it_was_switched_on_are_swept_and_a_stopped_sweep_goes_on(
    kafka: KafkaBroker, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = of_topics(kafka, pipeline, ledger_topic="")
    one.ingest(fleet_events())
    one.close()
    assert one.store[Collection.LEDGER_CELLS].count_documents({"unsent": {"$exists": True}}) == 0
    topic = f"ledger-{uuid.uuid4().hex[:8]}"
    switched_on = one.settings.model_copy(update={"ledger_topic": topic})
    one.settings = switched_on
    create_topics(switched_on)
    monkeypatch.setattr(outbox_module, "SWEPT_AT_ONCE", 7)
    pages = []
    for _ in range(3):  # three processes, each of which ends after a page
        sending = publisher(one)
        pages.append(sending.step())
        sending.step()
        sending.close()
    assert pages == [7, 7, 7]
    assert len(committed(switched_on)) == 21
    publish(one)
    assert len(assert_topic_is_the_ledger(one.store, switched_on)) == len(one.cells()), (
        "no page was sent twice"
    )

    Outbox(one.store).forget()  # a processor started without a topic, or `topics resend-ledger`
    one.settings = one.settings.model_copy(update={"ledger_topic": ""})
    one.ingest([sample(1, minutes_ago(50), gpu_uuid="GPU-new")])
    one.close()
    one.settings = switched_on
    publish(one)
    assert_topic_is_the_ledger(one.store, switched_on)


@pytest.fixture
def settings(kafka: KafkaBroker, mongo_uri: str, mongo_database: str) -> Settings:
    topic = f"tokens-{uuid.uuid4().hex[:8]}"
    return delivery_settings(
        kafka.bootstrap,
        mongo_uri,
        mongo_database,
        kafka_topic=topic,
        kafka_group=topic,
        ledger_topic=f"{topic}-ledger",
        # a real broker takes no less
        kafka_extra_config={"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"},
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings)
    yield found
    found.close()


def test_a_processor_killed_again_and_again_leaves_a_topic_that_is_the_ledger(
    settings: Settings, store: Store, start: Callable[[Settings], Processor]
) -> None:
    create_topics(settings)
    cells = store[Collection.LEDGER_CELLS]
    for _ in range(3):
        send(settings, usages(400, hosts=12))
        begun = store.now()
        processor = start(settings)
        # written; perhaps sent, perhaps not
        eventually(partial(cells.find_one, {"computed_at": {"$gte": begun}}), 60)
        processor.process.kill()
        processor.process.wait(10)
        lease_runs_out(store)
    processor = start(settings).wait_ready()
    eventually(
        lambda: (
            cells.count_documents({"due_at": {"$exists": True}}) == 0
            and cells.count_documents({"unsent": True}) == 0
        ),
        90,
    )
    assert processor.metric("gpu_tokens_ledger_topic_lag_seconds") >= 0
    assert processor.stop() == 0
    assert (
        len(assert_topic_is_the_ledger(store, settings))
        >= cells.count_documents({"revision": {"$gt": 0}})
        > 10
    )
    assert store[Collection.LEDGER_TOPIC].find_one({"_id": "lead"}) is None, (
        "one that stops gives the lead back"
    )


def test_the_loader_of_the_page_loads_the_ledger_and_its_corrections(
    one: Pipeline, tmp_path: Path
) -> None:
    (loader,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "warehouse.md").read_text(), re.DOTALL
    )
    loader = loader.replace("timeout=20", "timeout=8")
    file = tmp_path / "warehouse.duckdb"
    environment = {**os.environ, **environment_of(one.settings)}

    def load() -> None:
        program = [sys.executable, "-c", loader, str(file)]
        subprocess.run(program, env=environment, cwd=tmp_path, timeout=120, check=True)

    def in_warehouse() -> tuple[dict[str, int], int, int]:
        with duckdb.connect(str(file)) as warehouse:
            cells = dict(warehouse.execute("SELECT cell, cost_nusd FROM ledger_cells").fetchall())
            ((money, lines),) = warehouse.execute(
                "SELECT sum(cost_nusd), count(*) FROM ledger_lines"
            ).fetchall()
        return cells, int(money), lines

    def in_ledger() -> tuple[dict[str, int], int, int]:
        cells = {cell["_id"]: cell for cell in one.cells().values() if cell["revision"]}
        money = sum(cell["classes"]["attributed"] for cell in cells.values())
        lines = sum(len(cell["lines"]) for cell in cells.values())
        return {name: cell["cost_nusd"] for name, cell in cells.items()}, money, lines

    one.ingest(fleet_events())
    one.close()
    publish(one)
    load()
    assert in_warehouse() == in_ledger()
    before = in_ledger()
    gpu = next(iter(one.cells().values()))["gpu"]
    one.ingest(
        [
            usage(
                9_000,
                minutes_ago(60) + timedelta(seconds=110),
                gpu_uuids=[gpu],
                host=gpu.split("/")[0],
                model="late",
            )
        ]
    )
    one.close()
    publish(one)
    load()
    assert in_warehouse() == in_ledger() != before
