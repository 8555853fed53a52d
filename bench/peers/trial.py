"""One contestant's process, topic and database; all of it is gone when the trial is over."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers.contestants import Contestant, Kind
from bench.peers.world import World, until
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.child import ChildServer, free_port
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

PROGRAMS = Path(__file__).parent / "programs"
_RAW = (USAGE.collection, SAMPLE.collection)
_NEVER_SECONDS, _SOON_SECONDS = 3600.0, 0.2
_START_SECONDS = 120


@dataclass(frozen=True)
class Installed:
    """Where the peers are."""

    jars: Path
    quix_python: Path


class Ended(Exception):
    """The contestant's process is gone; the text is the end of its log."""


class Trial:
    """session_ms: how long the group waits for a member that died. tolerant: bad records are to be
    survived, where the contestant has a setting for it.
    """

    def __init__(
        self,
        world: World,
        who: Contestant,
        peers: Installed,
        *,
        session_ms: int,
        tolerant: bool = False,
    ) -> None:
        self.world, self.who, self.tolerant = world, who, tolerant
        self._peers, self._session_ms = peers, session_ms
        self.topic = self.database = world.fresh_name()
        self.group = f"connect-{self.topic}" if who.kind is Kind.CONNECT else f"group-{self.topic}"
        self.store: Store | None = None
        self.settings: Settings | None = None
        self._rest = f"http://127.0.0.1:{free_port()}"
        self._folder = world.folder / self.topic
        self._folder.mkdir()
        self._server = ChildServer(who.name, self._folder / "log")
        world.make_topic(self.topic)
        if who.kind in (Kind.PRODUCT, Kind.LIMIT):
            self._prepare_product()
        else:
            self._prepare_peer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(15)
        if self.store is not None:
            self.store.close()
        self.world.client.drop_database(self.database)
        self.world.drop_topics([self.topic, self.dead_letter_topic])
        shutil.rmtree(self._folder)

    # its process

    def start(self) -> None:
        """Start it, and return at once."""
        command, more = getattr(self, f"_{self.who.kind}")()
        self._server.start(command, lambda _log: True, 30, env={**os.environ, **more})

    def ready(self) -> None:
        """Wait until its group has all partitions. Raises Ended."""
        until(
            lambda: self.alive_or_raise() and self.world.owns_all(self.group, self.topic),
            _START_SECONDS,
            "joining",
        )

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    @property
    def pid(self) -> int | None:
        """Of its process, while it runs."""
        return self._server.pid

    def alive_or_raise(self) -> bool:
        """True. Raises Ended."""
        if self._server.pid is None:
            raise Ended(self._server.log_tail())
        return True

    def failed_task(self) -> bool:
        """Whether Kafka Connect's task is dead while its process runs."""
        if self.who.kind is not Kind.CONNECT or self._server.pid is None:
            return False
        with urllib.request.urlopen(
            f"{self._rest}/connectors/{self.topic}/status", timeout=10
        ) as answer:
            return any(task["state"] == "FAILED" for task in json.load(answer)["tasks"])

    # what became of the records

    @property
    def dead_letter_topic(self) -> str:
        """Where bad records go, if they go anywhere."""
        return f"{self.topic}.dlq"

    @property
    def _collections(self) -> tuple[str, ...]:
        return _RAW if self.settings is not None else ("events",)

    def stored(self) -> int:
        """Documents."""
        database = self.world.client[self.database]
        return sum(database[name].estimated_document_count() for name in self._collections)

    def due(self) -> int:
        """Cells of the ledger that are to be computed."""
        return 0 if self.store is None else LedgerStore(self.store).cells.count_due()

    def lost_and_doubled(self, sent: set[str]) -> tuple[int, int]:
        """Event ids that are nowhere, and documents too many."""
        documents, ids = 0, set()
        for name in self._collections:
            for document in self.world.client[self.database][name].find({}, {"event_id": 1}):
                documents += 1
                ids.add(event_id_of(document))
        return len(sent - ids), documents - len(ids)

    # how it is set up

    def _prepare_product(self) -> None:
        self.settings = load(
            mongodb_uri=self.world.uri,
            mongodb_database=self.database,
            kafka_bootstrap=self.world.broker.bootstrap,
            kafka_topic=self.topic,
            kafka_group=self.group,
            close_debounce_seconds=_SOON_SECONDS if self.who.ledger else _NEVER_SECONDS,
            # the events are of the past: silence up to today is not what is measured
            silent_gpu_owned_minutes=0,
            log_level="WARNING",
        )
        self.store = open_store(self.settings, "peers")
        ensure_indexes(self.store, self.settings)
        if self.who.kind is Kind.PRODUCT:
            create_topics(self.settings)

    def _prepare_peer(self) -> None:
        """As many index entries per document as the product's raw collections have, over the JSON's
        own fields."""
        events = self.world.client[self.database].create_collection("events")
        usage, sample = {"schema": "token.usage.v1"}, {"schema": "gpu.metrics.v1"}
        events.create_index([("gpu_uuids", 1), ("ts", 1)], partialFilterExpression=usage)
        events.create_index("request_id", partialFilterExpression=usage)
        events.create_index([("gpu_uuid", 1), ("ts", 1)], partialFilterExpression=sample)
        events.create_index("ts")  # stands for the index of retention

    def _product(self) -> tuple[list[str], dict[str, str]]:
        assert self.settings is not None
        return [sys.executable, "-m", "gpu_token_analytics", "processor"], {
            "KAFKA_BOOTSTRAP": self.world.broker.bootstrap,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP": self.group,
            "KAFKA_EXTRA_CONFIG": json.dumps(
                {"session.timeout.ms": str(min(self._session_ms, 15_000))}
            ),
            "MONGODB_URI": self.world.uri,
            "MONGODB_DATABASE": self.database,
            "CLOSE_DEBOUNCE_SECONDS": str(self.settings.close_debounce_seconds),
            "SILENT_GPU_OWNED_MINUTES": "0",
            "LOG_LEVEL": "WARNING",
            "HTTP_PORT": str(free_port()),
        }

    def _tutorial(self) -> tuple[list[str], dict[str, str]]:
        command = [
            sys.executable,
            str(PROGRAMS / "tutorial.py"),
            self.who.options["mode"],
            self.world.broker.bootstrap,
        ]
        return [
            *command,
            self.topic,
            self.group,
            self.world.uri,
            self.database,
            str(self._session_ms),
        ], {}

    def _quix(self) -> tuple[list[str], dict[str, str]]:
        command = [str(self._peers.quix_python), "-W", "ignore", str(PROGRAMS / "quix_app.py")]
        command += [
            self.world.broker.bootstrap,
            self.topic,
            self.group,
            str(self.world.mongod.port),
            self.database,
        ]
        return [
            *command,
            str(self._session_ms),
            "8000",
            "1.0",
            "skip" if self.tolerant else "raise",
        ], {"Quix__State__Dir": str(self._folder / "state")}

    def _connect(self) -> tuple[list[str], dict[str, str]]:
        worker = {
            "bootstrap.servers": self.world.broker.bootstrap,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter.schemas.enable": "false",
            "offset.storage.file.filename": str(self._folder / "offsets"),
            "offset.flush.interval.ms": "10000",
            "listeners": self._rest,
            "connector.client.config.override.policy": "All",
            "plugin.discovery": "only_scan",
        }
        sink = {
            "name": self.topic,
            "connector.class": "com.mongodb.kafka.connect.MongoSinkConnector",
            "tasks.max": "1",
            "topics": self.topic,
            "connection.uri": self.world.uri,
            "database": self.database,
            "collection": "events",
            "consumer.override.session.timeout.ms": str(self._session_ms),
            "consumer.override.auto.offset.reset": "earliest",
            **self.who.options,
        }
        if self.tolerant:
            sink |= {
                "errors.tolerance": "all",
                "mongo.errors.tolerance": "data",
                "errors.deadletterqueue.topic.name": self.dead_letter_topic,
                "errors.deadletterqueue.topic.replication.factor": "1",
                "errors.deadletterqueue.context.headers.enable": "true",
            }
        files = []
        for name, values in (("worker.properties", worker), ("sink.properties", sink)):
            (self._folder / name).write_text(
                "".join(f"{key}={value}\n" for key, value in values.items())
            )
            files.append(str(self._folder / name))
        # Heap and collector as bin/connect-standalone.sh sets them.
        java = shutil.which("java")
        assert java is not None, "the broker runs, so there is a java"
        options = ["-Xms256M", "-Xmx2G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]
        options += [
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
            "-Djava.awt.headless=true",
        ]
        options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self._peers.jars}/*"]
        return [java, *options, "org.apache.kafka.connect.cli.ConnectStandalone", *files], {}
