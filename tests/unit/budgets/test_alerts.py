"""What a budget's state tells, in integers: a threshold is passed at it, not near it; unknown money
passes none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_token_analytics.budgets.alerts import alerts_of, paragraph, plain, subject
from gpu_token_analytics.budgets.forecast import Forecast
from gpu_token_analytics.budgets.standing import Standing
from gpu_token_analytics.budgets.store import FIRST_WAIT, LONGEST_WAIT, MOST_ATTEMPTS, wait_after
from gpu_token_analytics.budgets.terms import Budget, BudgetScope
from gpu_token_analytics.rollups.calendar import Period

AT = datetime(2026, 3, 1, tzinfo=UTC)
LIMIT = 10**18 + 1  # doubles cannot tell it from 10**18
BUDGET = Budget(
    "acme", BudgetScope.TENANT, "acme\x1b[31m", Period.MONTH, "UTC", LIMIT, (50, 80, 100), True,
    "t1", AT, AT, "test"
)  # fmt: skip


def state(spent: int | None, forecast_nusd: int | None = None) -> Standing:
    made = (
        None
        if forecast_nusd is None
        else Forecast(forecast_nusd, forecast_nusd - 1, forecast_nusd + 1, 7)
    )
    return Standing(BUDGET, AT, datetime(2026, 4, 1, tzinfo=UTC), spent, 0, made, None)


@pytest.mark.parametrize(
    ("spent", "forecast", "told"),
    [
        (0, None, []),
        (LIMIT // 2, None, []),  # rounded down: one nano-dollar short
        (LIMIT // 2 + 1, None, [50]),
        (LIMIT - 1, None, [50, 80]),
        (LIMIT, None, [50, 80, 100]),
        (None, None, []),
        (1, LIMIT, []),
        (1, LIMIT + 1, ["forecast"]),
    ],
)
def test_thresholds_are_passed_to_the_nano_dollar(
    spent: int | None, forecast: int | None, told: list[object]
) -> None:
    found = list(alerts_of(state(spent, forecast)))
    assert [alert.percent if alert.kind == "spent" else "forecast" for alert in found] == told


def test_no_alert_on_the_forecast_where_none_is_wanted() -> None:
    quiet = replace(state(1, LIMIT + 1), budget=replace(BUDGET, forecast_alert=False))
    assert list(alerts_of(quiet)) == []


def test_an_alert_has_one_name_whoever_sees_it_and_another_in_each_period_and_for_other_terms() -> (
    None
):
    first, _ = alerts_of(replace(state(LIMIT), budget=replace(BUDGET, thresholds=(80, 100))))
    again, _ = alerts_of(replace(state(LIMIT + 5), budget=replace(BUDGET, thresholds=(80, 100))))
    assert first.name == again.name
    later = replace(first, state=replace(first.state, start=datetime(2026, 4, 1, tzinfo=UTC)))
    other = replace(first, state=replace(first.state, budget=replace(BUDGET, terms="t2")))
    assert (
        len(
            {
                first.name,
                later.name,
                other.name,
                replace(first, percent=81).name,
                replace(first, kind="forecast").name,
            }
        )
        == 5
    )


def test_words_hold_the_figures_and_no_controls_of_others() -> None:
    (alert,) = alerts_of(
        replace(state(LIMIT // 2 + 1, 2 * LIMIT), budget=replace(BUDGET, forecast_alert=False))
    )
    row = {**alert.document(), "raised_at": AT}
    assert subject(row) == "Budget acme: 50 % spent"
    assert paragraph(row).startswith(
        "tenant acme\\x1b[31m has spent 500,000,000.00 USD of 1,000,000,000.00 USD in the month "
        "from 2026-03-01 00:00 to "
        "2026-04-01 00:00 (UTC). At its end it is forecast to be 2,000,000,000.00 USD (80 %:"
    )
    told = plain(row)
    assert (told["spent_nusd"], told["limit_nusd"], told["from"]) == (
        LIMIT // 2 + 1,
        LIMIT,
        "2026-03-01T00:00:00Z",
    )
    assert "\x1b" not in told["text"]


def test_waits_double_within_bounds() -> None:
    waits = [wait_after(attempts) for attempts in range(1, MOST_ATTEMPTS + 1)]
    assert waits[0] == FIRST_WAIT
    assert waits[1] == 2 * FIRST_WAIT
    assert max(waits) == LONGEST_WAIT == waits[-1]
