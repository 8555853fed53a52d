"""How budgets stand, ready for Prometheus."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import Gauge

from gpu_token_analytics.budgets.spending import Spending
from gpu_token_analytics.budgets.standing import Standing
from gpu_token_analytics.budgets.store import BudgetStore
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.exporter.figures import replace_series
from gpu_token_analytics.exporter.metrics import UNKNOWN, ExporterMetrics


class BudgetFigures:
    """Reads budgets and puts them into the metrics, all at once."""

    def __init__(
        self, store: BudgetStore, spending: Spending, metrics: ExporterMetrics, max_names: int
    ) -> None:
        self._store, self._spending, self._metrics, self._max_names = (
            store,
            spending,
            metrics,
            max_names,
        )

    def update(self, now: datetime) -> None:
        """Read every budget, then replace what is shown. Raises the database's errors; nothing is
        changed then."""
        states = self._spending.states(self._store.budgets(), now)
        undelivered = self._store.undelivered()
        states.sort(key=lambda state: (-(state.used or 0.0), state.budget.name))
        shown = states[: self._max_names]
        metrics = self._metrics
        limits = {_labels(state): state.budget.limit_nusd / NUSD_PER_USD for state in shown}
        spent = {
            _labels(state): state.spent_nusd / NUSD_PER_USD
            for state in shown
            if state.spent_nusd is not None
        }
        forecasts = {
            _labels(state): state.forecast.nusd / NUSD_PER_USD
            for state in shown
            if state.forecast is not None
        }
        replace_series(metrics.budget_limit, limits)
        replace_series(metrics.budget_spent, spent)
        replace_series(metrics.budget_forecast, forecasts)
        replace_series(
            metrics.budget_alerts, {(state,): count for state, count in undelivered.items()}
        )
        metrics.budgets_not_shown.set(len(states) - len(shown))

    def forget(self) -> None:
        """Show none of it."""
        metrics = self._metrics
        gauges: tuple[Gauge, ...] = (
            metrics.budget_limit,
            metrics.budget_spent,
            metrics.budget_forecast,
            metrics.budget_alerts,
        )
        for gauge in gauges:
            gauge.clear()
        metrics.budgets_not_shown.set(UNKNOWN)


def _labels(state: Standing) -> tuple[str, ...]:
    budget = state.budget
    return budget.name, budget.scope.value, budget.key or "", budget.period.value
