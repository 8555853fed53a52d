"""Very many names: does everything go on, are the figures exact, and how much memory does it take?

    hour      200,000 different (model, tenant) pairs in one hour of four GPUs
    minute    50,000 requests, each of a tenant of its own, in one minute of one GPU
    price     a price that changes back over 72,000 requests of 600 tenants, two hours of one GPU,
              after they were closed

Beside each a neighbour: one request whose cost is known beforehand. A real processor reads them
from the broker in memory, closes them and rolls them up; a real `api` process is asked over HTTP;
then everything is audited. Memory is each process's highest resident set (VmHWM), against a limit.

Run: `python -m bench names [--scale 0.1] [--only hour]`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import httpx

from bench.ingest_bench import database_of, one_running, stored_count, wait_until
from bench.processes import cpu_seconds, peak_rss_mb
from bench.query_bench import api_process, client
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.books.prices import PriceStore
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

MEMORY_LIMIT_MB = 600
PARTS = ("hour", "minute", "price")
ASKED = 20  # times each question, for its 95th percentile
MOST_SECONDS = 1800
# events sent before the processor has stored them: the broker keeps 5 MB a partition
AT_ONCE = 20_000
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
NEIGHBOUR_SECONDS = 36
NEIGHBOUR_NUSD = 850_000_000 * NEIGHBOUR_SECONDS // 3600
DATABASE = "many_names_bench"


def main(argv: list[str]) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench names", description=__doc__, formatter_class=_Raw
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the numbers of names and requests"
    )
    parser.add_argument("--only", choices=PARTS, help="one of them")
    given = parser.parse_args(argv)
    wanted = PARTS if given.only is None else (given.only,)
    topics = {"tokens": 12, "tokens.dlq": 12}
    with (
        tempfile.TemporaryDirectory(prefix="many-names-") as folder,
        EmbeddedMongod(Path(folder), cache_mb=512) as mongod,
        EmbeddedBroker(topics) as broker,
    ):
        settings = load(
            mongodb_uri=mongod.uri,
            mongodb_database=DATABASE,
            kafka_bootstrap=broker.bootstrap,
            close_debounce_seconds=2,
            silent_gpu_owned_minutes=0,
            log_level="WARNING",
        )
        create_topics(settings)
        with database_of(settings) as store:
            _run(settings, store, Path(folder), given.scale, wanted)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """The docstring as it stands."""


def _run(
    settings: Settings, store: Store, folder: Path, scale: float, wanted: Sequence[str]
) -> None:
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hour, minute, price = today - 6 * HOUR, today - 5 * HOUR, today - 4 * HOUR
    _, key = KeyStore(store.database).create("bench", frozenset([KeyScope.READ]), None, store.now())
    parts: dict[str, tuple[datetime, Iterator[Event]]] = {
        "hour": (hour, hour_of_pairs(hour, int(200_000 * scale))),
        "minute": (minute, minute_of_requests(minute, int(50_000 * scale))),
        "price": (price, requests_of_tenants(price, int(600 * scale), 120)),
    }
    with (
        one_running(settings, folder / "processor.log") as child,
        api_process(settings.mongodb_uri.get_secret_value(), DATABASE) as (url, api),
        client(url, key) as asked,
    ):
        processor = child.process.pid
        for name in wanted:
            start, events = parts[name]
            begun = time.perf_counter()
            _send(settings, store, [*events, *neighbour(name, start + 2 * MINUTE)])
            sent = time.perf_counter()
            _settle(store)
            _tell(name, "sent", sent - begun, processor, api)
            _tell(name, "closed and rolled up", time.perf_counter() - sent, processor, api)
            _ask(asked, name, start, processor, api)
            if name == "hour":
                _ask_often(asked, start, api)
        if "price" in wanted:
            _change_price(store, price, processor, api)
            _ask(asked, "price", price, processor, api)
        peaks = {"processor": peak_rss_mb(processor), "api": peak_rss_mb(api)}
    begun = time.perf_counter()
    report = audit(LedgerStore(store), params_of(settings))
    verdict = "holds" if report.holds else f"DOES NOT HOLD: {report.findings[:3]}"
    print(
        f"audit in {time.perf_counter() - begun:.0f} s: {verdict}; {report.cells:,} cells, "
        f"{report.sums_compared:,} sums"
    )
    _print_sizes(store)
    for name, peak in peaks.items():
        print(
            f"{name} peak resident memory: {peak:.0f} MB (limit {MEMORY_LIMIT_MB}: "
            f"{_met(peak <= MEMORY_LIMIT_MB)})"
        )


def _change_price(store: Store, since: datetime, processor: int, api: int) -> None:
    begun = time.perf_counter()
    PriceStore(store.database, 10_000).append(
        scope="gpu",
        key="GPU-price",
        usd_per_hour="3.60",
        mode="on_demand",
        usd_per_kwh=None,
        pue=None,
        valid_from=since,
        valid_to=None,
        created_at=store.now(),
        source="bench",
    )
    wait_until(lambda: _due(store) > 0, "the price marks its cells", lambda: 0.2, 60)
    _settle(store)
    _tell(
        "price", "changed, closed and rolled up again", time.perf_counter() - begun, processor, api
    )


def hour_of_pairs(start: datetime, pairs: int) -> Iterator[Event]:
    """Requests of 5 seconds, each of another (model, tenant), spread over an hour of four GPUs."""
    for gpu in range(4):
        yield from samples(f"GPU-hour-{gpu}", f"hour-{gpu}", start, 60)
    for number in range(pairs):
        gpu = number % 4
        end = start + timedelta(seconds=10 + number * 3580 / pairs)
        model, tenant = (
            f"org-{number % 40}/model-{number % 2000}-instruct",
            f"team-{number // 2000}",
        )
        yield request(f"hour-{number}", end, 5, f"GPU-hour-{gpu}", f"hour-{gpu}", model, tenant)


def minute_of_requests(start: datetime, requests: int) -> Iterator[Event]:
    """Requests that are all active in one minute of one GPU, each of a tenant of its own."""
    yield from samples("GPU-minute", "minute-0", start, 4)
    for number in range(requests):
        end = start + MINUTE + timedelta(seconds=20 + number * 39 / requests)
        yield request(
            f"minute-{number}",
            end,
            15,
            "GPU-minute",
            f"minute-{number % 24}",
            "model-a",
            f"tenant-{number}",
        )


def requests_of_tenants(start: datetime, tenants: int, minutes: int) -> Iterator[Event]:
    """A request of every tenant in every minute of one GPU."""
    yield from samples("GPU-price", "price-0", start, minutes)
    for minute in range(minutes):
        for number in range(tenants):
            end = start + minute * MINUTE + timedelta(seconds=30 + number * 29 / tenants)
            name = f"price-{minute}-{number}"
            yield request(
                name,
                end,
                20,
                "GPU-price",
                f"price-{number % 24}",
                f"model-{number % 5}",
                f"tenant-{number}",
            )


def neighbour(name: str, at: datetime) -> Iterator[Event]:
    """One request alone on a GPU, whose cost is known."""
    gpu, host = f"GPU-neighbour-{name}", f"neighbour-{name}"
    yield from samples(gpu, host, at, 2)
    end = at + timedelta(seconds=10 + NEIGHBOUR_SECONDS)
    yield request(
        f"neighbour-{name}", end, NEIGHBOUR_SECONDS, gpu, host, "model-n", f"neighbour-{name}"
    )


def samples(gpu: str, host: str, start: datetime, minutes: int) -> Iterator[GpuSample]:
    """Two samples a minute."""
    for number in range(2 * minutes):
        yield GpuSample(
            event_id=f"{gpu}-{number}",
            ts=start + timedelta(seconds=30 * number),
            host=host,
            gpu_index=0,
            gpu_uuid=gpu,
            name="NVIDIA L40S",
            utilization=0.5,
            mem_used_mb=40_000.0,
            mem_total_mb=46_068.0,
            power_w=250.0,
            source="seed",
        )


def request(
    name: str, end: datetime, seconds: float, gpu: str, host: str, model: str, tenant: str
) -> TokenUsage:
    """One finished request."""
    return TokenUsage(
        event_id=name,
        ts=end,
        host=host,
        model=model,
        tenant=tenant,
        request_id=name,
        prompt_tokens=500,
        completion_tokens=100,
        latency_ms=seconds * 1000,
        gpu_uuids=[gpu],
    )


def _send(settings: Settings, store: Store, events: list[Event]) -> None:
    with EventProducer(settings) as producer:
        for at in range(0, len(events), AT_ONCE):
            some = events[at : at + AT_ONCE]
            wanted = stored_count(store) + len(some)
            for event in some:
                producer.send(event)
            producer.flush(120)
            wait_until(
                lambda wanted=wanted: stored_count(store) >= wanted,  # type: ignore[misc]
                "events are stored",
                lambda: 0.1,
                MOST_SECONDS,
            )


def _due(store: Store) -> int:
    return store[Collection.LEDGER_CELLS].count_documents({"due_at": {"$exists": True}})


def _settle(store: Store) -> None:
    """Until nothing is due, and the sums hold everything."""

    def settled() -> bool:
        if _due(store) or store[Collection.LEDGER_CELLS].count_documents({"rolled": False}):
            return False
        hourly = store[Collection.ROLLUPS_HOURLY]
        if hourly.count_documents({"rolled": False}):
            return False
        summed: int = sum(
            hour["total"]["requests"]
            for hour in hourly.find({"scope": "fleet"}, {"total.requests": 1})
        )
        return summed == int(store[USAGE.collection].estimated_document_count())

    wait_until(settled, "everything is closed and rolled up", lambda: 0.5, MOST_SECONDS)


def _ask(asked: httpx.Client, name: str, start: datetime, processor: int, api: int) -> None:
    """The questions that read most, and what the neighbour costs."""
    whole: dict[str, Any] = {"from": start.isoformat(), "to": (start + 2 * HOUR).isoformat()}
    if name != "price":
        whole["to"] = (start + HOUR).isoformat()
    begun = time.perf_counter()
    for group_by in (["model"], ["tenant"], ["model", "tenant"]):
        _get(asked, "/v1/costs", {**whole, "group_by": group_by, "limit": 10_000})
    _get(asked, "/v1/quality", whole)
    _get(asked, "/v1/ledger/cells", {**whole, "limit": 1000})
    with asked.stream(
        "GET", "/v1/export", params={**whole, "group_by": ["model", "tenant"], "format": "csv"}
    ) as answer:
        rows = sum(chunk.count(b"\n") for chunk in answer.iter_bytes())
    own = _get(asked, "/v1/costs", {**whole, "tenant": f"neighbour-{name}"})["totals"]
    cost = own["money"]["attributed_nusd"]
    right = _met(abs(cost - NEIGHBOUR_NUSD) <= 1)
    _tell(
        name,
        f"asked ({rows:,} rows exported; the neighbour's {cost:,} nano-USD: {right})",
        time.perf_counter() - begun,
        processor,
        api,
    )


def _ask_often(asked: httpx.Client, start: datetime, api: int) -> None:
    """What the hour with all the pairs costs who asks, again and again."""
    whole: dict[str, Any] = {"from": start.isoformat(), "to": (start + HOUR).isoformat()}
    pairs = {**whole, "group_by": ["model", "tenant"]}
    middle, some = None, {**pairs, "limit": 10_000}
    for _ in range(10):
        middle = _get(asked, "/v1/costs", some | ({"cursor": middle} if middle else {}))["next"]
        if middle is None:
            break
    after = {"cursor": middle} if middle else {}
    questions: tuple[tuple[str, dict[str, Any]], ...] = (
        ("by model", {**whole, "group_by": ["model"], "limit": 10_000}),
        ("by tenant", {**whole, "group_by": ["tenant"], "limit": 10_000}),
        (
            "one tenant by model",
            {**whole, "group_by": ["model"], "tenant": "team-7", "limit": 10_000},
        ),
        ("pairs, the first 1,000", {**pairs, "limit": 1000}),
        ("pairs, 1,000 in the middle", {**pairs, "limit": 1000} | after),
        ("pairs, the first 10,000", some),
        ("pairs, 10,000 in the middle", some | after),
        ("pairs, the 1,000 dearest", {**pairs, "top": 1000}),
    )
    for name, params in questions:
        taken, cpu_before_ms, rows = [], 1000 * cpu_seconds(api), 0
        for _ in range(ASKED):
            begun = time.perf_counter()
            rows = len(_get(asked, "/v1/costs", params)["rows"])
            taken.append((time.perf_counter() - begun) * 1000)
        p50, p95 = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
        cpu = (1000 * cpu_seconds(api) - cpu_before_ms) / ASKED
        print(
            f"hour    {name:28} {rows:7,} rows, p50 {p50:.0f} ms, p95 {p95:.0f} ms, CPU {cpu:.0f} "
            f"ms, api {peak_rss_mb(api):.0f} MB"
        )


def _get(asked: httpx.Client, path: str, params: dict[str, Any]) -> Any:
    answer = asked.get(path, params=params)
    if answer.status_code != 200:
        raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
    return answer.json()


def _tell(name: str, what: str, seconds: float, processor: int, api: int) -> None:
    memory = (
        f"peak so far: processor {peak_rss_mb(processor):.0f} MB, api {peak_rss_mb(api):.0f} MB"
    )
    print(f"{name:7} {what} in {seconds:.0f} s; {memory}", flush=True)


def _print_sizes(store: Store) -> None:
    names = (
        Collection.LEDGER_CELLS,
        Collection.ROLLUPS_HOURLY,
        Collection.ROLLUPS_DAILY,
        Collection.LINE_CHUNKS,
    )
    for name in names:
        largest = max((len(bson.encode(found)) for found in store[name].find()), default=0)
        print(f"largest document of {name.value}: {largest / 1e6:.2f} MB (MongoDB takes 16.78)")


def _met(met: bool) -> str:
    return "met" if met else "MISSED"
