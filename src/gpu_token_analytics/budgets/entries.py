"""What people set: a budget. The rules of single fields; those between them stand with the function
that takes it (desk.py)."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field, PlainSerializer

from gpu_token_analytics.budgets.answers import PeriodName, Scope
from gpu_token_analytics.budgets.terms import DEFAULT_THRESHOLDS, MAX_THRESHOLDS
from gpu_token_analytics.costs.entries import Model

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$",
        description="Letters, digits, blanks, dots, dashes, underscores; at most 64.",
        examples=["acme-monthly"],
    ),
]
Usd = Annotated[
    Decimal,
    Field(gt=0, le=10**9, max_digits=19, decimal_places=9, allow_inf_nan=False, examples=["5000"]),
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
]


class NewBudget(Model):
    """A budget to set. One of the same name is replaced; its alerts begin anew where anything but
    its thresholds differs."""

    name: Name
    scope: Scope = Field(
        description="fleet: all money, price x owned time; else money attributed to usage."
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The team, tenant or model; left out for the fleet.",
        examples=["acme"],
    )
    period: PeriodName = "month"
    time_zone: str = Field(
        default="UTC",
        max_length=64,
        description="IANA name; where days, weeks (from Monday) and months begin.",
    )
    limit_usd: Usd = Field(description="USD for each period.")
    thresholds: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        default=list(DEFAULT_THRESHOLDS),
        max_length=MAX_THRESHOLDS,
        description="Percent of the limit; each is told once in a period.",
    )
    forecast_alert: bool = Field(
        default=True, description="Tell once in a period when the forecast passes the limit."
    )


class BudgetName(Model):
    """Which budget."""

    name: Name
