"""What a budget is: so much money for a tenant, a team, a model or the fleet, in each day, week or
month of a time zone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from gpu_token_analytics.rollups.calendar import Period, period_before, period_of
from gpu_token_analytics.rollups.spans import zone

MAX_BUDGETS = 200
MAX_THRESHOLDS = 10
DEFAULT_THRESHOLDS = (50, 80, 100)


class BudgetScope(StrEnum):
    """Whose money counts. FLEET: all of it, price x owned time; else what is attributed to
    usage."""

    FLEET = "fleet"
    TENANT = "tenant"
    TEAM = "team"  # its tenants, each while it belonged to it
    MODEL = "model"


@dataclass(frozen=True)
class Budget:
    """One budget. `terms` changes with what makes its money another: scope, key, period, zone or
    limit."""

    name: str
    scope: BudgetScope
    key: str | None  # the tenant, team or model; None: the fleet
    period: Period
    time_zone: str
    limit_nusd: int
    thresholds: tuple[int, ...]  # percent of the limit, ascending
    forecast_alert: bool  # tell when the forecast passes the limit
    terms: str
    created_at: datetime
    changed_at: datetime
    source: str

    @staticmethod
    def of(row: Mapping[str, Any]) -> Budget:
        """From a stored document."""
        return Budget(
            name=row["_id"],
            scope=BudgetScope(row["scope"]),
            key=row["key"],
            period=Period(row["period"]),
            time_zone=row["time_zone"],
            limit_nusd=int(row["limit_nusd"]),
            thresholds=tuple(row["thresholds"]),
            forecast_alert=row["forecast_alert"],
            terms=row["terms"],
            created_at=row["created_at"],
            changed_at=row["changed_at"],
            source=row["source"],
        )

    def bounds(self, at: datetime) -> tuple[datetime, datetime]:
        """[start, end) of the period that holds `at`, in UTC."""
        return period_of(at, self.period, zone(self.time_zone))

    def bounds_before(self, at: datetime) -> tuple[datetime, datetime]:
        """[start, end) of the period before the one that holds `at`, in UTC."""
        return period_before(at, self.period, zone(self.time_zone))

    @property
    def about(self) -> str:
        """Whose money it is, in words."""
        return "the fleet" if self.key is None else f"{self.scope} {self.key}"
