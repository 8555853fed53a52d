"""A cell document holds the fields that its type names: what is computed, what is opened, what
readers read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.ledger.loaded import Stored
from tests.unit.ledger.worlds import MINUTE, T0, price, sample, usage

from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.document import (
    CHUNKED_FIELDS,
    LINE_SUMS,
    LIVE_FIELDS,
    SUMMED_FIELDS,
    TAKEN_FIELDS,
    TIMELINE_FIELDS,
    CellDocument,
    CellFields,
    CellPrice,
    LedgerLine,
    OpenedCell,
    opened,
)

NAMED = {*CellDocument.__required_keys__, *CellDocument.__optional_keys__}


def test_computed_and_opened_cells_hold_what_their_types_name() -> None:
    stored = Stored(
        usages=[usage("u", 50.0, 30.0)], samples=[sample("s", 10.0)], prices=[price("row", 1.0)]
    )
    (gpu, *_) = stored.gpus()
    (run,) = compute_runs(
        [stored.timeline(gpu, [T0, T0 + MINUTE], T0 + 120 * MINUTE)], stored.params
    )
    fields = [cell.fields() for cell in run.cells]
    assert [set(one) for one in fields] == [CellFields.__required_keys__] * 2
    lines, prices = (
        [line for one in fields for line in one["lines"]],
        [one["price"] for one in fields],
    )
    assert lines
    assert all(set(line) == LedgerLine.__required_keys__ for line in lines)
    assert all(one is not None and set(one) == CellPrice.__required_keys__ for one in prices)
    assert set(opened(gpu, T0, datetime(2026, 1, 1, tzinfo=UTC))) == OpenedCell.__required_keys__


@pytest.mark.parametrize(
    "fields", [CHUNKED_FIELDS, LIVE_FIELDS, SUMMED_FIELDS, TAKEN_FIELDS, TIMELINE_FIELDS]
)
def test_readers_read_fields_that_cells_have(fields: tuple[str, ...]) -> None:
    assert {name.split(".")[0] for name in fields} <= NAMED
    assert len(set(fields)) == len(fields)


def test_lines_are_summed_by_fields_that_they_have() -> None:
    assert set(LINE_SUMS) <= LedgerLine.__required_keys__
