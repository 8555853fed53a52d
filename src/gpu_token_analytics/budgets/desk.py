"""Where budgets are set and asked for, with or without HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from gpu_token_analytics.budgets.alerts import in_pieces, plain
from gpu_token_analytics.budgets.answers import (
    BudgetAlert,
    BudgetDelivery,
    BudgetForecast,
    BudgetsResponse,
    BudgetState,
    BudgetTerms,
)
from gpu_token_analytics.budgets.entries import NewBudget
from gpu_token_analytics.budgets.receivers import receivers_of
from gpu_token_analytics.budgets.spending import Spending
from gpu_token_analytics.budgets.standing import Standing
from gpu_token_analytics.budgets.store import BudgetStore, TooManyBudgets
from gpu_token_analytics.budgets.terms import MAX_BUDGETS, Budget, BudgetScope
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import check_key
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import zone


@dataclass
class BudgetDesk:
    """The budgets of one database. It may be kept: it reads history at most every five minutes."""

    desk: Desk
    store: BudgetStore
    spending: Spending

    @staticmethod
    def over(desk: Desk) -> BudgetDesk:
        """Budgets whose figures are those of this desk."""
        store = BudgetStore(desk.store.database, desk.settings.api_query_timeout_ms)
        return BudgetDesk(desk, store, Spending(desk.costs, desk.teams.book))

    def standing(self, tenant: str | None = None) -> BudgetsResponse:
        """Every budget in its current period; of one tenant, or of all."""
        now = self.desk.now()
        known = self.store.budgets()
        if tenant is not None:
            known = [
                budget
                for budget in known
                if budget.scope is BudgetScope.TENANT and budget.key == tenant
            ]
        receivers = (
            []
            if tenant is not None
            else [receiver.name for receiver in receivers_of(self.desk.settings)]
        )
        return BudgetsResponse(
            now.astimezone(UTC),
            receivers,
            [_state(state) for state in self.spending.states(known, now)],
        )

    def every(self) -> list[BudgetTerms]:
        """Every budget as it is set."""
        return [_terms(budget) for budget in self.store.budgets()]

    def put(self, new: NewBudget, source: str) -> BudgetTerms:
        """Set a budget, or replace the one of that name. source: who says so (`api`, `cli`). Raises
        Refused."""
        check_budget(new)
        fields = {
            "scope": new.scope,
            "key": new.key,
            "period": new.period,
            "time_zone": new.time_zone,
            "limit_nusd": int(new.limit_usd * NUSD_PER_USD),
            "thresholds": sorted(new.thresholds),
            "forecast_alert": new.forecast_alert,
        }
        try:
            return _terms(self.store.put(new.name, fields, self.desk.now(), source))
        except TooManyBudgets:
            more = (
                f"name={new.name!r} would be budget {MAX_BUDGETS + 1}: there are {MAX_BUDGETS}; "
                "remove one"
            )
            raise Refused("invalid_body", more, "name") from None

    def remove(self, name: str) -> BudgetTerms:
        """Take a budget away; what was told of it stays listed. Raises Refused."""
        budget = self.store.remove(name)
        if budget is None:
            raise Refused("not_found", f"there is no budget name={name!r}")
        return _terms(budget)

    def told(self, limit: int, budget: str | None = None) -> list[BudgetAlert]:
        """The newest alerts, of one budget or of all, and how they reached their receivers."""
        return [_alert(row) for row in self.store.alerts(limit, budget)]


def check_budget(new: NewBudget) -> None:
    """Rules between the fields. Raises Refused."""
    check_key(new.scope, new.key, keyless="fleet")
    if len(set(new.thresholds)) != len(new.thresholds):
        raise Refused("invalid_body", f"thresholds={new.thresholds} names one twice", "thresholds")
    try:
        zone(new.time_zone)
    except ValueError as error:
        raise Refused("invalid_body", str(error), "time_zone") from None


def _fields(budget: Budget) -> dict[str, Any]:
    return {
        "name": budget.name,
        "scope": budget.scope.value,
        "key": budget.key,
        "period": budget.period.value,
        "time_zone": budget.time_zone,
        "limit_nusd": budget.limit_nusd,
        "thresholds": list(budget.thresholds),
        "forecast_alert": budget.forecast_alert,
        "created_at": budget.created_at.astimezone(UTC),
        "changed_at": budget.changed_at.astimezone(UTC),
        "source": budget.source,
    }


def _terms(budget: Budget) -> BudgetTerms:
    return BudgetTerms(**_fields(budget))


def _state(standing: Standing) -> BudgetState:
    made = standing.forecast
    return BudgetState(
        **_fields(standing.budget),
        from_=standing.start,
        to=standing.end,
        spent_nusd=standing.spent_nusd,
        used_share=standing.used,
        unknown_gpu_tokens=standing.unknown_gpu_tokens,
        forecast=None
        if made is None
        else BudgetForecast(made.nusd, made.low_nusd, made.high_nusd, made.days),
        no_forecast=standing.no_forecast,
    )


def _alert(row: Mapping[str, Any]) -> BudgetAlert:
    told = plain(row)
    moments = {"from_": "start", "to": "end", "raised_at": "raised_at"}
    ends = {name: row[stored].astimezone(UTC) for name, stored in moments.items()}
    same = {name: told[name] for name in told.keys() - {"from", "to", "raised_at"}}
    fields: dict[str, Any] = {
        **same,
        **ends,
        "sentence": in_pieces(row),
        "deliveries": [_delivery(item) for item in row["deliveries"]],
    }
    return BudgetAlert(**fields)


def _delivery(item: Mapping[str, Any]) -> BudgetDelivery:
    next_at = item["next_at"] if item["state"] == "waiting" else None
    return BudgetDelivery(
        receiver=item["receiver"],
        state=item["state"],
        attempts=item["attempts"],
        next_at=next_at,
        sent_at=item["sent_at"],
        error=item["error"],
    )
