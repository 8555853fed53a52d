"""What a query has to read, in spans: the short ways must give what cutting every bucket gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.costs.questions import cost_query
from gpu_token_analytics.rollups.spans import Step, buckets, runs, spans

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
]
FIRST = datetime(2017, 1, 1, tzinfo=UTC)


@given(
    st.integers(0, 10 * 365 * 1440).map(lambda minutes: FIRST + timedelta(minutes=minutes)),
    st.integers(1, 5 * 1440),
    st.sampled_from(list(Step)),
    st.sampled_from(ZONES),
    st.booleans(),
)
def test_spans_are_those_of_every_bucket(
    start: datetime, minutes: int, step: Step, name: str, whole_hours: bool
) -> None:
    if whole_hours:
        start, minutes = start.replace(minute=0), -(-minutes // 60) * 60
    end, tz = start + timedelta(minutes=minutes), ZoneInfo(name)
    every = runs(piece for low, high in buckets(start, end, step, tz) for piece in spans(low, high))
    assert CostQuery(start, end, step, tz).spans == tuple(every)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("gpu-A", "GPU-a"),
        ("GPU-a::1", "GPU-a"),
        ("Node1.Example./00", "node1.example/0"),
        ("[FD00::1]/0", "fd00::1/0"),
        ("MIG-GPU-1F/2/0", "MIG-gpu-1f-2-0"),
        ("8F4C2A1B-77AA-4F1E-9D52-0C1D2E3F4A5B", "GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"),
    ],
)
def test_a_gpu_is_asked_for_in_any_spelling(asked: str, stored: str) -> None:
    query = cost_query(FIRST, FIRST + timedelta(hours=1), gpus=[asked, "n1/GPU-b"])
    assert {stored, asked, "n1/GPU-b"} <= query.gpus


def test_a_host_is_asked_for_in_any_spelling() -> None:
    assert cost_query(FIRST, FIRST + timedelta(hours=1), hosts=["Node1.Example."]).hosts >= {
        "node1.example"
    }
    assert cost_query(FIRST, FIRST + timedelta(hours=1)).hosts == frozenset(), "all"
