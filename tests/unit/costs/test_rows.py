"""GPU time of rows: what is not known is null."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_token_analytics.costs import rows as cost_rows
from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, CostQuery, Row

AT = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "key", "gpu_us", "seconds"),
    [
        ({}, (), 60_000_000, 60.0),
        ({}, (), 0, 0.0),
        ({"group_by": ("gpu",)}, ("GPU-a",), 0, 0.0),
        ({"group_by": ("tenant",)}, ("t",), 0, None),
        ({"group_by": ("tenant",)}, (None,), 60_000_000, 60.0),
        ({"group_by": ("gpu", "model")}, ("GPU-a", "m"), 0, None),
        ({"tenants": frozenset({"t"})}, (), 0, None),
        ({"models": frozenset({"m"})}, (), 0, None),
        ({"tenant_lock": "t"}, (), 0, None),
    ],
)
def test_gpu_time_that_is_not_known_is_null_and_none_is_0(
    asked: dict[str, Any], key: tuple[str | None, ...], gpu_us: int, seconds: float | None
) -> None:
    values = [0] * len(ROW_COLUMNS)
    values[ROW["gpu_us"]] = gpu_us
    assert (
        cost_rows.gpu_seconds(CostQuery(AT, AT, **asked), Row(None, AT, AT, key, values)) == seconds
    )
