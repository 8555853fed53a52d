"""/v1/budgets: budgets, how they stand, and what was told of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from gpu_token_analytics.api.params import AlertsAsked
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.budgets.answers import BudgetAlertsResponse, BudgetsResponse, BudgetTerms
from gpu_token_analytics.budgets.entries import BudgetName, NewBudget

SOURCE = "api"


def budgets(ask: AskDep) -> BudgetsResponse:
    """Every budget in its current period: spent, and forecast to the end with its uncertainty. A
    tenant's key sees its own."""
    return ask.services.budgets.standing(ask.tenant)


def set_budget(ask: AskDep, new: NewBudget) -> BudgetTerms:
    """Set a budget, or replace the one of that name."""
    return ask.services.budgets.put(new, SOURCE)


def remove_budget(ask: AskDep, which: BudgetName) -> BudgetTerms:
    """Take a budget away. What was told of it stays listed."""
    return ask.services.budgets.remove(which.name)


def budget_alerts(ask: AskDep, asked: Annotated[AlertsAsked, Query()]) -> BudgetAlertsResponse:
    """What was told, newest first, and how it reached its receivers."""
    return BudgetAlertsResponse(ask.services.budgets.told(asked.limit, asked.budget))
