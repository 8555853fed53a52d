"""FOCUS rows: the way a GPU is paid for, as FOCUS names it. The columns as a whole:
tests/integration/api."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpu_token_analytics.costs.focus import COLUMNS, PRICING_CATEGORIES, focus_rows
from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, Row
from gpu_token_analytics.ledger.prices import PriceMode

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SPEC = Path(__file__).parents[2] / "integration" / "api" / "focus_1_2_columns.json"


def row(mode: str | None, kind: str, cost_nusd: int, gpu_us: int) -> Row:
    values = [0] * len(ROW_COLUMNS)
    values[ROW["cost_nusd"]], values[ROW["gpu_us"]] = cost_nusd, gpu_us
    return Row(
        AT, AT, AT + timedelta(hours=1), ("GPU-1", "host-1", "H100", mode, kind, None, None), values
    )


def named(values: list[Any]) -> dict[str, Any]:
    return dict(zip([column.name for column in COLUMNS], values, strict=True))


def test_every_mode_has_a_category_that_focus_knows() -> None:
    assert set(PRICING_CATEGORIES) == set(PriceMode)
    assert set(PRICING_CATEGORIES.values()) <= set(
        json.loads(SPEC.read_text())["PricingCategory"]["values"]
    )


@pytest.mark.parametrize(
    ("mode", "category", "price_id"),
    [("spot", "Dynamic", "H100/spot"), ("owned", "Other", "H100/owned"), (None, "Other", "H100")],
)
def test_the_price_row_tells_category_and_price_id(
    mode: str | None, category: str, price_id: str
) -> None:
    found = [named(values) for values in focus_rows([row(mode, "attributed", 5, 60_000_000)], "us")]
    assert [(one["PricingCategory"], one["SkuId"], one["SkuPriceId"]) for one in found] == [
        (category, "H100", price_id)
    ]


def test_gpu_hours_stay_with_the_way_they_were_paid_for() -> None:
    """A spot price that began within the hour: two rows, each with its own time and money."""
    rows = [
        row("on_demand", "attributed", 7, 1_800_000_000),
        row("spot", "attributed", 3, 1_800_000_000),
    ]
    found = [named(values) for values in focus_rows(rows, "us")]
    assert [
        (one["PricingCategory"], str(one["PricingQuantity"]), one["x_CostNanoUsd"]) for one in found
    ] == [
        ("Standard", "0.500000000", 7),
        ("Dynamic", "0.500000000", 3),
    ]
