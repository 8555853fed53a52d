"""A price row that is about no GPU."""

from __future__ import annotations

from gpu_token_analytics.costs.prices import prices_something


def test_a_price_row_that_prices_nothing_is_told() -> None:
    inventory = [{"_id": "GPU-1f", "host": "node1", "name": "NVIDIA H200"}]
    rows = [("gpu", "gpu-1F"), ("host", "Node1"), ("name", "NVIDIA H200"), ("default", None)]
    assert all(prices_something(inventory, scope, key) for scope, key in rows)
    typos = [("gpu", "GPU-2f"), ("host", "node2"), ("name", "NVIDIA H20")]
    assert not any(prices_something(inventory, scope, key) for scope, key in typos)
