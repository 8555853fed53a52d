"""/v1/owners: who owns GPUs, hosts and models, and what of theirs is idle."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from gpu_token_analytics.api.params import IdleAsked
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers.owners import IdleResponse, OwnerRow, OwnersResponse
from gpu_token_analytics.costs.owners import NewOwnerRow, append_owner, idle_money, owner_rows

SOURCE = "api"


def owners(ask: AskDep) -> OwnersResponse:
    """Every row ever written, newest valid_from first. Of a nano-dollar's model, GPU, host and the default, the first with an
    owner holds."""
    return owner_rows(ask.desk)


def add_owner(ask: AskDep, new: NewOwnerRow) -> OwnerRow:
    """Say who owns a model, GPU or host from a time on, which may lie in the past; the ledger does not change by it."""
    return append_owner(ask.desk, new, SOURCE)


def idle_of_owners(ask: AskDep, asked: Annotated[IdleAsked, Query()]) -> IdleResponse:
    """Idle money by owner; with `share`, also shared out among teams, beside their attributed money and never in it."""
    return idle_money(ask.desk, asked.start, asked.to, asked.share)
