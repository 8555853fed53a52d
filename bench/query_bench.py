"""`python -m bench.query_bench`: how fast /v1 answers over 30 days of 64 GPUs, while ingest goes
on.

    1 a mongod of its own, 2.8 million cells (30 days x 64 GPUs x 1,440 minutes, 8 models, 20
      tenants), rolled up
    2 a real `gpu-tokens api` process, asked over HTTP with a key
    3 beside it a writer: requests stored, the newest cells recomputed, rollups kept

`--data DIR` keeps the database for the next run. Nothing is compared with a fixed machine: the
figures are printed with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from bench.processes import cpu_seconds, peak_rss_mb, rss_mb
from bench.synthetic_cells import Fleet, cells
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.usage import USAGE

DATABASE = "query_bench"
START = datetime(2026, 1, 1, tzinfo=UTC)
USAGES_PER_SECOND = 1_000
MEMORY_GOAL_MB = 300


def main(argv: list[str] | None = None) -> None:
    """Load, roll up, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60, help="requests per question")
    parser.add_argument("--data", type=Path, help="keep the database here and use it again")
    parser.add_argument("--writer", metavar="URI", help=argparse.SUPPRESS)
    given = parser.parse_args([] if argv is None else argv)
    if given.writer:
        write_until_killed(given.writer, given.days, given.gpus)
        return
    folder = given.data or Path(tempfile.mkdtemp(prefix="query-bench-"))
    try:
        with EmbeddedMongod(folder, cache_mb=1024) as mongod:
            bench(mongod.uri, given.days, given.gpus, given.rounds)
    finally:
        if given.data is None:
            shutil.rmtree(folder, ignore_errors=True)


def bench(uri: str, days: int, gpus: int, rounds: int) -> None:
    """Everything over one mongod."""
    settings = load(mongodb_uri=uri, mongodb_database=DATABASE)
    store = open_store(settings, "query-bench")
    ensure_indexes(store, settings)
    load_cells(store, days, gpus)
    _, key = KeyStore(store.database).create("bench", frozenset([KeyScope.READ]), None, store.now())
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, mongod "
        f"{store.server}"
    )
    with api_process(uri) as (url, pid), writer(uri, days, gpus), client(url, key) as asked:
        ask_all(asked, days, rounds, pid)
        export_day(asked, days, pid)
        print(f"api peak resident memory: {peak_rss_mb(pid):.0f} MB (goal: under {MEMORY_GOAL_MB})")
    store.close()


def load_cells(store: Store, days: int, gpus: int) -> None:
    """The cells and their rollups, unless an earlier run left them."""
    wanted = days * 1440 * gpus
    found = store[Collection.LEDGER_CELLS].estimated_document_count()
    fleet = Fleet(gpus=gpus)
    if found < wanted:
        store.client.drop_database(DATABASE)
        ensure_indexes(store, _settings_of(store))
        begun = time.perf_counter()
        made = cells(fleet, START, days * 1440, now=START + timedelta(days=days))
        # not majority: it is only a bench's data
        collection = store.client[DATABASE][Collection.LEDGER_CELLS.value]
        while chunk := list(islice(made, 10_000)):
            collection.insert_many(chunk, ordered=False)
        print(f"{wanted:,} cells loaded in {time.perf_counter() - begun:.0f} s")
        rows = []
        for index in range(gpus):
            gpu, host, name = fleet.gpu(index)
            rows.append(
                {
                    "_id": gpu,
                    "kind": "gpu",
                    "gpu": gpu,
                    "host": host,
                    "gpu_index": index % 8,
                    "name": name,
                }
            )
        store[Collection.INVENTORY].insert_many(rows)
    begun = time.perf_counter()
    rollups, hours = Rollups(RollupStore(store.database)), 0
    while done := rollups.step_now():
        hours += done
    seconds = time.perf_counter() - begun
    if hours:
        print(f"rolled up in {seconds:.0f} s: {seconds / wanted * 1e6:.0f} us per cell")


def _settings_of(store: Store) -> Settings:
    address = store.client.address
    assert address is not None
    return load(
        mongodb_uri=f"mongodb://{address[0]}:{address[1]}/?directConnection=true",
        mongodb_database=DATABASE,
    )


@contextlib.contextmanager
def api_process(uri: str, database: str = DATABASE) -> Iterator[tuple[str, int]]:
    """(address, process id) of a real api process."""
    port = free_port()
    environment = {
        **os.environ,
        "MONGODB_URI": uri,
        "MONGODB_DATABASE": database,
        "HTTP_PORT": str(port),
        "API_REQUESTS_PER_SECOND": "10000",
        "API_REQUEST_BURST": "10000",
    }
    with tempfile.NamedTemporaryFile("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "gpu_token_analytics", "api"],
            env=environment,
            stderr=log,
            stdout=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                        break
                if child.poll() is not None or time.monotonic() > until:
                    raise SystemExit(
                        f"the api process did not start:\n{Path(log.name).read_text()}"
                    )
                time.sleep(0.1)
            yield url, child.pid
        finally:
            child.terminate()
            child.wait(20)


@contextlib.contextmanager
def writer(uri: str, days: int, gpus: int) -> Iterator[None]:
    """Ingest's load on the database, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "bench.query_bench",
        "--writer",
        uri,
        "--days",
        str(days),
        "--gpus",
        str(gpus),
    ]
    child = subprocess.Popen(command)
    try:
        yield
        if child.poll() is not None:
            raise SystemExit(
                f"the writer ended with exit code {child.returncode}: the figures are not under "
                "load"
            )
    finally:
        child.kill()
        child.wait()


def write_until_killed(uri: str, days: int, gpus: int) -> None:
    """Store requests, recompute the cells of the newest minutes, keep the rollups: once a
    second."""
    settings = load(mongodb_uri=uri, mongodb_database=DATABASE)
    store = open_store(settings, "query-bench-writer")
    rollups = Rollups(RollupStore(store.database))
    usage, ledger = store[USAGE.collection], store[Collection.LEDGER_CELLS]
    number = int(time.time() * 1000) * 1000
    newest = START + timedelta(days=days)
    tick = 0
    while True:
        begun = time.monotonic()
        number += USAGES_PER_SECOND
        usage.insert_many(
            [_usage(number + index, gpus) for index in range(USAGES_PER_SECOND)], ordered=False
        )
        minute = newest - timedelta(minutes=1 + tick % 10)
        ledger.update_many({"minute": minute}, {"$inc": {"revision": 1}, "$set": {"rolled": False}})
        rollups.step()
        tick += 1
        time.sleep(max(0.0, 1 - (time.monotonic() - begun)))


def _usage(number: int, gpus: int) -> dict[str, Any]:
    at = datetime.now(UTC)
    return {
        "_id": number.to_bytes(16, "big"),
        "event_id": f"{number:032x}",
        "ts": at,
        "ts_us": number,
        "start_us": number - 2_000_000,
        "gpus": [f"GPU-{number % gpus:04d}"],
        "model": f"model-{number % 8}",
        "tenant": f"tenant-{number % 20:02d}",
        "request_id": f"r-{number}",
        "prompt_tokens": 900,
        "completion_tokens": 200,
        "ingested_at": at,
    }


@contextlib.contextmanager
def client(url: str, key: str) -> Iterator[httpx.Client]:
    """An HTTP client with the key."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False) as made:
        yield made


def ask_all(asked: httpx.Client, days: int, rounds: int, pid: int) -> None:
    """The questions, each many times. CPU is that of the api process: it tells more than time on a
    machine that is shared."""
    end = START + timedelta(days=days)
    few = max(5, rounds // 4)
    whole = {"from": START.isoformat(), "to": end.isoformat()}
    odd = {
        "from": (START + timedelta(minutes=17)).isoformat(),
        "to": (end - timedelta(minutes=23)).isoformat(),
    }
    week = {"from": (end - timedelta(days=7)).isoformat(), "to": end.isoformat()}
    hour = {"from": (end - timedelta(hours=1)).isoformat(), "to": end.isoformat()}
    until_now = end - timedelta(minutes=23)  # "now" is no whole hour
    last_day = {"from": (until_now - timedelta(days=1)).isoformat(), "to": until_now.isoformat()}
    kolkata = {**last_day, "bucket": "1h", "time_zone": "Asia/Kolkata"}
    berlin = {**whole, "group_by": ["model"], "bucket": "1d", "time_zone": "Europe/Berlin"}
    questions: list[tuple[str, dict[str, Any], int, float | None]] = [
        ("model, day", {**whole, "group_by": ["model"], "bucket": "1d"}, rounds, 100),
        ("model, day, Europe/Berlin", berlin, rounds, 100),
        ("model, tenant, hour (page of 1,000)", _by_hour(whole, 1_000), rounds, 500),
        ("model, tenant, hour (page of 10,000)", _by_hour(whole, 10_000), few, 500),
        ("model, tenant", {**whole, "group_by": ["model", "tenant"]}, rounds, None),
        (
            "class, hour",
            {**whole, "group_by": ["class"], "bucket": "1h", "limit": 10_000},
            rounds,
            None,
        ),
        (
            "tenant filter, model, day",
            {**whole, "group_by": ["model"], "bucket": "1d", "tenant": "tenant-03"},
            rounds,
            None,
        ),
        ("gpu, day", {**whole, "group_by": ["gpu"], "bucket": "1d", "limit": 10_000}, few, None),
        (
            "host, hour, 7 days",
            {**week, "group_by": ["host"], "bucket": "1h", "limit": 10_000},
            few,
            None,
        ),
        ("model, 30 days less 40 minutes", {**odd, "group_by": ["model"]}, rounds, None),
        ("model, 24 hours up to the minute", {**last_day, "group_by": ["model"]}, rounds, None),
        ("gpu, 24 hours up to the minute", {**last_day, "group_by": ["gpu"]}, few, None),
        ("model, hour, 24 hours, Asia/Kolkata", {**kolkata, "group_by": ["model"]}, few, None),
        ("model, minute, 1 hour", {**hour, "group_by": ["model"], "bucket": "1m"}, few, None),
    ]
    print(
        f"{'/v1/costs over ' + str(days) + ' days, by':44} {'rows':>7} {'p50 ms':>8} {'p95 ms':>8} "
        f"{'CPU ms':>8}  goal"
    )
    for name, params, times, goal_ms in questions:
        taken, rows, cpu_before_ms = [], 0, 1000 * cpu_seconds(pid)
        for _ in range(times):
            begun = time.perf_counter()
            answer = asked.get("/v1/costs", params=params)
            taken.append((time.perf_counter() - begun) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{name}: {answer.status_code} {answer.text}")
            rows = len(answer.json()["rows"])
        cpu_each_ms = (1000 * cpu_seconds(pid) - cpu_before_ms) / times
        p95 = statistics.quantiles(taken, n=20)[-1]
        verdict = (
            "" if goal_ms is None else f"{goal_ms:.0f} ms: {'met' if p95 <= goal_ms else 'MISSED'}"
        )
        print(
            f"{name:44} {rows:7,} {statistics.median(taken):8.1f} {p95:8.1f} {cpu_each_ms:8.1f}  "
            f"{verdict}"
        )
    begun, rows, pages = time.perf_counter(), 0, 0
    params = _by_hour(whole, 10_000)
    while True:
        body = asked.get("/v1/costs", params=params).json()
        rows, pages = rows + len(body["rows"]), pages + 1
        if body["next"] is None:
            break
        params["cursor"] = body["next"]
    print(
        f"{'model, tenant, hour (all pages)':44} {rows:7,} "
        f"{(time.perf_counter() - begun) * 1000:8.1f} {'':8}  {pages} pages"
    )


def _by_hour(whole: dict[str, Any], limit: int) -> dict[str, Any]:
    return {**whole, "group_by": ["model", "tenant"], "bucket": "1h", "limit": limit}


def export_day(asked: httpx.Client, days: int, pid: int) -> None:
    """A day in every minute and detail, as both kinds of file: speed and memory."""
    end = START + timedelta(days=days - 1)
    for name in ("csv", "parquet"):
        params: dict[str, Any] = {
            "from": (end - timedelta(days=1)).isoformat(),
            "to": end.isoformat(),
            "bucket": "1m",
            "group_by": ["gpu", "model"],
            "format": name,
        }
        begun, size, highest = time.perf_counter(), 0, 0.0
        with asked.stream("GET", "/v1/export", params=params) as answer:
            for index, chunk in enumerate(answer.iter_bytes()):
                size += len(chunk)
                if index % 50 == 0:
                    highest = max(highest, rss_mb(pid))
        seconds = time.perf_counter() - begun
        print(
            f"export of a day by minute, gpu, model as {name}: {size / 1e6:.0f} MB in "
            f"{seconds:.1f} s, "
            f"api resident at most {highest:.0f} MB"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
