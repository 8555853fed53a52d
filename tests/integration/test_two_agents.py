"""Two agents of one host: one asks the driver, the other dcgm-exporter's page, as old as its
interval. One card, paid once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import Pipeline, minutes_ago, usage
from tests.unit.agent.fake_nvml import FakeGpu, FakeNvml
from tests.unit.agent.test_dcgm import CARD, OTHER, UUID, rows

from gpu_token_analytics.agent.readings import GpuReading, GpuSource, tell_apart
from gpu_token_analytics.agent.sources.dcgm import DcgmSource
from gpu_token_analytics.agent.sources.nvml import NvmlSource
from gpu_token_analytics.sources.instances import InstanceBook, InstancePlacement
from gpu_token_analytics.sources.placed_events import placed
from gpu_token_analytics.wire.kind import Event

MINUTE_NUSD = 14_166_667  # 0.85 USD an hour, rounded
MINUTES = 4
WATTS = 600
EXPORTER_SECONDS = 30


def joules(second: int) -> int:
    """What the cards' counters stand at."""
    return 1_000_000 + WATTS * second


def samples(source: GpuSource, host: str, at: datetime) -> Iterator[Event]:
    for reading in tell_apart(source.read(), host):
        assert isinstance(reading, GpuReading)
        yield reading.to_sample(host, at, source.name)


def by_driver(start: datetime, host: str) -> Iterator[Event]:
    """Every 5 s, as it is."""
    for second in range(0, MINUTES * 60 + 1, 5):
        cards = [
            FakeGpu(uuid, milliwatts=WATTS * 1000, millijoules=joules(second) * 1000)
            for uuid in (UUID, OTHER)
        ]
        yield from samples(NvmlSource(FakeNvml(*cards)), host, start + timedelta(seconds=second))


def by_exporter(start: datetime, host: str, label: str) -> Iterator[Event]:
    """Every 5 s, as it was when the exporter looked last: its own name of the host stands in
    `Hostname` or `hostname`."""
    for second in range(2, MINUTES * 60, 5):
        then = second // EXPORTER_SECONDS * EXPORTER_SECONDS
        card = CARD | {
            "DCGM_FI_DEV_POWER_USAGE": str(WATTS),
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": str(joules(then) * 1000),
        }
        page = rows(card, UUID, label, 0) + rows(card, OTHER, label, 1)
        source = DcgmSource("http://exporter/metrics", host, lambda _url, page=page: page)  # type: ignore[misc]
        yield from samples(source, host, start + timedelta(seconds=second))


def requests(start: datetime) -> list[Event]:
    """Of an engine on both cards, and of one whose client names the second by the host's other
    name."""
    book = InstanceBook([InstancePlacement("node1:8000", ("node1/0", "node1/1"), "node1", None)])
    asked = usage(
        1,
        start + timedelta(seconds=90),
        30,
        host="gateway",
        gpu_uuids=["instance:http://node1:8000/v1"],
    )
    on_both = placed(asked, book)
    assert on_both is not None
    return [
        on_both,
        usage(
            2,
            start + timedelta(seconds=100),
            20,
            host="node1.example",
            gpu_uuids=["node1.example/1"],
        ),
    ]


def sums(one: Pipeline) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    # others are of names that turned out to be of these cards
    for cell in one.cells(owned_us={"$gt": 0}).values():
        gpu = found.setdefault(
            cell["gpu"], {"cost": 0, "classes": {}, "energy_mj": 0, "attributed": 0}
        )
        gpu["cost"] += cell["cost_nusd"]
        gpu["energy_mj"] += cell["energy_mj"] or 0
        for name, nusd in cell["classes"].items():
            gpu["classes"][name] = gpu["classes"].get(name, 0) + nusd
    return found


@pytest.mark.parametrize("label", ["Hostname", "hostname"])
@pytest.mark.parametrize("other_host", ["node1", "node1.example", "NODE1."])
def test_both_tell_of_one_card_that_is_paid_once(
    pipeline: Callable[..., Pipeline], label: str, other_host: str
) -> None:
    start = minutes_ago(30)
    alone, both = (pipeline(silent_gpu_owned_minutes=0) for _ in range(2))
    alone.ingest([*by_driver(start, "node1"), *requests(start)])
    both.ingest(
        [*by_driver(start, "node1"), *by_exporter(start, other_host, label), *requests(start)]
    )
    for one in (alone, both):
        one.close()
        one.close()
        report = one.audit()
        assert report.holds, report.findings
        assert report.shared_uuids == 0
    by_one, by_two = sums(alone), sums(both)
    assert by_two.keys() == by_one.keys() == {UUID, OTHER}
    for gpu in (UUID, OTHER):
        assert by_two[gpu]["cost"] == by_one[gpu]["cost"]
        # and the minute that the last sample opens
        assert abs(by_two[gpu]["cost"] - MINUTES * MINUTE_NUSD) <= MINUTE_NUSD
        assert by_two[gpu]["classes"]["attributed"] == by_one[gpu]["classes"]["attributed"] > 0
        assert by_two[gpu]["energy_mj"] > 0.9 * MINUTES * 60 * WATTS * 1000
        assert by_two[gpu]["energy_mj"] == pytest.approx(by_one[gpu]["energy_mj"], rel=0.01)
