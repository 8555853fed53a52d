"""Counters of engines in the ledger of a real MongoDB: beside requests, without any, placed and
not; in any order; audited."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from tests.integration.ledger_support import (
    MINUTE,
    Pipeline,
    contents,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.books.instances import InstanceStore
from gpu_token_analytics.costs.break_even import ApiPrices, against_api
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.live import live_figures
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.costs.questions import cost_query
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.costs.report import costs_of
from gpu_token_analytics.demo.view import read_figures, render
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.exporter.figures import LedgerFigures, windows
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.kind import Event

AT = minutes_ago(30)
SECOND = timedelta(seconds=1)
GPUS = ["GPU-a", "GPU-b"]


def counted(
    number: int, end: datetime, prompt: int, completion: int, **fields: Any
) -> EngineCounters:
    """Of 15 s up to `end`."""
    values: dict[str, Any] = {
        "event_id": f"counted-{number}",
        "ts": end,
        "host": "h1",
        "instance": "http://node1:8000/v1",
        "engine": "sglang",
        "model": "llama",
        "interval_ms": 15_000.0,
        "prompt_tokens": prompt,
        "cached_tokens": prompt // 4,
        "completion_tokens": completion,
        **fields,
    }
    return EngineCounters(**values)


def busy(gpus: Sequence[str] = GPUS, utilization: float | None = 0.8) -> list[Event]:
    """Samples of two minutes, every 10 s."""
    samples: list[Event] = []
    for place, gpu in enumerate(gpus):
        samples += [
            sample(100 * place + at, AT + at * 10 * SECOND, gpu_uuid=gpu, gpu_index=place,
            utilization=utilization,
                   mem_used_mb=40_000.0, source="replay")
            for at in range(13)
        ]  # fmt: skip
    return samples


def place(one: Pipeline, gpus: Sequence[str] = GPUS, model: str | None = None) -> None:
    row = {
        "instance": "node1:8000",
        "gpus": [*gpus],
        "host": "h1",
        "model": model,
        "counted_by": "any",
    }
    times = {"valid_from": datetime(2020, 1, 1, tzinfo=UTC), "valid_to": None}
    InstanceStore(one.store.database).append(
        [row | times], created_at=datetime.now(UTC), source="test"
    )


def ticks(first: int, counts: Sequence[tuple[int, int]], **fields: Any) -> list[Event]:
    return [
        counted(first + at, AT + (at + 1) * 15 * SECOND, *tokens, **fields)
        for at, tokens in enumerate(counts)
    ]


def totals(one: Pipeline) -> dict[str, int]:
    """Of all lines of engines."""
    lines = [
        line for cell in one.cells().values() for line in cell.get("lines", ()) if "counted" in line
    ]
    return {
        "counted": sum(
            line["counted"]["prompt_tokens"] + line["counted"]["completion_tokens"]
            for line in lines
        ),
        "unexplained": sum(line["prompt_tokens"] + line["completion_tokens"] for line in lines),
        "more": sum(
            line["counted"]["more_prompt_tokens"] + line["counted"]["more_completion_tokens"]
            for line in lines
        ),
    }


def checked(one: Pipeline) -> None:
    report = one.audit()
    assert report.holds, report.findings
    assert report.compared
    assert report.raw_counts is not None
    assert report.raw_counts["engine_prompt_tokens"] == report.ledger_counts["engine_prompt_tokens"]


def test_engines_and_requests_in_any_order(pipeline: Callable[..., Pipeline]) -> None:
    """Counted = of requests + unexplained, in each order of events, from memory and read back; the
    audit computes it again."""
    told = [
        usage(
            1,
            AT + 20 * SECOND,
            seconds=10.0,
            gpu_uuids=GPUS,
            prompt_tokens=300,
            completion_tokens=40,
            cached_tokens=0,
        ),
        usage(
            2,
            AT + 70 * SECOND,
            seconds=20.0,
            gpu_uuids=GPUS,
            prompt_tokens=200,
            completion_tokens=60,
            cached_tokens=0,
        ),
    ]
    counters = ticks(0, [(0, 0), (400, 50), (0, 0), (0, 0), (250, 90), (0, 0), (0, 0), (10, 5)])
    ledgers = []
    orders: list[list[Event]] = [
        [*busy(), *told, *counters],
        [*reversed(counters), *told, *busy()],
        [*told, *busy(), *counters, *counters],
    ]
    for number, order in enumerate(orders):
        one = pipeline(str(number))
        place(one)
        for event in order if number == 1 else [None]:
            one.ingest(order if event is None else [event])
            if number == 1:
                one.close()
        one.close()
        assert totals(one) == {"counted": 805, "unexplained": 805 - 600, "more": 0}
        checked(one)
        count, (engine,) = Reads(one.store.database).engines(AT, AT + 5 * MINUTE, 10)
        assert (count, engine["_id"], engine["engine"]) == (1, "node1:8000", "sglang")
        assert (engine["counted"], engine["unexplained"], engine["more"], engine["unplaced"]) == (
            805,
            205,
            0,
            False,
        )
        ((name, audited),) = one.audit().least_covered
        assert (name, audited.counted, audited.unexplained, audited.coverage) == (
            "node1:8000",
            805,
            205,
            600 / 805,
        )
        ledgers.append(contents(one.cells()))
    assert all(ledger == ledgers[0] for ledger in ledgers[1:])


def test_the_first_counters_of_all_are_not_missed(
    pipeline: Callable[..., Pipeline],
) -> None:
    """Nothing is asked of counters as long as none marked a cell: not of those that another process
    stored, nor of those that one stored who died before he marked anything."""
    counters = ticks(0, [(400, 50), (0, 0), (0, 0), (250, 90), (0, 0), (10, 5)])
    request = usage(1, AT + 20 * SECOND, seconds=10.0, gpu_uuids=GPUS)
    whole = pipeline("_whole")
    place(whole)
    whole.ingest([*busy(), request, *counters])
    whole.close()
    one, other, dead = pipeline(), pipeline(), pipeline()
    place(one)
    one.ingest([*busy(), request])
    one.close()

    other.ingest(counters[:2])
    one.close()
    assert totals(one)["counted"] == 450
    one.ingest(counters[2:4])
    one.close()
    assert totals(one)["counted"] == 790
    dead.store_only(counters[4:])
    one.ingest(counters[4:])
    one.close()
    assert contents(one.cells()) == contents(whole.cells())
    assert totals(one)["counted"] == 805
    checked(one)


def test_cost_per_model_without_any_request(pipeline: Callable[..., Pipeline]) -> None:
    """Money of GPU time that utilisation proves busy goes to models by counted tokens; sums say so
    by model and by class."""
    one = pipeline()
    place(one)
    one.ingest(busy())
    two = [(100, 50), (100, 50), (100, 50), (100, 50)] * 2
    one.ingest(ticks(0, two) + ticks(50, two, model="qwen", instance="node1:8000"))
    one.close()
    while Rollups(one.ledger.rollups).step():
        pass
    checked(one)
    reads = CostReads(one.store.database)
    start, end = AT.replace(minute=0), AT.replace(minute=0) + timedelta(hours=2)
    rows = list(reads.rows(CostQuery(start, end, group_by=("model",)), datetime.now(UTC)))
    by_model = {row.key[0]: row for row in rows}
    assert {"llama", "qwen"} < set(by_model)
    llama, qwen = by_model["llama"], by_model["qwen"]
    assert (llama["prompt_tokens"], llama["completion_tokens"], llama["requests"]) == (800, 400, 0)
    assert llama["counted_nusd"] > 0
    assert abs(llama["counted_nusd"] - qwen["counted_nusd"]) <= 4, (
        "the same work: but for a nano-dollar in each of 4 cells"
    )
    assert llama["cost_nusd"] == 0, "nothing is attributed: no request is known"
    cells = one.cells()
    assert sum(row.money_nusd for row in rows) == sum(
        cell.get("cost_nusd", 0) for cell in cells.values()
    )
    unmetered = sum(
        cell["classes"][MoneyClass.UNMETERED_WORK] for cell in cells.values() if "classes" in cell
    )
    assert sum(row["unmetered_work_nusd"] for row in rows) == unmetered
    assert unmetered - sum(row["counted_nusd"] for row in rows) < unmetered / 4, (
        "a third minute has no counters"
    )
    assert llama["warm_idle_nusd"] > 0, "the model keeps the GPU warm, too"
    classes = list(
        reads.rows(CostQuery(start, end, group_by=("class", "model", "tenant")), datetime.now(UTC))
    )
    of_engines = {row.key: row for row in classes if row["unmetered_prompt_tokens"]}
    assert {key: row["prompt_tokens"] for key, row in of_engines.items()} == {
        ("unmetered_work", "llama", None): 800,
        ("unmetered_work", "qwen", None): 800,
    }
    assert sum(row.money_nusd for row in classes) == sum(row.money_nusd for row in rows)


def test_rates_are_the_same_wherever_they_are_told(pipeline: Callable[..., Pipeline]) -> None:
    """Money of counted tokens is in a rate wherever the tokens are: of costs, of the moment, beside
    an API, in the demo, and what Prometheus divides. Tokens without money are in none."""
    one = pipeline()
    place(one)
    nowhere = usage(2, AT + 70 * SECOND, model="llama", gpu_uuids=["GPU-unknown"])
    known = usage(1, AT + MINUTE, model="llama", gpu_uuids=["GPU-a"])
    one.ingest([*busy(), *ticks(0, [(400, 50)] * 8), known, nowhere])
    one.close()
    while Rollups(one.ledger.rollups).step():
        pass
    lines = [line for cell in one.cells().values() for line in cell.get("lines", ())]
    priced = [line for line in lines if line["cost_nusd"] is not None]
    tokens = sum(line["prompt_tokens"] + line["completion_tokens"] for line in priced)
    counted_nusd = sum(line["counted"]["unmetered_nusd"] for line in priced if "counted" in line)
    active = (sum(line["cost_nusd"] for line in priced) + counted_nusd) / tokens / 1000
    assert counted_nusd > 0

    desk, now = Desk.over(one.store, one.settings), AT + 3 * MINUTE
    desk.now = lambda: now
    live = live_figures(desk, None)
    query = cost_query(live.window_from, now, group_by=("model",))
    costs = costs_of(desk, query, 100)
    llama = next(row for row in costs.rows if row.group["model"] == "llama")
    loaded = active + llama.money.warm_idle_nusd / tokens / 1000
    assert loaded > active
    told: list[Any] = [
        llama.rates,
        costs.totals.rates,
        *live.models,
        live,
    ]
    assert [rates.active_usd_per_million for rates in told] == pytest.approx([active] * len(told))
    assert [rates.loaded_usd_per_million for rates in told] == pytest.approx([loaded] * len(told))

    beside = against_api(desk, query, ApiPrices.of(0.6, ()), None).rows[0]
    assert beside.own_usd_per_million == pytest.approx(loaded)
    assert beside.utilization == pytest.approx(active / loaded)
    screen = Console(width=200, file=io.StringIO())
    screen.print(render(read_figures(desk.costs, query.start, query.end, now, 10**6), []))
    for rate in (active, loaded):
        assert f" {rate:,.3f}~" in screen.file.getvalue()  # type: ignore[attr-defined]

    metrics, later = ExporterMetrics(), AT + timedelta(hours=1)
    LedgerFigures(desk.costs, metrics, 50).update(later)
    start, end = windows(later)["last_hour"]
    hour = next(
        row
        for row in costs_of(desk, replace(query, start=start, end=end), 100).rows
        if row.group["model"] == "llama"
    )
    shown = {
        (sample.name, sample.labels.get("class")): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.labels.get("window") == "last_hour" and sample.labels.get("model") == "llama"
    }
    money = {
        name: shown["gpu_tokens_ledger_model_cost_usd", name]
        for name in ("attributed", "unmetered_work", "warm_idle")
    }
    divisor = shown["gpu_tokens_ledger_model_priced_tokens", None] / 1e6
    rates = hour.rates
    assert (money["attributed"] + money["unmetered_work"]) / divisor == pytest.approx(
        rates.active_usd_per_million
    )
    assert sum(money.values()) / divisor == pytest.approx(rates.loaded_usd_per_million)


def test_an_instance_without_a_placement_keeps_its_tokens(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    one.ingest([*busy(), *ticks(0, [(100, 50)] * 4)])
    one.close()
    checked(one)
    lines = [
        line for cell in one.cells(gpu="instance:node1:8000").values() for line in cell["lines"]
    ]
    assert [(line["method"], line["cost_nusd"], line["prompt_tokens"]) for line in lines] == [
        ("unknown_gpu", None, 400)
    ]
    assert "instance:node1:8000" in {
        name["key"]
        for name in one.store["inventory"].find({"kind": {"$exists": True}})
        if "key" in name
    }


def test_tokens_on_a_gpu_that_does_not_say_how_busy_it_is(
    pipeline: Callable[..., Pipeline],
) -> None:
    """Their money is not known: null, and no rate divides by them."""
    one = pipeline()
    place(one)
    one.ingest([*busy(utilization=None), *ticks(0, [(100, 50)] * 4)])
    one.close()
    checked(one)
    lines = [line for cell in one.cells().values() for line in cell.get("lines", ())]
    assert {line["counted"]["unmetered_nusd"] for line in lines} == {None}
    assert sum(line["prompt_tokens"] for line in lines) == 400


def test_the_placement_names_the_model_of_an_engine_that_does_not(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    place(one, model="qwen3-8b")
    one.ingest([*busy(), *ticks(0, [(100, 50)] * 4, model=None, engine="llamacpp")])
    one.close()
    lines = [line for cell in one.cells().values() for line in cell.get("lines", ())]
    assert {line["model"] for line in lines} == {"qwen3-8b"}


def test_a_gap_of_an_hour_is_spread_over_it(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    place(one)
    end = AT + 2 * MINUTE
    one.ingest([*busy(), counted(1, end, 60_007, 13, interval_ms=3_600_000.0, gap=True)])
    one.close()
    one.close()
    checked(one)
    assert totals(one) == {"counted": 60_020, "unexplained": 60_020, "more": 0}
    assert (
        len(
            {
                cell["minute"]
                for cell in one.cells().values()
                if any("counted" in line for line in cell.get("lines", ()))
            }
        )
        == 60
    )
