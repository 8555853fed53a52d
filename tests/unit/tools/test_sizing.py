"""Sizes: plausible for a known fleet, growing with what they are made of, and the pages and files
say the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.settings import Settings
from gpu_token_analytics.tools.sizing import GB, UNITS, Constants, Load, Rules, constants, size

ROOT = Path(__file__).parents[3]
LOADS = st.builds(
    Load,
    gpus=st.integers(1, 2_000_000),
    requests_per_second=st.floats(0, 1e6),
    copies=st.integers(1, 5),
)


def simple(**values: float) -> Constants:
    """Every constant is 1, but those given."""
    known = constants()
    return Constants("by hand", known.measured_on, "none", {**dict.fromkeys(UNITS, 1.0), **values})


def test_by_hand() -> None:
    load = Load(
        500, 900, 5.0, kafka_retention_hours=10, raw_retention_days=2, ledger_days=3, copies=1
    )
    measured = simple(
        processor_events_per_second=2000, kafka_bytes_per_usage=100, kafka_bytes_per_sample=50,
        mongo_bytes_per_usage=10,
        mongo_bytes_per_sample=20, mongo_bytes_per_cell=7, mongo_bytes_per_gpu_hour=5,
        mongo_bytes_per_gpu_day=3,
        mongod_us_per_event=200, closer_us_per_cell=30, closer_us_per_request=4,
    )  # fmt: skip
    found = size(load, Rules(), measured)
    assert (found.events_per_second, found.peak_events_per_second) == (1000, 100 + 4500)
    assert found.processors == 5  # 4600 / (2000 / 2)
    assert found.partitions == 12
    assert found.kafka_disk_gb == pytest.approx((900 * 100 + 100 * 50) * 36_000 / 0.75 / GB)
    assert found.mongo_raw_gb == pytest.approx((900 * 10 + 100 * 20) * 86_400 * 2 / GB)
    assert found.mongo_ledger_gb == pytest.approx(500 * (1440 * 7 + 24 * 5 + 3) * 3 / GB)
    assert found.mongo_disk_gb == pytest.approx((found.mongo_raw_gb + found.mongo_ledger_gb) / 0.75)
    assert found.mongod_cores == pytest.approx(4600 * 200e-6 / 0.5)
    assert found.closer_cores == pytest.approx(8 * (500 / 60 * 30 + 900 * 4) / 1e6)


@given(LOADS)
def test_more_needs_no_less(load: Load) -> None:
    found = size(load)
    for more in (
        replace(load, gpus=2 * load.gpus),
        replace(load, requests_per_second=2 * load.requests_per_second),
    ):
        larger = size(more)
        assert larger.partitions >= found.partitions >= found.processors
        assert larger.processors >= found.processors >= 2
        assert larger.mongo_disk_gb * larger.shards >= found.mongo_disk_gb * found.shards
        assert larger.kafka_disk_gb >= found.kafka_disk_gb
    assert found.kafka_brokers >= load.copies


def test_the_constants_are_a_measurement_that_says_how() -> None:
    measured = constants()
    assert set(measured.values) == set(UNITS)
    assert all(value > 0 for value in measured.values.values())
    assert measured.measured_by.startswith("python -m bench constants")


def test_defaults_are_those_of_the_settings() -> None:
    load = Load(1, 1)
    fields = Settings.model_fields
    assert load.raw_retention_days == fields["raw_retention_days"].default
    assert load.kafka_retention_hours == fields["kafka_retention_hours"].default
    assert load.sample_interval_seconds == fields["sample_interval_seconds"].default
    assert Rules().least_partitions == fields["kafka_partitions"].default


def test_the_command_says_what_is_computed() -> None:
    program = [
        sys.executable,
        "-m",
        "gpu_token_analytics",
        "size",
        "--gpus",
        "200",
        "--requests",
        "100",
    ]
    told = json.loads(
        subprocess.run(
            [*program, "--json"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    )
    assert told["size"]["processors"] == size(Load(200, 100)).processors
    text = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout
    assert re.search(r"^processors +2, each", text, re.MULTILINE)
    assert str(constants().measured_on) in text
