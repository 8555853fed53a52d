"""A sample interval over a border of minutes: what one minute says depends on the requests of the
other, in any order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, contents, minutes_ago, sample, usage

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.kind import Event

AT = minutes_ago(30)
SECOND = timedelta(seconds=1)
HELD = {"mem_used_mb": 40_000.0, "source": "replay"}
# 50 % of 20 s over the border, of which the request covers 8 s: 2 s of unknown work in the 12 s
#    that are left.
BEFORE = sample(1, AT + 50 * SECOND, utilization=0.0, **HELD)
AFTER = sample(2, AT + 70 * SECOND, utilization=0.5, **HELD)
LATER = [sample(3 + n, AT + (90 + 20 * n) * SECOND, utilization=0.0, **HELD) for n in range(2)]


def unmetered_us(one: Pipeline) -> list[int]:
    """Of both minutes."""
    cells = one.cells(gpu="GPU-a")
    by_minute = {cell["minute"]: cell for cell in cells.values()}
    return [by_minute[AT + n * MINUTE]["class_us"]["unmetered_work"] for n in (0, 1)]


@pytest.mark.parametrize(
    ("request_", "expected_us"),
    [
        # in the second minute alone
        (usage(1, AT + 69 * SECOND, seconds=8.0), [1_666_667, 333_333]),
        (usage(1, AT + 59 * SECOND, seconds=8.0), [333_333, 1_666_667]),  # in the first alone
        # by its label
        (usage(1, AT + 69 * SECOND, seconds=8.0, gpu_uuids=[], gpu_index=0), [1_666_667, 333_333]),
        (usage(1, AT + 65 * SECOND, seconds=10.0), [0, 0]),
        # it takes all of its minute: 10 s of the interval
        (usage(1, AT + 61 * SECOND, latency_ms=None), [0, 0]),
        (usage(1, AT + 61 * SECOND, latency_ms=0.0), [5_000_000, 5_000_000]),
    ],
    ids=["after", "before", "label", "across", "window", "point"],
)
def test_the_other_minutes_requests_count(
    pipeline: Callable[..., Pipeline], request_: Event, expected_us: list[int]
) -> None:
    ledgers = []
    orders: list[list[Event]] = [
        [request_, BEFORE, AFTER],
        [BEFORE, AFTER, request_],
        [AFTER, request_, BEFORE],
    ]
    for number, order in enumerate(orders):
        one = pipeline(str(number))
        one.ingest(LATER)
        for event in order:
            one.ingest([event])
            one.close()
        assert unmetered_us(one) == expected_us, [event.event_id for event in order]
        report = one.audit()
        assert report.holds, report.findings
        ledgers.append(contents(one.cells()))
    assert all(ledger == ledgers[0] for ledger in ledgers[1:])


def test_what_is_read_back_says_the_same_as_what_is_remembered(
    pipeline: Callable[..., Pipeline],
) -> None:
    """Closing from memory, and by a process that has to read everything."""
    events: list[Event] = [
        usage(1, AT + 69 * SECOND, seconds=8.0),
        usage(2, AT + 61 * SECOND, latency_ms=0.0),
        BEFORE,
        AFTER,
        *LATER,
    ]
    one, another = pipeline("a"), pipeline("b")
    one.ingest(events)
    one.close()
    another.ingest(events)
    another.restart()
    another.close()
    assert contents(one.cells()) == contents(another.cells())
    assert unmetered_us(one) == [1_666_667, 333_333]


def test_a_minute_opened_by_a_request_beside_it_costs_nothing(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    one.ingest([sample(1, AT + 30 * SECOND, **HELD), usage(1, AT + 55 * SECOND, seconds=1.0)])
    one.close()
    cells = {cell["minute"]: cell["owned_us"] for cell in one.cells(gpu="GPU-a").values()}
    assert cells == {AT: 60_000_000, AT + MINUTE: 0}
    assert one.store[Collection.LEDGER_CELLS].count_documents({"due_at": {"$exists": True}}) == 0
    assert one.audit().holds
