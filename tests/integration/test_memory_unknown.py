"""A GPU whose driver does not say how much memory is held: its idle class is by requests of the
hour before, in any order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import permutations

import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, contents, minutes_ago, sample, usage

from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.wire.kind import Event

AT = minutes_ago(180)
SECOND = timedelta(seconds=1)
# Every 30 s of minutes 0 and 1, 58 to 61 and 90.
SAMPLES: list[Event] = [
    sample(
        n,
        AT + minute * MINUTE + part * SECOND,
        mem_used_mb=None,
        mem_total_mb=None,
        source="replay",
    )
    for n, (minute, part) in enumerate(
        (minute, part) for minute in (0, 1, 58, 59, 60, 61, 90) for part in (0, 30)
    )
]
FIRST = usage(1, AT + 50 * SECOND, seconds=10.0)  # keeps its model until 60 min 50 s
POINT = usage(2, AT + 30 * MINUTE, latency_ms=0.0)  # until 90 min 0 s


def warm_us(one: Pipeline) -> dict[int, int]:
    """Minutes after AT with warm idle time."""
    cells = one.cells(gpu="GPU-a", owned_us={"$gt": 0}).values()
    assert sum(cell["class_us"]["unobserved"] for cell in cells if cell["samples"]) == 0, (
        "sampled is observed"
    )
    for cell in cells:
        assert (
            cell["memory_unknown_us"]
            == cell["class_us"]["warm_idle"] + cell["class_us"]["cold_idle"]
        )
    found = {(cell["minute"] - AT) // MINUTE: cell["class_us"]["warm_idle"] for cell in cells}
    return {minute: us for minute, us in sorted(found.items()) if us}


@pytest.mark.parametrize(
    ("requests", "expected_s"),
    [
        ([], {}),
        ([FIRST], {0: 10, 1: 60, 58: 60, 59: 60, 60: 50}),
        ([FIRST, POINT], {0: 10, 1: 60, 58: 60, 59: 60, 60: 60, 61: 60}),
        # it takes all of its minute
        ([usage(1, AT + 50 * SECOND, latency_ms=None)], {1: 60, 58: 60, 59: 60, 60: 50}),
        # it ends on a border
        ([usage(1, AT + 60 * SECOND, seconds=10.0)], {1: 60, 58: 60, 59: 60, 60: 60}),
        (
            [usage(1, AT + 50 * SECOND, seconds=10.0, gpu_uuids=[], gpu_index=0)],
            {0: 10, 1: 60, 58: 60, 59: 60, 60: 50},
        ),
        ([usage(1, AT + 50 * SECOND, seconds=10.0, gpu_uuids=["GPU-b"])], {}),
    ],
    ids=["none", "one", "two", "window", "border", "label", "another GPU's"],
)
def test_the_requests_of_the_hour_before_count_in_any_order(
    pipeline: Callable[..., Pipeline], requests: list[Event], expected_s: dict[int, int]
) -> None:
    parts: list[list[Event]] = [requests, SAMPLES[:6], SAMPLES[6:]]
    ledgers = []
    for number, order in enumerate(permutations(parts)):
        one = pipeline(str(number), silent_gpu_owned_minutes=0)
        for events in order:
            for event in events:
                one.ingest([event])
            one.close()
        assert warm_us(one) == {
            minute: seconds * 1_000_000 for minute, seconds in expected_s.items()
        }
        report = one.audit()
        assert report.holds, report.findings
        ledgers.append(contents(one.cells()))
    assert all(ledger == ledgers[0] for ledger in ledgers[1:])


def test_a_request_that_turns_out_to_be_another_gpus_is_forgotten(
    pipeline: Callable[..., Pipeline],
) -> None:
    """Its label means the GPU that carried it at the time, and a sample says so late."""
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest([*SAMPLES[2:], usage(1, AT + 5 * SECOND, seconds=2.0, gpu_uuids=[], gpu_index=0)])
    one.close()
    assert warm_us(one)[58] == 60_000_000
    one.ingest([sample(99, AT, gpu_uuid="GPU-b", source="replay")])
    one.close()
    assert warm_us(one) == {}
    report = one.audit()
    assert report.holds, report.findings


def test_sums_hold_how_much_was_classed_without_a_reading(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest([*SAMPLES, FIRST])
    one.close()
    rollups = Rollups(one.ledger.rollups)
    while rollups.step_now():
        pass
    fleet = one.store.database.rollups_daily.find({"scope": "fleet"})
    unread_us = sum(day["space"]["memory_unknown_us"] for day in fleet)
    assert (
        unread_us == sum(cell["memory_unknown_us"] for cell in one.cells().values()) == 410_000_000
    )
    assert one.audit().holds
