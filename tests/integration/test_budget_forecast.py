"""The forecast against what really came: the second half of the Azure conversation trace, a minute
of it for a day of a budget.

`pytest -s` prints the table that docs/budgets.md shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.integration.ledger_support import Pipeline

from gpu_token_analytics.budgets.forecast import Forecast, forecast
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.rollups.spans import MINUTE, Step, floor
from gpu_token_analytics.simulate.replay import Assumptions, replay
from gpu_token_analytics.simulate.trace import read_trace

SHARED = Path(os.environ.get("GPU_TOKENS_SHARED_DATA", ROOT.parent / "shared" / "data"))
TRACE = SHARED / "traces" / "AzureLLMInferenceTrace_conv.csv"
MINUTES = 58  # the trace's last one is cut

pytestmark = pytest.mark.skipif(
    not TRACE.exists(), reason=f"the Azure trace is not at {TRACE}; set GPU_TOKENS_SHARED_DATA"
)


def forecast_at(series: list[int], minute: int) -> Forecast | None:
    """With a minute for a day: what is known then, and what is still to come."""
    return forecast(series[:minute], sum(series[:minute]), Fraction(len(series) - minute), season=1)


def test_the_second_half_of_the_azure_trace(
    pipeline: Callable[..., Pipeline], capsys: pytest.CaptureFixture[str]
) -> None:
    one = pipeline()
    rows = list(read_trace(TRACE, lambda bad: pytest.fail(str(bad))))
    shift_us = (
        round((one.store.now() - timedelta(hours=3)).timestamp()) // 60 * 60_000_000
        - rows[0].arrival_us // 60_000_000 * 60_000_000
    )
    names = ("team-a", "team-b", "team-c")
    assumed = Assumptions(
        "azure", gpus=16, tenants=names, shift_us=shift_us, sample_interval_seconds=10
    )
    one.ingest(list(replay(rows, assumed)), batch=5000)
    one.close()
    start = floor(one.store.now() - timedelta(hours=3), MINUTE)
    costs, end = CostReads(one.store.database), start + MINUTES * MINUTE
    money: dict[str, list[int]] = {name: [0] * MINUTES for name in ("everything", *names)}
    for row in costs.rows(
        CostQuery(start, end, Step.MINUTE, group_by=("tenant",)), one.store.now()
    ):
        if row.key[0] is not None:
            for name in (str(row.key[0]), "everything"):
                money[name][(row.start - start) // MINUTE] += row["cost_nusd"]
    lines, within = [], 0
    for name, series in money.items():
        made = forecast_at(series, MINUTES // 2)
        assert made is not None
        actual = sum(series)
        within += made.low_nusd <= actual <= made.high_nusd
        off = made.nusd / actual - 1
        lines.append(
            f"{name:12} forecast {made.nusd / 1e9:8.4f} ({made.low_nusd / 1e9:.4f} to "
            f"{made.high_nusd / 1e9:.4f}) "
            f"actual {actual / 1e9:8.4f} USD, {off:+.1%}"
        )
        assert abs(off) < 0.1, lines[-1]
    # From every minute on which a forecast can be made, for each tenant: how often the truth lies
    # between low and high.
    tries = [
        (made, sum(series))
        for name, series in money.items()
        if name != "everything"
        for minute in range(10, MINUTES - 5)
        if (made := forecast_at(series, minute)) is not None
    ]
    hits = sum(made.low_nusd <= actual <= made.high_nusd for made, actual in tries)
    assert hits / len(tries) > 0.7, "an interval of 80 %"
    with capsys.disabled():
        print(
            "\n"
            + "\n".join(lines)
            + (
                f"\nbetween low and high: {within} of {len(money)}; from any minute {hits} of "
                f"{len(tries)}"
            )
        )
