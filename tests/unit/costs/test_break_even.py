"""Own GPUs against an API where one of both costs nothing: somebody's figure is 0, and a sentence
still says what it means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from gpu_token_analytics.costs.answers.costs import BreakEvenRow
from gpu_token_analytics.costs.break_even import ApiPrices, compared
from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, CostQuery, Row
from gpu_token_analytics.documents import US_PER_HOUR

START = datetime(2026, 1, 5, tzinfo=UTC)
END = START + timedelta(hours=10)
TOKENS = 2_000_000


def row(model: str | None, **columns: int) -> Row:
    values = [0] * len(ROW_COLUMNS)
    for name, value in columns.items():
        values[ROW[name]] = value
    return Row(None, START, END, (model,), values)


def answered(
    cost_nusd: int,
    api: float | None,
    what_if: float | None = None,
    tokens: int = TOKENS,
    gpu_hours: int = 10,
) -> tuple[BreakEvenRow, BreakEvenRow]:
    """The row of a model that has all money and tokens there are, and the row of everything."""
    model = row("m", cost_nusd=cost_nusd, prompt_tokens=tokens)
    whole = row(None, cost_nusd=cost_nusd, prompt_tokens=tokens, gpu_us=gpu_hours * US_PER_HOUR)
    prices = ApiPrices.of(api, () if api is not None else ("other=1/1/1",))
    query = CostQuery(START, END, group_by=("model",))
    one, everything = compared(query, [model], whole, END, prices, what_if, 1).rows
    return one, everything


def test_every_mix_of_nothing_and_something_is_answered() -> None:
    """No price, load or time of 0 is an error, and the winner is whoever costs less."""
    for cost, api, what_if, tokens, hours in product(
        (0, 5_000_000_000), (None, 0.0, 2.5), (None, 0.0, 0.5), (0, TOKENS), (0, 10)
    ):
        for found in answered(cost, api, what_if, tokens, hours):
            own, price = found.own_usd_per_million, found.api_usd_per_million
            known = own is not None and price is not None and own != price
            assert found.own_wins == (own < price if known else None), found  # type: ignore[operator]
            assert found.says.startswith(
                {True: "Own GPUs win", False: "The API wins", None: "No"}[found.own_wins]
            ), found


def test_where_both_cost_nothing_nobody_wins() -> None:
    for found in answered(0, 0.0):
        assert (found.own_wins, found.saved_nusd) == (None, 0)
        assert "0 USD a million tokens on own GPUs and from the API" in found.says


def test_a_what_if_price_of_hours_that_cost_nothing_is_counted() -> None:
    """Of everything; of a model nobody knows its part."""
    one, everything = answered(0, 2.0, what_if=0.5)
    assert everything.own_usd_per_million == pytest.approx(10 * 0.5 / TOKENS * 1e6)
    assert (everything.own_wins, everything.saved_nusd) == (False, -1_000_000_000)
    assert everything.break_even_tokens_per_hour == pytest.approx(0.5 / 2.0 * 1e6)
    assert "from 250,000 tokens an hour on (now 200,000)" in everything.says
    assert (one.own_usd_per_million, one.own_wins, one.saved_nusd) == (None, None, None)
    assert "cost nothing" in one.says


def test_a_what_if_price_of_nothing_is_one() -> None:
    for found in answered(5_000_000_000, 2.0, what_if=0.0):
        assert (found.own_usd_per_million, found.own_wins) == (0.0, True)
