"""The whole Azure conversation trace through real Kafka, a real processor and real mongod, by the
commands a person uses."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import ROOT
from tests.programs import GPU_TOKENS, Child, end, start

from gpu_token_analytics.clock import ManualClock, SystemClock
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import load
from gpu_token_analytics.simulate.replay import Assumptions
from gpu_token_analytics.tools.verify import marked_events
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.usage import USAGE

SHARED = Path(os.environ.get("GPU_TOKENS_SHARED_DATA", ROOT.parent / "shared" / "data"))
TRACE = SHARED / "traces" / "AzureLLMInferenceTrace_conv.csv"
REQUESTS, PROMPT, COMPLETION = 19_366, 22_361_870, 4_088_665

pytestmark = pytest.mark.skipif(
    not TRACE.exists(), reason=f"the Azure trace is not at {TRACE}; set GPU_TOKENS_SHARED_DATA"
)


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
def processor(
    environment: dict[str, str], tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[None]:
    gpu_tokens(environment, "topics", "create")
    log = tmp_path / "processor.log"
    keep_log(log)
    child = start([*GPU_TOKENS, "processor"], log, environment)
    try:
        yield
    finally:
        assert end(child) == 0, "SIGTERM is a clean stop"


def gpu_tokens(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [*GPU_TOKENS, *command],
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
    while store[USAGE.collection].estimated_document_count() < count:
        assert time.monotonic() < until, "the requests are not stored in time"
        time.sleep(0.2)


def wait_until_spread(store: Store) -> None:
    """Until the cells of every declaration are marked."""
    until = time.monotonic() + 60
    while store[Collection.INVENTORY].find_one({"pending": True}, {"_id": 1}):
        assert time.monotonic() < until, "the declarations are not followed in time"
        time.sleep(0.2)


def wait_until_rolled(store: Store) -> None:
    """Until the rollups hold every cell."""
    until = time.monotonic() + 60
    while any(
        store[name].find_one({"rolled": False}, {"_id": 1})
        for name in (Collection.LEDGER_CELLS, Collection.ROLLUPS_HOURLY, Collection.ROLLUPS_DAILY)
    ):
        assert time.monotonic() < until, "the rollups are not brought up to date in time"
        time.sleep(0.2)


@pytest.mark.usefixtures("processor")
def test_every_request_and_token_of_the_trace_is_in_the_ledger(
    environment: dict[str, str], store: Store
) -> None:
    gpu_tokens(environment, "replay", str(TRACE))
    wait_for(store, REQUESTS)
    unknown = json.loads(gpu_tokens(environment, "audit", "--wait", "60", "--json"))
    assert unknown["holds"]
    assert (unknown["cost_nusd"], unknown["unknown_gpu_tokens"]) == (0, PROMPT + COMPLETION), (
        "nobody told of its GPUs yet"
    )
    for gpu in Assumptions("").placed_gpus():
        gpu_tokens(environment, "gpus", "declare", gpu.uuid, "--host", gpu.host)
    wait_until_spread(store)
    report = json.loads(gpu_tokens(environment, "audit", "--wait", "60", "--json"))
    assert report["holds"]
    assert report["unknown_gpu_requests"] == report["unknown_gpu_tokens"] == 0
    for side in ("raw", "ledger"):
        counted: dict[str, Any] = report[side]
        assert (counted["requests"], counted["prompt_tokens"], counted["completion_tokens"]) == (
            REQUESTS,
            PROMPT,
            COMPLETION,
        )
    assert (
        report["price_time_nusd"]
        == report["compared_nusd"]
        == report["cost_nusd"]
        == sum(report["classes_nusd"].values())
    )
    assert report["classes_nusd"]["attributed"] > 0
    wait_until_rolled(store)
    report |= {"sums_behind": 0}
    answers = [
        json.loads(
            gpu_tokens(
                environment,
                "report",
                "--from",
                "2023-11-16T18:00Z",
                "--to",
                "2023-11-16T20:00Z",
                *by,
                "--json",
            )
        )
        for by in (
            ("--by", "model"),
            ("--by", "tenant,gpu", "--bucket", "1m"),
            ("--by", "class", "--bucket", "1h"),
        )
    ]
    for answer in answers:
        totals = answer["totals"]
        assert (totals["requests"], totals["tokens"]["prompt"], totals["tokens"]["completion"]) == (
            REQUESTS,
            PROMPT,
            COMPLETION,
        )
        assert int(totals["money"]["total_nusd"]) == report["cost_nusd"], (
            "what is shown is what the audit proved"
        )
        assert sum(int(row["money"]["total_nusd"]) for row in answer["rows"]) <= report["cost_nusd"]
    before = {
        cell["_id"]: (cell["content"], cell["revision"])
        for cell in store[Collection.LEDGER_CELLS].find()
    }
    gens = {cell["_id"]: cell["gen"] for cell in store[Collection.LEDGER_CELLS].find()}

    gpu_tokens(environment, "replay", str(TRACE))
    until = time.monotonic() + 120
    while any(
        json.loads(line)["lag"]
        for line in gpu_tokens(environment, "topics", "show", "--json").splitlines()
    ):
        assert time.monotonic() < until, "the second replay is not read in time"
        time.sleep(0.2)
    wait_until_rolled(store)
    again = json.loads(gpu_tokens(environment, "audit", "--wait", "60", "--json"))
    assert again == report, "a second replay of the same file changes nothing"
    assert {
        cell["_id"]: (cell["content"], cell["revision"])
        for cell in store[Collection.LEDGER_CELLS].find()
    } == before
    touched = {cell["_id"]: cell["gen"] for cell in store[Collection.LEDGER_CELLS].find()}
    assert touched != gens, "the cells were looked at again, and came out the same"


@pytest.mark.usefixtures("processor")
def test_verify_walks_the_pipeline(environment: dict[str, str]) -> None:
    out = gpu_tokens(environment, "verify", "--timeout", "60")
    for step in (
        "mongodb",
        "topic",
        "kafka",
        "token_usage",
        "gpu_metrics",
        "ledger",
        "taken out",
        "verified",
    ):
        assert step in out, out


@pytest.mark.usefixtures("processor")
def test_verify_leaves_nothing_in_anybodys_report(
    environment: dict[str, str], store: Store
) -> None:
    """Nor does one that was killed a while ago, once another has run."""
    before = marked_events(ManualClock(datetime.now(UTC) - timedelta(hours=2)))
    with EventProducer(
        load(**{name.lower(): environment[name] for name in ("KAFKA_BOOTSTRAP", "KAFKA_TOPIC")})
    ) as producer:
        events: list[Event] = [*before.samples, *before.usages]
        for event in events:
            producer.send(event)
        producer.flush(30)
    wait_for(store, len(before.usages))
    gpu_tokens(environment, "verify", "--timeout", "60")

    for group in ("gpu", "model", "tenant", "host"):
        report = json.loads(
            gpu_tokens(environment, "report", "--by", group, "--last", "3h", "--json")
        )
        assert report["rows"] == [], group
        assert report["totals"]["money"]["total_nusd"] == report["totals"]["requests"] == 0
    shown = json.loads(gpu_tokens(environment, "top", "--json"))
    assert shown["gpus"] == []
    assert shown["live"]["models"] == []
    assert "the ledger holds" in gpu_tokens(environment, "audit", "--wait", "30")


@pytest.mark.usefixtures("processor")
def test_events_over_http_reach_the_ledger(
    environment: dict[str, str], store: Store, tmp_path: Path
) -> None:
    """POST /v1/events answers after Kafka acknowledged; bad records are named, good ones are not
    held back by them."""
    port = free_port()
    own = {**environment, "HTTP_PORT": str(port), "API_ALLOW_ANONYMOUS_LOOPBACK": "true"}
    api = start([*GPU_TOKENS, "api"], tmp_path / "api.log", own)
    try:
        usages = marked_events(SystemClock()).usages
        bad = b'{"schema": "token.usage.v1", "prompt_tokens": -1}'
        body = b"\n".join([*(encode(usage) for usage in usages), bad])
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
        with client:
            wait_until_answers(client, api)
            answer = client.post(
                "/v1/events", content=body, headers={"content-type": "application/x-ndjson"}
            )
            assert (answer.json()["accepted"], answer.json()["rejected"]) == (len(usages), 1), (
                answer.text
            )
            assert answer.json()["errors"][0]["index"] == len(usages)
            wait_for(store, len(usages))
            until = time.monotonic() + 60
            path = f"/v1/requests/{usages[0].request_id}"
            while client.get(path).status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.2)
            (event,) = client.get(path).json()["events"]
        assert event["tokens"]["prompt"] == usages[0].prompt_tokens
        assert event["cells"], "its cost is traced to cells"
    finally:
        assert end(api) == 0


def wait_until_answers(client: httpx.Client, process: Child) -> None:
    until = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the API ended"
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, "the API does not answer in time"
        time.sleep(0.2)
