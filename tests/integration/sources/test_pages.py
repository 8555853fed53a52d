"""The pages of docs/sources, done as written: commands, environment and flags are read from the page; real Kafka, mongod,
processor, API and OpenTelemetry exporter, only the engine is missing (engines.py). It ends with a cost by model and tenant."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import ROOT

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.kafka_jvm import KafkaBroker
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import load
from gpu_token_analytics.wire.usage import USAGE

ENGINE = {"vllm": "vllm serve", "sglang": "python -m sglang.launch_server"}
ADDRESS, KEY = "http://gpu-tokens:8080", "gta_..."
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"


class Page:
    """A page's shell lines, with what a reader would put in."""

    def __init__(self, name: str) -> None:
        text = (ROOT / "docs" / "sources" / f"{name}.md").read_text()
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
        self.exports = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        self.commands = [line.removeprefix("gpu-tokens ") for line in lines if line.startswith("gpu-tokens ")]
        self.start = next(line for line in lines if line.startswith(ENGINE[name]))
        others = len(lines) - len(self.exports) - len(self.commands)
        assert others == 1, "every line is a command, an export or the engine's start"


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
                    line for line in page.splitlines() if line.startswith(("gpu_tokens_api_spans", "gpu_tokens_api_requests_t"))
                ]
                raise AssertionError(f"{spans}; {self.run('report --last 1h --by model,tenant,gpu --json')}")
            time.sleep(0.5)


@pytest.fixture
def world(
    kafka: KafkaBroker, mongo_uri: str, mongo_database: str, tmp_path: Path, keep_log: Callable[[Path], None]
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
            out = stack.enter_context(log.open("wb"))
            child = subprocess.Popen(
                [sys.executable, "-m", "gpu_token_analytics", process],
                env=made.environment | {"HTTP_PORT": str(port)},
                stdout=out,
                stderr=out,
            )
            stack.callback(child.wait, 30)
            stack.callback(child.terminate)
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


def requests(now: datetime) -> list[dict[str, Any]]:
    """Eight requests of two tenants and of none, one of them of a caller that does not sample."""
    found = []
    for number in range(8):
        headers = {"traceparent": TRACEPARENT.format(flags="00" if number == 7 else "01")}
        if number < 6:
            headers["tracestate"] = f"vendor=x,gpu-tokens={'acme' if number % 2 else 'globex'}"
        found.append(
            {
                "id": f"chatcmpl-{number:032x}",
                "model": "qwen3-32b",
                "headers": headers if number != 6 else {},
                "arrival_ns": round((now + timedelta(seconds=number / 10)).timestamp() * 1e9),  # after the placement
                "e2e": 1.0,
                "ttft": 0.5,
                "queue": 0.25,
                "prompt": 1000 + number,
                "completion": 100 + number,
                "cached": 500,
            }
        )
    return found


@pytest.mark.parametrize(
    ("name", "model", "gpus", "cached"),
    [("vllm", "llama-3.3-70b", ["node1/0", "node1/1"], 0), ("sglang", "qwen3-32b", ["node2/0"], 500)],
)
def test_the_page_leads_to_a_cost_by_model_and_tenant(
    world: World, store: Store, name: str, model: str, gpus: list[str], cached: int
) -> None:
    page = Page(name)
    *before, last = page.commands
    assert last.startswith("report")
    key, *declared = before
    assert key.startswith("keys create")
    secret = world.run(key).split()[0]
    for command in declared:
        world.run(command)
    environment = world.environment | {
        name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"]) for name, value in page.exports.items()
    }
    endpoint = re.search(r"--otlp-traces-endpoint (\S+)", page.start)
    assert endpoint is not None
    at = endpoint[1].replace(ADDRESS, world.environment["TEST_API"])
    sent = requests(datetime.now(UTC))
    for _ in range(2):  # the second time as an exporter that did not hear the answer
        subprocess.run(
            [sys.executable, "-m", "tests.integration.sources.engines", name, at],
            env=environment,
            input="\n".join(map(json.dumps, sent)),
            text=True,
            cwd=ROOT,
            check=True,
        )

    def closed() -> bool:
        counted = json.loads(world.run(f"{last} --json"))["totals"]
        return bool(counted["requests"] == len(sent) and counted["money"]["attributed_nusd"])

    world.wait_until(closed)
    wait_for(lambda: not store[Collection.LEDGER_CELLS].find_one({"rolled": False}), "the sums are behind")
    answer = json.loads(world.run(f"{last} --json"))
    rows = {row["group"]["tenant"]: row for row in answer["rows"] if row["group"]["model"]}
    assert {row["group"]["model"] for row in rows.values()} == {model}
    assert {tenant: row["requests"] for tenant, row in rows.items()} == {"acme": 3, "globex": 3, "default": 2}
    for tenant, numbers in {"globex": (0, 2, 4), "acme": (1, 3, 5), "default": (6, 7)}.items():
        tokens = rows[tenant]["tokens"]
        assert tokens["prompt"] == sum(1000 + number for number in numbers)
        assert tokens["completion"] == sum(100 + number for number in numbers)
        assert tokens["cached"] == cached * len(numbers)
        assert rows[tenant]["money"]["attributed_nusd"] > 0
    stored = list(store[USAGE.collection].find())
    assert len(stored) == len(sent), "sent twice, stored once"
    assert {tuple(document["gpus"]) for document in stored} == {tuple(gpus)}
    assert json.loads(world.run("audit --wait 60 --json"))["holds"]
    assert world.run("dead-letters list --json").strip() in ("", "[]"), "the same bytes again are no conflict"


def test_without_a_placement_tokens_are_kept_and_listed(world: World, store: Store) -> None:
    page = Page("vllm")
    secret = world.run(page.commands[0]).split()[0]
    environment = world.environment | {
        name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"]) for name, value in page.exports.items()
    }
    subprocess.run(
        [sys.executable, "-m", "tests.integration.sources.engines", "vllm", f"{world.environment['TEST_API']}/v1/traces"],
        env=environment,
        input="\n".join(map(json.dumps, requests(datetime.now(UTC)))),
        text=True,
        cwd=ROOT,
        check=True,
    )

    def closed() -> bool:
        totals = json.loads(world.run(f"{page.commands[-1]} --json"))["totals"]
        return bool(totals["requests"] == 8)

    world.wait_until(closed)
    totals = json.loads(world.run(f"{page.commands[-1]} --json"))["totals"]
    assert totals["tokens"]["prompt"] == sum(1000 + number for number in range(8))
    assert totals["money"]["attributed_nusd"] is None, "unknown, not 0"
    listed = json.loads(world.run("placements list --json"))["unplaced"]
    assert [(one["instance"], one["placed"]) for one in listed] == [("vllm-chat@node1", False)]
    assert "vllm-chat@node1" in world.run("placements list")
    world.run(next(command for command in page.commands if command.startswith("placements add")))
    assert [one["placed"] for one in json.loads(world.run("placements list --json"))["unplaced"]] == [True]
    assert store[USAGE.collection].count_documents({"gpus": "instance:vllm-chat@node1"}) == 8
