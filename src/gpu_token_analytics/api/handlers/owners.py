"""/v1/owners and /v1/hints: who owns GPUs, hosts and models, and what of theirs is idle; what to do
about it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from gpu_token_analytics.api.params import HintsAsked, IdleAsked
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers.hints import HintsResponse
from gpu_token_analytics.costs.answers.owners import IdleResponse, OwnerRow, OwnersResponse
from gpu_token_analytics.costs.hints import hints
from gpu_token_analytics.costs.owners import NewOwnerRow, append_owner, idle_money, owner_rows

SOURCE = "api"


def owners(ask: AskDep) -> OwnersResponse:
    """Every row ever written, newest valid_from first. Of a nano-dollar's model, GPU, host and the
    default, the first with an owner holds."""
    return owner_rows(ask.desk)


def add_owner(ask: AskDep, new: NewOwnerRow) -> OwnerRow:
    """Say who owns a model, GPU or host from a time on, which may lie in the past; the ledger does
    not change by it."""
    return append_owner(ask.desk, new, SOURCE)


def idle_of_owners(ask: AskDep, asked: Annotated[IdleAsked, Query()]) -> IdleResponse:
    """Idle money by owner; with `share`, also shared out among teams, beside their attributed money
    and never in it."""
    return idle_money(ask.desk, asked.start, asked.to, asked.share)


def idle_hints(ask: AskDep, asked: Annotated[HintsAsked, Query()]) -> HintsResponse:
    """Idle GPUs to give back, GPUs to put together, models to scale down at quiet hours, and
    prices, coverage or spending that jumped: with the money of the last 7 and 30 days, the
    thresholds that decided, and where the cells behind it are listed."""
    return hints(ask.desk, asked.time_zone)
