"""A processor as its own process, events to send it, and what became of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from tests.programs import GPU_TOKENS, start

from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import describe_group
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.identity import event_id_of, new_event_id
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

ROOT = Path(__file__).parents[2]
FAST_SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"}


def delivery_settings(bootstrap: str, mongo_uri: str, database: str, **more: Any) -> Settings:
    """Settings of a small test: short sessions, short batches."""
    defaults: dict[str, Any] = {
        "kafka_bootstrap": bootstrap,
        "kafka_extra_config": FAST_SESSION,
        "mongodb_uri": mongo_uri,
        "mongodb_database": database,
        "batch_max_wait_ms": 50,
        "close_debounce_seconds": 1.0,
    }
    return load(**{**defaults, **more})


def environment_of(settings: Settings) -> dict[str, str]:
    """Every setting that was given, as environment variables."""
    found = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if hasattr(value, "get_secret_value"):
            value = value.get_secret_value()
        found[name.upper()] = json.dumps(value) if isinstance(value, dict) else str(value)
    return found


def run_with(settings: Settings, program: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A program under these settings, to its end."""
    return subprocess.run(
        program,
        cwd=ROOT,
        env={**os.environ, **environment_of(settings)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`gpu-tokens` with these arguments, to its end."""
    return run_with(settings, [*GPU_TOKENS, *arguments])


def usages(count: int, hosts: int = 12, gpus_per_host: int = 2) -> list[TokenUsage]:
    """Valid requests of an hour ago, spread over hosts and so over partitions."""
    start = datetime.now(UTC) - timedelta(hours=1)
    return [
        TokenUsage(
            event_id=new_event_id(),
            ts=start + timedelta(milliseconds=20 * number),
            host=f"vm{number % hosts}",
            gpu_uuids=[f"GPU-{number % hosts}-{number % gpus_per_host}"],
            model="llama-3-70b",
            request_id=f"r{number}",
            prompt_tokens=100 + number % 7,
            completion_tokens=10,
            latency_ms=500.0,
        )
        for number in range(count)
    ]


def send(settings: Settings, events: Iterable[TokenUsage]) -> dict[str, bytes]:
    """Send events and wait for Kafka; returns what was sent by id."""
    sent: dict[str, bytes] = {}
    with EventProducer(settings) as producer:
        for event in events:
            sent[event.event_id] = encode(event)
            producer.send(event)
        producer.flush(30)
    return sent


def stored(store: Store) -> dict[str, dict[str, Any]]:
    """Raw documents by id, of both collections."""
    found: dict[str, dict[str, Any]] = {}
    for name in (USAGE.collection, SAMPLE.collection):
        for document in store[name].find():
            event_id = event_id_of(document)
            assert event_id not in found
            found[event_id] = document
    return found


def all_is_stored(settings: Settings, sent: Mapping[str, bytes]) -> None:
    """Nothing lost, nothing twice."""
    with closing(open_store(settings)) as store:
        assert stored(store).keys() == sent.keys()


def all_is_stored_once(settings: Settings, sent: Mapping[str, bytes]) -> None:
    """The end of most faults: nothing lost, nothing twice, no dead letter."""
    all_is_stored(settings, sent)
    assert not list(read_dead_letters(settings)), "a fault is no reason for dead letters"


def lag(settings: Settings) -> int:
    """Records not yet committed."""
    return sum(state.lag for state in describe_group(settings))


def committed(settings: Settings) -> int:
    """The sum of the group's offsets: how many records it says are done."""
    return sum(state.committed or 0 for state in describe_group(settings))


def eventually(check: Callable[[], object], seconds: float = 30.0, what: str = "it") -> None:
    """Wait until `check()` is true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)


class Processor:
    """`gpu-tokens processor` as a process of its own."""

    def __init__(
        self, settings: Settings, log: Path, extra: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        log.unlink(missing_ok=True)
        self.process = start(
            [*GPU_TOKENS, "processor", "--port", "0"],
            log,
            {**environment_of(settings), **(extra or {})},
            ROOT,
        )

    @property
    def url(self) -> str:
        """Its HTTP address, once it says it."""
        found = re.search(r"listening on (http://\S+)", self.text())
        assert found is not None, self.text()
        return found[1]

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP path."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait_ready(self, seconds: float = 60) -> Self:
        """Until /ready answers 200."""

        def ready() -> bool:
            assert self.process.poll() is None, self.text()
            return "listening on" in self.text() and self.get("/ready")[0] == 200

        eventually(ready, seconds, "ready")
        return self

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over the series that carry `labels`; 0 where there is none."""
        _, text = self.get("/metrics")
        found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", text, re.MULTILINE)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for given, value in found if all(item in given for item in wanted))

    def rss_mb(self) -> float:
        """Memory in use now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def peak_rss_mb(self) -> float:
        """The most memory it ever had in use (Linux)."""
        found = re.search(
            r"^VmHWM:\s+(\d+) kB$",
            Path(f"/proc/{self.process.pid}/status").read_text(),
            re.MULTILINE,
        )
        assert found is not None
        return int(found[1]) * 1024 / 1e6

    def signal(self, which: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(which)

    def wait(self, seconds: float = 30) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)


Start: TypeAlias = Callable[..., Processor]
