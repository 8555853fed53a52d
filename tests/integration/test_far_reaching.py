"""Requests that reach further than a batch may: the others of their batch do not wait for them, and
no death loses a mark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import (
    MINUTE,
    Pipeline,
    close_due,
    contents,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.cells.marks import CellMarker
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.usage import TokenUsage

AT = minutes_ago(120)
MOST = 40
# Each on three GPUs of its own for 20 minutes: 3 x 22 cells, those beside it included. One names
# labels.
FAR: list[TokenUsage] = [
    usage(
        n,
        AT + 20 * MINUTE,
        seconds=1200.0,
        gpu_uuids=[f"GPU-{n}-{part}" for part in range(3)],
        tenant="far",
    )
    for n in range(3)
]
FAR.append(
    usage(3, AT + 20 * MINUTE, seconds=1200.0, gpu_uuids=["h1/5", "h1/6", "h1/7"], tenant="far")
)
# The first label turns out to be a card whose samples come later.
SAMPLES: list[Event] = [
    sample(n, AT + n * MINUTE, gpu_uuid="GPU-label", gpu_index=5, source="replay")
    for n in range(0, 20, 5)
]
NEAR = usage(10, AT + 90 * timedelta(seconds=1), seconds=20.0, tenant="near")


def declare_all(one: Pipeline) -> None:
    """But for the label that samples tell of."""
    for gpu in ["GPU-a", "h1/6", "h1/7", *(name for usage_ in FAR[:3] for name in usage_.gpus)]:
        one.declare(gpu)


def finish(one: Pipeline) -> int:
    """Close until nothing waits, marks included. Returns how many pieces there were."""
    pieces = 0
    while one.ledger.pending_marks.count():
        one.closer().housekeep()
        pieces += 1
        close_due(one.closer())
    one.close()
    return pieces


def tenants(one: Pipeline) -> set[str]:
    return {line["tenant"] for cell in one.cells().values() for line in cell.get("lines", ())}


def test_others_of_the_batch_do_not_wait(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0, batch_max_cells=MOST)
    declare_all(one)
    one.ingest([*FAR, NEAR])
    marked = one.store[Collection.LEDGER_CELLS].count_documents({})
    assert marked <= MOST, "what its requests touch beyond the limit is left for later"
    pending = one.ledger.pending_marks
    first_us = min(row["next_us"] for row in one.store[Collection.PENDING_MARKS].find())
    assert pending.count() == pending.count(0, first_us + 66 * 60_000_000) == 4 * 66
    assert pending.count(first_us + 1, first_us + 10 * 60_000_000 + 1) == 4 * 3 * 10, (
        "minutes that begin in it"
    )
    assert pending.count(first_us - 60_000_000, first_us) == 0
    close_due(one.closer())
    assert tenants(one) == {"near"}, "its money is there before any of the others is marked"
    report = one.audit()
    assert report.holds, report.findings
    assert (report.cells_unmarked, report.raw_counts) == (4 * 66, None)
    assert finish(one) == 7, "pieces of about 40 cells"
    assert tenants(one) == {"near", "far"}


@pytest.mark.parametrize(
    "death", ["after the events", "after the marks", "in every piece", "never"]
)
def test_no_death_loses_or_doubles_anything(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    straight, one = (
        pipeline("a", silent_gpu_owned_minutes=0),
        pipeline("b", silent_gpu_owned_minutes=0, batch_max_cells=MOST),
    )
    for ledger in (straight, one):
        declare_all(ledger)
    events = [*FAR, NEAR, *SAMPLES[2:]]
    straight.ingest([*events, *SAMPLES[:2]])
    straight.close()
    assert straight.ledger.pending_marks.count() == 0
    if death == "after the events":
        one.store_only(events)
        one.restart()
    one.ingest(events)
    if death == "after the marks":
        one.ledger.pending_marks.mark(MOST)
        one.restart()
        one.ingest(events)  # read again: what is written down begins anew
        assert one.ledger.pending_marks.count() == 4 * 66
    if death == "in every piece":
        _die_once_in_every_piece(one, monkeypatch)
    one.ingest(SAMPLES[:2])
    finish(one)
    for ledger in (straight, one):
        report = ledger.audit()
        assert report.holds, report.findings
        assert report.raw_counts is not None, "everything is settled"
    assert contents(one.cells()) == contents(straight.cells())
    assert {cell["gpu"] for cell in one.cells(cost_nusd={"$gt": 0}).values()} >= {
        "GPU-label",
        "h1/7",
        "GPU-2-2",
    }


def _die_once_in_every_piece(one: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is marked, and the process dies before it is noted; the next one marks it
    again."""

    class Killed(Exception):
        pass

    mark = CellMarker.mark

    def dying(marker: CellMarker, touched: Any) -> Any:
        mark(marker, touched)
        raise Killed

    while one.ledger.pending_marks.count():
        with monkeypatch.context() as patch:
            patch.setattr(CellMarker, "mark", dying)
            with pytest.raises(Killed):
                one.ledger.pending_marks.mark(MOST)
        close_due(one.closer())
        one.restart()
        one.ledger.pending_marks.mark(MOST)
