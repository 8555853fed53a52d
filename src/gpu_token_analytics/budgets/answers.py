"""What /v1/budgets and the commands answer, as types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, field

from gpu_token_analytics.costs.answers.base import Answer, Count, End, NanoUsd, Pieces

Scope: TypeAlias = Literal["fleet", "team", "tenant", "model"]
PeriodName: TypeAlias = Literal["day", "week", "month"]
Start: TypeAlias = Annotated[
    datetime, Meta(description="Start of the period, UTC.", examples=["2026-01-01T00:00:00Z"])
]


class BudgetTerms(Answer):
    """A budget as it is set."""

    name: str
    scope: Scope
    key: str | None
    period: PeriodName
    time_zone: str
    limit_nusd: NanoUsd
    thresholds: list[int]
    forecast_alert: bool
    created_at: datetime
    changed_at: datetime
    source: Annotated[str, Meta(examples=["api"])]


class BudgetForecast(Answer):
    """The whole period's money at its end. 80 %: low to high, if the days to come scatter like
    those before."""

    nusd: NanoUsd
    low_nusd: NanoUsd
    high_nusd: NanoUsd
    days: Annotated[Count, Meta(description="Days of history it rests on.")]


class BudgetState(BudgetTerms):
    """A budget in its current period."""

    from_: Start = field(name="from")
    to: End
    spent_nusd: Annotated[
        NanoUsd | None,
        Meta(
            description=(
                "As /v1/costs tells it for the period; null: all of it ran on GPUs that nobody "
                "sampled or declared."
            )
        ),
    ]
    used_share: Annotated[
        float | None, Meta(description="Spent / limit; above 1 the budget is spent.")
    ]
    unknown_gpu_tokens: Annotated[
        Count, Meta(description="Tokens whose money is unknown, so it is not in `spent_nusd`.")
    ]
    forecast: BudgetForecast | None
    no_forecast: Annotated[str | None, Meta(description="Why there is no forecast.")]


class BudgetsResponse(Answer):
    """Budgets, by name."""

    as_of: datetime
    receivers: Annotated[
        list[str],
        Meta(
            description="Who is told of alerts by this process's settings.", examples=[["webhook"]]
        ),
    ]
    budgets: list[BudgetState]


class BudgetDelivery(Answer):
    """How an alert reached a receiver."""

    receiver: str
    state: Annotated[
        Literal["waiting", "sent", "failed"],
        Meta(description="failed: given up after 12 attempts."),
    ]
    attempts: Count
    next_at: Annotated[
        datetime | None, Meta(description="When it is tried again; null: it is not.")
    ]
    sent_at: datetime | None
    error: Annotated[str | None, Meta(description="Why the last attempt failed.")]


class BudgetAlert(Answer):
    """One thing that was told of a budget, once."""

    id: str
    budget: str
    scope: Scope
    key: str | None
    period: PeriodName
    time_zone: str
    kind: Literal["spent", "forecast"]
    percent: int
    limit_nusd: NanoUsd
    spent_nusd: Annotated[NanoUsd | None, Meta(description="When it was raised.")]
    forecast_nusd: NanoUsd | None
    forecast_low_nusd: NanoUsd | None
    forecast_high_nusd: NanoUsd | None
    from_: Start = field(name="from")
    to: End
    raised_at: datetime
    text: Annotated[str, Meta(description="What its receivers are told, in USD.")]
    sentence: Pieces
    deliveries: Annotated[list[BudgetDelivery], Meta(description="Empty: no receiver was set.")]


class BudgetAlertsResponse(Answer):
    """Alerts, newest first."""

    alerts: list[BudgetAlert]
