"""Sends a world through processors that keep dying, then lets the survivors finish."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.killloop.world import World

from gpu_token_analytics.closing.closer import HOUSEKEEPING_SECONDS
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import describe_group
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings

ROOT = Path(__file__).parents[3]
CHUNK = 250
QUIET_SECONDS = HOUSEKEEPING_SECONDS + 5
# records; the embedded broker keeps little, and a backlog would make batches too large to die often
MAX_LAG = 4_000


@dataclass
class Ends:
    """How lives ended: exit code -> times."""

    codes: Counter[int] = field(default_factory=Counter)

    @property
    def deaths(self) -> int:
        """Lives ended by SIGKILL."""
        return self.codes[-signal.SIGKILL]

    @property
    def surprises(self) -> dict[int, int]:
        """Ends that nobody asked for: neither a kill nor a clean stop."""
        return {
            code: count for code, count in self.codes.items() if code not in (0, -signal.SIGKILL)
        }


class Nursery:
    """Keeps `size` processors alive: when one dies, another is born. See nursery.py."""

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        *,
        size: int,
        seed: int,
        probability: float,
        variant: str = "",
    ) -> None:
        self.ends = Ends()
        self.log = folder / "processors.log"
        self._calm_file = folder / "calm"
        self._random = random.Random(seed)
        self._size = size
        self._number = 0
        self._alive: dict[int, int] = {}  # number -> pid
        self._stopping = False
        self._lock = threading.Lock()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.killloop.nursery"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "OPENBLAS_NUM_THREADS": "1",  # no threads in the parent: it forks
                    **environment,
                    "KILL_SEED": str(seed),
                    "KILL_PROBABILITY": str(probability),
                    "KILL_CALM_FILE": str(self._calm_file),
                    "KILL_VARIANT": variant,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        for _ in range(size):
            self._spawn()

    def kill_one(self) -> None:
        """SIGKILL a living processor, wherever it is."""
        self._signal(signal.SIGKILL, 1)

    def calm(self) -> None:
        """Nobody dies from here on."""
        self._calm_file.touch()

    def stop(self, timeout_seconds: float) -> None:
        """SIGTERM to all; raises when one does not end in time."""
        self._stopping = True
        self._signal(signal.SIGTERM, self._size)
        deadline = time.monotonic() + timeout_seconds
        while self._alive:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{len(self._alive)} processors did not stop within {timeout_seconds} s of "
                    "SIGTERM"
                )
            time.sleep(0.05)

    def check(self) -> None:
        """Raises when the parent is gone."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the nursery ended with {self._process.returncode}; see {self.log}")

    def close(self) -> None:
        """End everything."""
        self._stopping = True
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn(self) -> None:
        with self._lock:
            self._number += 1
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"spawn {self._number}\n")
                self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, number, value = line.split()
            if what == "born":
                self._alive[int(number)] = int(value)
            else:
                self._alive.pop(int(number))
                self.ends.codes[int(value)] += 1
                if not self._stopping:
                    self._spawn()

    def _signal(self, which: signal.Signals, count: int) -> None:
        pids = list(self._alive.values())
        for pid in self._random.sample(pids, min(count, len(pids))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings a processor needs, as its environment."""
    return {
        "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KAFKA_EXTRA_CONFIG": json.dumps(settings.kafka_extra_config),
        "KAFKA_GROUP": settings.kafka_group,
        "KAFKA_TOPIC": settings.kafka_topic,
        "MONGODB_URI": settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": settings.mongodb_database,
        "MONGODB_TIMEOUT_MS": str(settings.mongodb_timeout_ms),
        "BATCH_MAX_RECORDS": str(settings.batch_max_records),
        "BATCH_MAX_WAIT_MS": str(settings.batch_max_wait_ms),
        "CLOSE_DEBOUNCE_SECONDS": str(settings.close_debounce_seconds),
        "SILENT_GPU_OWNED_MINUTES": str(settings.silent_gpu_owned_minutes),
        "HTTP_PORT": "0",
    }


def send_while_dying(
    nursery: Nursery, settings: Settings, world: World, deaths: int, seconds: float
) -> None:
    """Send until `deaths` lives have ended, killing some from outside as well. Raises
    TimeoutError."""
    dice = random.Random(world.seed + 1)
    deadline = time.monotonic() + seconds
    next_kill = time.monotonic() + 2
    with EventProducer(settings) as producer:
        while nursery.ends.deaths < deaths:
            nursery.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{nursery.ends.deaths} of {deaths} deaths in {seconds} s")
            if sum(state.lag for state in describe_group(settings)) < MAX_LAG:
                for record in world.records(CHUNK):
                    producer.send_raw(record.value, record.key)
                producer.flush(30)
            if time.monotonic() > next_kill:
                nursery.kill_one()
                next_kill = time.monotonic() + dice.uniform(0.5, 4)
            time.sleep(0.05)


def wait_until_done(nursery: Nursery, settings: Settings, store: Store, seconds: float) -> None:
    """Wait until all is read and committed and no cell is due, and stays so while the closers look
    after silent GPUs.

    Raises TimeoutError.
    """
    ledger = LedgerStore(store, settings.close_debounce_seconds)
    deadline = time.monotonic() + seconds
    quiet_since: float | None = None
    while quiet_since is None or time.monotonic() - quiet_since < QUIET_SECONDS:
        nursery.check()
        lag, due = sum(state.lag for state in describe_group(settings)), ledger.cells.count_due()
        if lag or due:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s: lag {lag}, cells due {due}")
        time.sleep(0.25)
