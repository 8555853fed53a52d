"""The processor's HTTP answers, from what it knows of itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest
from httpx import ASGITransport, AsyncClient, Response

from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import StoreUnreachable
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.processor.app import Condition, make_app

WELL = Condition(idle_seconds=0.1, waiting_seconds=0, partitions=3, threads={"the closer": True})


class FakeStore:
    """A store that answers, or does not."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def ping(self) -> None:
        if not self._answers:
            raise StoreUnreachable("MongoDB does not answer")


def get(path: str, condition: Condition, *, store_answers: bool = True) -> Response:
    app = make_app(
        cast("Store", FakeStore(store_answers)), Metrics(), SystemClock(), 60, lambda: condition
    )

    async def ask() -> Response:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://processor") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_all_is_well() -> None:
    for path in ("/health", "/ready"):
        answer = get(path, WELL)
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "ok", "problems": [], "warnings": []},
        )


def test_bad_records_of_others_are_a_warning_and_keep_nobody_from_getting_ready() -> None:
    answer = get("/ready", replace(WELL, bad_records="1000 of the last 1,000 records are bad"))
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["warnings"] == ["1000 of the last 1,000 records are bad"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_clocks_that_differ_are_a_warning(path: str) -> None:
    answer = get(path, replace(WELL, clock_skew="this machine's clock is 6 s behind MongoDB's"))
    assert (answer.status_code, answer.json()["warnings"]) == (
        200,
        ["this machine's clock is 6 s behind MongoDB's"],
    )


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        (replace(WELL, idle_seconds=61), "no progress for 61 s"),
        (replace(WELL, threads={"the closer": False}), "the closer has ended"),
    ],
)
def test_a_dead_or_stuck_process_is_unhealthy_and_not_ready(
    condition: Condition, problem: str
) -> None:
    for path in ("/health", "/ready"):
        answer = get(path, condition)
        assert answer.status_code == 503
        assert problem in answer.json()["problems"][0]


@pytest.mark.parametrize(
    ("condition", "store_answers", "problem"),
    [
        (replace(WELL, partitions=0), True, "no partition is assigned"),
        (replace(WELL, waiting_seconds=12), True, "writes have not gone through for 12 s"),
        (WELL, False, "MongoDB does not answer"),
    ],
)
def test_what_a_restart_would_not_repair_is_not_ready_but_healthy(
    condition: Condition, store_answers: bool, problem: str
) -> None:
    assert get("/health", condition, store_answers=store_answers).status_code == 200
    answer = get("/ready", condition, store_answers=store_answers)
    assert answer.status_code == 503
    assert problem in answer.json()["problems"][0]


def test_metrics_are_in_prometheus_format_and_say_what_they_mean() -> None:
    answer = get("/metrics", WELL)
    assert answer.status_code == 200
    assert "# HELP gpu_tokens_consumed_total Records read from Kafka" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("condition", "status", "said"),
    [
        (replace(WELL, sums_lag_seconds=30), 200, ""),
        (
            replace(WELL, sums_lag_seconds=90),
            200,
            "the hourly and daily sums are 90 s behind the cells",
        ),
        (
            replace(WELL, sums_lag_seconds=1000),
            503,
            "the hourly and daily sums are 1000 s behind the cells",
        ),
        (replace(WELL, set_aside=2), 200, "2 cells or sums are set aside"),
    ],
)
def test_sums_that_lag_and_documents_set_aside_are_told(
    condition: Condition, status: int, said: str
) -> None:
    answer = get("/ready", condition)
    body = answer.json()
    assert answer.status_code == status
    assert said in " ".join(body["problems" if status == 503 else "warnings"])
    assert bool(body["problems"]) == (status == 503)
    assert bool(body["warnings"]) == (status == 200 and bool(said))
