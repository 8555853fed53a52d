"""docs/sources/history.md, done as written: last month's requests at last month's prices. And a
replay that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.sources.conftest import World, wait_for

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.wire.usage import USAGE

PAGE = (ROOT / "docs" / "sources" / "history.md").read_text()
COMMANDS = [
    line.strip().removeprefix("gpu-tokens ")
    for line in re.findall(r"^ *gpu-tokens .*$", PAGE, re.MULTILINE)
]


def wait_until_rolled(store: Store) -> None:
    names = (Collection.LEDGER_CELLS, Collection.ROLLUPS_HOURLY, Collection.ROLLUPS_DAILY)
    wait_for(
        lambda: not any(store[name].find_one({"rolled": False}) for name in names),
        "the sums are behind",
    )


def test_last_month_is_priced_as_of_its_days(world: World, store: Store, tmp_path: Path) -> None:
    (rows,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "october.csv").write_text(rows + "yesterday,1,1,1,0,m,acme,node1/0,c-9\n")
    *before, replayed, report = COMMANDS
    assert replayed.startswith("replay october.csv")
    assert report.startswith("report")
    for command in before:
        world.run(command)
    replayed = replayed.replace("october.csv", str(tmp_path / "october.csv"))
    for _ in range(2):  # again: nothing changes
        world.run(replayed)

    def closed() -> bool:
        totals = json.loads(world.run(f"{report} --json"))["totals"]
        return bool(totals["requests"] == 4 and totals["money"]["attributed_nusd"])

    world.wait_until(closed)
    wait_until_rolled(store)
    assert json.loads(world.run("audit --wait 60 --json"))["holds"]
    stored = list(store[USAGE.collection].find())
    assert sorted(document["latency_ms"] for document in stored) == [
        20_000,
        20_000,
        30_000,
        30_000,
    ], "as in the file"
    assert {tuple(document["gpus"]) for document in stored} == {("node1/0",)}
    by_day = json.loads(
        world.run("report --from 2026-10-01 --to 2026-11-01 --by tenant --bucket 1d --json")
    )["rows"]
    cost = {
        (row["bucket"][:10], row["group"]["tenant"]): row["money"]["attributed_nusd"]
        for row in by_day
        if row["group"]["tenant"]
    }
    # 30 s and 20 s of 2 USD/h, and of 3 USD/h from the 15th on.
    assert cost == {
        ("2026-10-14", "acme"): 16_666_667,
        ("2026-10-14", "globex"): 11_111_111,
        ("2026-10-16", "acme"): 25_000_000,
        ("2026-10-16", "globex"): 16_666_667,
    }
    month = json.loads(world.run(f"{report} --json"))
    assert month["totals"]["tokens"]["cached"] == 1024
    assert {row["group"]["model"] for row in month["rows"] if row["group"]["model"]} == {
        "llama-3.3-70b"
    }


def test_a_replay_that_is_killed_loses_and_doubles_nothing(
    world: World, store: Store, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(
        f"2026-10-{day:02} {n // 60:02}:{n % 60:02}:00,{n + 1},{day}\n"
        for day in range(1, 22)
        for n in range(1440)
    )
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    count = 21 * 1440
    environment = world.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}
    child = subprocess.Popen(
        [sys.executable, "-m", "gpu_token_analytics", "replay", str(trace)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kept = tmp_path / "state" / "gpu-tokens" / "replay"
    wait_for(
        lambda: child.poll() is not None or any(kept.glob("*.json")), "nothing is acknowledged"
    )
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL, "it was killed in the middle"
    (path,) = kept.glob("*.json")
    acknowledged = json.loads(path.read_text())["acknowledged"]
    assert 0 < acknowledged < count
    done = subprocess.run(
        [sys.executable, "-m", "gpu_token_analytics", "replay", str(trace), "--resume"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"going on after {acknowledged:,} records" in done.stderr
    assert f"sent: {count - acknowledged:,} requests" in done.stderr
    events = store[USAGE.collection]
    wait_for(lambda: events.estimated_document_count() >= count, "not all requests are stored")
    time.sleep(2)  # what must not come has time to come
    (sums,) = events.aggregate(
        [
            {
                "$group": {
                    "_id": None,
                    "n": {"$sum": 1},
                    "in": {"$sum": "$prompt_tokens"},
                    "out": {"$sum": "$completion_tokens"},
                }
            }
        ]
    )
    assert sums == {"_id": None, "n": count, "in": 21 * 1440 * 1441 // 2, "out": 1440 * 231}
