"""The whole Azure conversation trace through real Kafka, a real processor and real mongod, by the commands a person uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.settings import load
from gpu_token_analytics.store.client import Store, open_store

SHARED = Path(os.environ.get("GPU_TOKENS_SHARED_DATA", ROOT.parent / "shared" / "data"))
TRACE = SHARED / "traces" / "AzureLLMInferenceTrace_conv.csv"
REQUESTS, PROMPT, COMPLETION = 19_366, 22_361_870, 4_088_665

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not TRACE.exists(), reason=f"the Azure trace is not at {TRACE}; set GPU_TOKENS_SHARED_DATA"),
]


@pytest.fixture
def environment(kafka: KafkaBroker, mongo_uri: str, mongo_database: str) -> dict[str, str]:
    topic = f"tokens-{mongo_database}"
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP": kafka.bootstrap,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP": topic,
        "MONGODB_URI": mongo_uri,
        "MONGODB_DATABASE": mongo_database,
        "CLOSE_DEBOUNCE_SECONDS": "1",
        "HTTP_PORT": str(free_port()),
    }


@pytest.fixture
def store(mongo_uri: str, mongo_database: str) -> Iterator[Store]:
    found = open_store(load(mongodb_uri=mongo_uri, mongodb_database=mongo_database))
    yield found
    found.close()


@pytest.fixture
def processor(environment: dict[str, str], tmp_path: Path, keep_log: Callable[[Path], None]) -> Iterator[None]:
    gpu_tokens(environment, "topics", "create")
    log = tmp_path / "processor.log"
    keep_log(log)
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "gpu_token_analytics", "processor"], env=environment, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        child.terminate()
        assert child.wait(30) == 0, "SIGTERM is a clean stop"


def gpu_tokens(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gpu_token_analytics", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def wait_for(store: Store, count: int) -> None:
    until = time.monotonic() + 120
    while store[Collection.TOKEN_USAGE].estimated_document_count() < count:
        assert time.monotonic() < until, "the requests are not stored in time"
        time.sleep(0.2)


@pytest.mark.usefixtures("processor")
def test_every_request_and_token_of_the_trace_is_in_the_ledger(environment: dict[str, str], store: Store) -> None:
    gpu_tokens(environment, "replay", str(TRACE))
    wait_for(store, REQUESTS)
    report = json.loads(gpu_tokens(environment, "audit", "--wait", "60", "--json"))
    assert report["holds"]
    for side in ("raw", "ledger"):
        counted: dict[str, Any] = report[side]
        assert (counted["requests"], counted["prompt_tokens"], counted["completion_tokens"]) == (REQUESTS, PROMPT, COMPLETION)
    assert report["price_time_nusd"] == report["compared_nusd"] == report["cost_nusd"] == sum(report["classes_nusd"].values())
    assert report["classes_nusd"]["attributed"] > 0
    before = {cell["_id"]: (cell["content"], cell["revision"]) for cell in store[Collection.LEDGER_CELLS].find()}
    gens = {cell["_id"]: cell["gen"] for cell in store[Collection.LEDGER_CELLS].find()}

    gpu_tokens(environment, "replay", str(TRACE))
    until = time.monotonic() + 120
    while any(json.loads(line)["lag"] for line in gpu_tokens(environment, "topics", "show", "--json").splitlines()):
        assert time.monotonic() < until, "the second replay is not read in time"
        time.sleep(0.2)
    again = json.loads(gpu_tokens(environment, "audit", "--wait", "60", "--json"))
    assert again == report, "a second replay of the same file changes nothing"
    assert {cell["_id"]: (cell["content"], cell["revision"]) for cell in store[Collection.LEDGER_CELLS].find()} == before
    touched = {cell["_id"]: cell["gen"] for cell in store[Collection.LEDGER_CELLS].find()}
    assert touched != gens, "the cells were looked at again, and came out the same"


@pytest.mark.usefixtures("processor")
def test_verify_walks_the_pipeline(environment: dict[str, str]) -> None:
    out = gpu_tokens(environment, "verify", "--timeout", "60")
    for step in ("mongodb", "topic", "kafka", "token_usage", "gpu_metrics", "ledger", "verified"):
        assert step in out, out
