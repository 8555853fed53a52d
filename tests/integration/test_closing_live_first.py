"""What is watched comes first: a price of last month must not hold up the minutes of now, nor the
other way round."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from tests.integration.ledger_support import MINUTE, Commands, Pipeline, minutes_ago, usage

from gpu_token_analytics.closing import closer as closing
from gpu_token_analytics.documents import Collection, cell_id
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.wire.times import to_us

OLD_CELLS = 56_000
OLD_GPUS = 56


def due_cell(gpu: str, minute: datetime, due_at: datetime) -> Document:
    """A cell as a new price leaves it: computed once, and due again."""
    return {
        "_id": cell_id(gpu, to_us(minute)),
        "gpu": gpu,
        "minute": minute,
        "gen": 2,
        "done_gen": 1,
        "revision": 1,
        "state": "provisional",
        "opened_at": minute,
        "due_at": due_at,
        "rolled": True,
    }


def add_history(one: Pipeline) -> None:
    """Many old minutes that all fell due an hour ago."""
    first, due_at = minutes_ago(OLD_CELLS // OLD_GPUS + 120), one.ledger.now() - timedelta(hours=1)
    one.store[Collection.LEDGER_CELLS].insert_many(
        due_cell(f"OLD-{number % OLD_GPUS}", first + number // OLD_GPUS * MINUTE, due_at)
        for number in range(OLD_CELLS)
    )


def waiting(one: Pipeline, prefix: str) -> int:
    where = {"gpu": {"$regex": f"^{prefix}"}, "due_at": {"$lte": one.ledger.now()}}
    return one.store[Collection.LEDGER_CELLS].count_documents(where)


def computed(one: Pipeline, prefix: str) -> int:
    return one.store[Collection.LEDGER_CELLS].count_documents(
        {"gpu": {"$regex": f"^{prefix}"}, "done_gen": {"$gte": 1}}
    )


def test_live_minutes_are_closed_in_the_next_round_whatever_waits(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "CELLS_PER_STEP", 100)
    one = pipeline()
    add_history(one)
    closer = one.closer()
    left = waiting(one, "OLD")
    assert left == OLD_CELLS
    for number in range(4):
        gpus = f"NEW{number}"
        for gpu in range(60):
            one.declare(f"{gpus}-{gpu}")
        one.ingest(
            [
                usage(number * 100 + gpu, minutes_ago(1), gpu_uuids=[f"{gpus}-{gpu}"])
                for gpu in range(60)
            ]
        )
        assert waiting(one, gpus) == 120, "a request's minute, and the one within the gap limit"
        assert closer.step() == 100
        assert computed(one, gpus) == 75, (
            "live cells first, and a quarter of the round is history's"
        )
        closer.step()
        closer.step()
        assert waiting(one, gpus) == 0
        now_left = waiting(one, "OLD")
        assert now_left <= left - 75, "history has a quarter of each round"
        left = now_left


def test_history_gets_its_share_while_more_is_live_than_can_be_closed(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    now, live_from = one.ledger.now(), minutes_ago(2)
    due_at = now - timedelta(minutes=1)
    one.store[Collection.LEDGER_CELLS].insert_many(
        due_cell(f"NEW-{n}", live_from, due_at) for n in range(500)
    )
    one.store[Collection.LEDGER_CELLS].insert_many(
        due_cell("OLD-1", minutes_ago(300 + n), now - timedelta(seconds=1)) for n in range(50)
    )
    for own in (None, {"NEW-1"}):
        taken = one.ledger.cells.take_due(40, own)
        assert len(taken) == 40
        assert sum(cell["gpu"] == "OLD-1" for cell in taken) == 10, (
            "due after all live ones, and yet"
        )


def test_without_a_backlog_one_look_is_enough(
    pipeline: Callable[..., Pipeline], commands: Commands
) -> None:
    """Closing looks ten times a second."""
    one = pipeline()
    one.ledger.cells.now()
    before = commands.sent["find ledger_cells"]
    assert one.ledger.cells.take_due(1000) == []
    assert commands.sent["find ledger_cells"] == before + 1
