"""What the demo runs on: brokers and databases of its own, or those that are set, and the product's
processes.

Kafka     KAFKA_BOOTSTRAP where it is set, else librdkafka's mock cluster inside this process (in
          memory)
MongoDB   MONGODB_URI where it is set, else a real mongod over the data folder
processor, api   their own processes, as everywhere else, with their logs in the data folder
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.embedded.broker import SAFE_UNREAD_BYTES, EmbeddedBroker
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.errors import DemoFailed
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics, describe_group, seed_offsets
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.kind import Event, encode

STOP_SECONDS = 20.0
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Process:
    """One of the product's processes."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path
    url: str

    def check(self) -> None:
        """Raises DemoFailed with the end of its log when it has ended."""
        code = self.child.poll()
        if code is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise DemoFailed(
                f"the {self.name} ended with exit code {code}; the end of {self.log}:\n{tail}"
            )

    def answers(self, path: str) -> bool:
        """Whether an HTTP path answers 200."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False


class Services:
    """Everything the demo started; leaving the context stops it in reverse order."""

    def __init__(self, folder: Path, base: Settings, overrides: Mapping[str, str]) -> None:
        self._folder, self._base, self._overrides = folder, base, dict(overrides)
        self._stack = ExitStack()
        self.embedded_kafka = "kafka_bootstrap" not in base.model_fields_set
        self.embedded_mongodb = "mongodb_uri" not in base.model_fields_set
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def start(self) -> Settings:
        """Start Kafka and MongoDB where needed, create the topics. Returns the settings all
        processes share."""
        started = dict(self._overrides)
        if self.embedded_mongodb:
            mongod = self._stack.enter_context(EmbeddedMongod(self._folder / "mongod"))
            started["mongodb_uri"] = mongod.uri
        if self.embedded_kafka:
            topics = dict.fromkeys(
                (self._base.kafka_topic, self._base.dlq_topic), self._base.kafka_partitions
            )
            started["kafka_bootstrap"] = self._stack.enter_context(EmbeddedBroker(topics)).bootstrap
        self._overrides = started
        settings = load(**started)
        if self.embedded_kafka:
            seed_offsets(settings)  # its topics exist already
        else:
            create_topics(settings)
        return settings

    def run(self, command: str, extra: Mapping[str, str], port: int | None = None) -> Process:
        """Start `gpu-tokens COMMAND` with the shared settings on loopback; without a port on a free
        one."""
        port = free_port() if port is None else port
        log = self._folder / f"{command}.log"
        settings = {**self._overrides, "http_host": "127.0.0.1", "http_port": str(port), **extra}
        environment = {**os.environ, **{name.upper(): value for name, value in settings.items()}}
        with log.open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "gpu_token_analytics", command],
                env=environment,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the demo's: it stops them in order
            )
        process = Process(command, child, log, f"http://127.0.0.1:{port}")
        self._stack.callback(_end, child)
        self.processes.append(process)
        return process

    def check(self) -> None:
        """Raises DemoFailed when a process has ended."""
        for process in self.processes:
            process.check()

    def wait_ready(self, process: Process, path: str, clock: Clock, stop: threading.Event) -> None:
        """Wait until it answers. Raises DemoFailed when it ends or does not answer in
        READY_SECONDS."""
        until = clock.monotonic() + READY_SECONDS
        while not process.answers(path):
            process.check()
            if clock.monotonic() > until:
                raise DemoFailed(
                    f"the {process.name} does not answer at {process.url}{path}; see {process.log}"
                )
            if clock.wait(stop, 0.1):
                return


class PacedProducer:
    """A producer that never runs so far ahead of the consumer that the in-memory broker would drop
    records.

    Bytes are counted per key, since a key is one partition; at the bound it waits until the group
    has read everything.
    """

    def __init__(
        self, producer: EventProducer, settings: Settings, clock: Clock, stop: threading.Event
    ) -> None:
        self._producer, self._settings, self._clock, self._stop = producer, settings, clock, stop
        self._ahead: dict[str, int] = {}

    def send(self, event: Event) -> None:
        """Send one event, waiting for the consumer first where needed."""
        self.send_raw(encode(event), event.host)

    def send_raw(self, value: bytes, key: str) -> None:
        """Send bytes, waiting for the consumer first where needed."""
        ahead = self._ahead.get(key, 0) + len(value)
        if ahead > SAFE_UNREAD_BYTES:
            self.wait_until_read()
            ahead = len(value)
        self._ahead[key] = ahead
        self._producer.send_raw(value, key)

    def flush(self, timeout_seconds: float) -> None:
        """Wait until all is acknowledged."""
        self._producer.flush(timeout_seconds)

    def wait_until_read(self, timeout_seconds: float | None = None) -> None:
        """Wait until the group has read and committed all that was sent up to now, or `stop` is
        set, or the time is up."""
        self._producer.flush(STOP_SECONDS)
        until = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        # Others keep sending: waiting for no lag at all could wait for ever.
        ends = {state.partition: state.high for state in describe_group(self._settings)}
        while any(
            (state.committed or 0) < ends[state.partition]
            for state in describe_group(self._settings)
        ):
            if self._clock.wait(self._stop, 0.2) or (
                until is not None and self._clock.monotonic() > until
            ):
                break
        self._ahead.clear()


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
