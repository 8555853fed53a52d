"""The product's processes over one database and topic, for sources that are tried as their page
says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.programs import GPU_TOKENS, running

from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import load


class World:
    """The product's processes over one database and topic."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def run(self, line: str, **extra: str) -> str:
        """A command of gpu-tokens; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "gpu_token_analytics", *shlex.split(line)],
            env=self.environment | extra,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def wait_until(self, reported: Callable[[], bool]) -> None:
        """Until the report says what it should; else what became of the spans is said."""
        until = time.monotonic() + 120
        while not reported():
            if time.monotonic() > until:
                page = httpx.get(f"{self.environment['TEST_API']}/metrics", trust_env=False).text
                spans = [
                    line
                    for line in page.splitlines()
                    if line.startswith(("gpu_tokens_api_spans", "gpu_tokens_api_requests_t"))
                ]
                raise AssertionError(
                    f"{spans}; {self.run('report --last 1h --by model,tenant,gpu --json')}"
                )
            time.sleep(0.5)


@pytest.fixture
def world(
    kafka: KafkaBroker,
    mongo_uri: str,
    mongo_database: str,
    tmp_path: Path,
    keep_log: Callable[[Path], None],
) -> Iterator[World]:
    topic = f"tokens-{mongo_database}"
    made = World(
        {
            **os.environ,
            "KAFKA_BOOTSTRAP": kafka.bootstrap,
            "KAFKA_TOPIC": topic,
            "KAFKA_GROUP": topic,
            "MONGODB_URI": mongo_uri,
            "MONGODB_DATABASE": mongo_database,
            "CLOSE_DEBOUNCE_SECONDS": "1",
            "HTTP_HOST": "127.0.0.1",
        }
    )
    made.run("topics create")
    with ExitStack() as stack:
        for process in ("processor", "api"):
            port, log = free_port(), tmp_path / f"{process}.log"
            keep_log(log)
            stack.enter_context(
                running([*GPU_TOKENS, process], log, made.environment | {"HTTP_PORT": str(port)})
            )
            made.environment[f"TEST_{process.upper()}"] = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(made.environment["TEST_API"]), "the API does not listen")
        yield made


@pytest.fixture
def store(mongo_uri: str, mongo_database: str) -> Iterator[Store]:
    found = open_store(load(mongodb_uri=mongo_uri, mongodb_database=mongo_database))
    yield found
    found.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.2)
