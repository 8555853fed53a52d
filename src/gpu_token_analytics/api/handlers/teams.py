"""/v1/teams: which team a tenant belongs to, and what teams cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from gpu_token_analytics.api.params import Range
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers.teams import TeamCostsResponse, TeamRow, TeamsResponse
from gpu_token_analytics.costs.teams import NewTeamRow, append_team, team_costs, team_rows

SOURCE = "api"


def teams(ask: AskDep) -> TeamsResponse:
    """Every row ever written, newest valid_from first. A tenant's row holds until its next one."""
    return team_rows(ask.desk)


def add_team(ask: AskDep, new: NewTeamRow) -> TeamRow:
    """Say to which team a tenant belongs from a time on, which may lie in the past; the ledger does
    not change by it."""
    return append_team(ask.desk, new, SOURCE)


def costs_of_teams(ask: AskDep, asked: Annotated[Range, Query()]) -> TeamCostsResponse:
    """Attributed money by team, each tenant's while it belonged to it. Idle money is nobody's
    usage, and in no row."""
    return team_costs(ask.desk, asked.start, asked.to)
