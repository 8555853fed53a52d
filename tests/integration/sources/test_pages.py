"""The pages of docs/sources, done as written: commands, environment and flags are read from the
page; real Kafka, mongod, processor, API and OpenTelemetry exporter, only the engine is missing
(engines.py). It ends with a cost by model and tenant."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.conftest import ROOT
from tests.integration.sources.conftest import World, wait_for
from tests.integration.sources.pages import ADDRESS, KEY, Page

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.wire.usage import USAGE

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"


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
                # after the placement
                "arrival_ns": round((now + timedelta(seconds=number / 10)).timestamp() * 1e9),
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
    [
        ("vllm", "llama-3.3-70b", ["node1/0", "node1/1"], 0),
        ("sglang", "qwen3-32b", ["node2/0"], 500),
    ],
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
        name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"])
        for name, value in page.exports.items()
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
    wait_for(
        lambda: not store[Collection.LEDGER_CELLS].find_one({"rolled": False}),
        "the sums are behind",
    )
    answer = json.loads(world.run(f"{last} --json"))
    rows = {row["group"]["tenant"]: row for row in answer["rows"] if row["group"]["model"]}
    assert {row["group"]["model"] for row in rows.values()} == {model}
    assert {tenant: row["requests"] for tenant, row in rows.items()} == {
        "acme": 3,
        "globex": 3,
        "default": 2,
    }
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
    assert world.run("dead-letters list --json").strip() in ("", "[]"), (
        "the same bytes again are no conflict"
    )


def test_without_a_placement_tokens_are_kept_and_listed(world: World, store: Store) -> None:
    page = Page("vllm")
    secret = world.run(page.commands[0]).split()[0]
    environment = world.environment | {
        name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"])
        for name, value in page.exports.items()
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.sources.engines",
            "vllm",
            f"{world.environment['TEST_API']}/v1/traces",
        ],
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
    assert [
        one["placed"] for one in json.loads(world.run("placements list --json"))["unplaced"]
    ] == [True]
    assert store[USAGE.collection].count_documents({"gpus": "instance:vllm-chat@node1"}) == 8
