"""A price row that is about no GPU."""

from __future__ import annotations

import pytest

from gpu_token_analytics.costs.entries import NewPrice, price_fields
from gpu_token_analytics.costs.prices import prices_something


@pytest.mark.parametrize("zero", ["0", "-0", "-0.00", -0.0, 0])
def test_a_price_of_nothing_is_never_minus_nothing(zero: object) -> None:
    said = {"scope": "default", "usd_per_hour": zero, "valid_from": "2026-01-01T00:00:00Z"}
    assert "-" not in price_fields(NewPrice.model_validate(said))["usd_per_hour"]


def test_a_price_row_that_prices_nothing_is_told() -> None:
    inventory = [{"_id": "GPU-1f", "host": "node1", "name": "NVIDIA H200"}]
    rows = [("gpu", "gpu-1F"), ("host", "Node1"), ("name", "NVIDIA H200"), ("default", None)]
    assert all(prices_something(inventory, scope, key) for scope, key in rows)
    typos = [("gpu", "GPU-2f"), ("host", "node2"), ("name", "NVIDIA H20")]
    assert not any(prices_something(inventory, scope, key) for scope, key in typos)
