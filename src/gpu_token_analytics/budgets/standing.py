"""How a budget stands in one of its periods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gpu_token_analytics.budgets.forecast import Forecast
from gpu_token_analytics.budgets.terms import Budget


@dataclass(frozen=True)
class Standing:
    """A budget in one of its periods. spent_nusd None: its money is unknown, as nobody told of the
    GPUs it ran on."""

    budget: Budget
    start: datetime
    end: datetime
    spent_nusd: int | None
    unknown_gpu_tokens: int  # tokens whose money is unknown
    forecast: Forecast | None
    no_forecast: str | None  # why there is none

    @property
    def used(self) -> float | None:
        """Share of the limit that is spent."""
        return None if self.spent_nusd is None else self.spent_nusd / self.budget.limit_nusd
