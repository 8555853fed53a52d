"""Teams: who belongs where, and attributed money by team. Idle money is nobody's usage, so it is in
no team's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import Any

from pydantic import Field

from gpu_token_analytics.costs.answers.teams import (
    TeamCost,
    TeamCostsResponse,
    TeamRow,
    TeamsResponse,
)
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import (
    Instant,
    Model,
    appended,
    check_half_hour,
    check_texts,
    dated,
)
from gpu_token_analytics.costs.query import NO_ROWS, CostQuery, Known
from gpu_token_analytics.costs.questions import check_cost, cost_query


class NewTeamRow(Model):
    """A row to append. Nothing is ever edited: the tenant's next row takes over."""

    tenant: str = Field(min_length=1, max_length=256, examples=["chat-web"])
    team: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Left out: from then on it belongs to none.",
        examples=["search"],
    )
    valid_from: Instant = Field(
        description="RFC 3339, on a whole or half UTC hour; may lie in the past.",
        examples=["2026-01-01T00:00:00Z"],
    )


def team_rows(desk: Desk) -> TeamsResponse:
    """The answer of GET /v1/teams."""
    return TeamsResponse([_row(row) for row in desk.teams.rows()])


def append_team(desk: Desk, new: NewTeamRow, source: str) -> TeamRow:
    """Append a row. source: who says so (`api`, `cli`). Raises Refused."""
    check_team(new)
    said = {"tenant": new.tenant, "team": new.team}
    return _row(
        appended(desk.teams, said, valid_from=new.valid_from, now=desk.now(), source=source)
    )


def check_team(new: NewTeamRow) -> None:
    """Rules beyond those of the fields. Raises Refused."""
    check_texts(tenant=new.tenant, team=new.team)
    check_half_hour("valid_from", new.valid_from)


@dataclass
class _Sum:
    tenants: set[str] = field(default_factory=set)
    nusd: int = 0
    requests: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    known: Known = NO_ROWS


def team_costs(desk: Desk, start: datetime, end: datetime) -> TeamCostsResponse:
    """Attributed money of [start, end) by team, each tenant's while it belonged to it. Raises
    Refused."""
    query = cost_query(start, end, group_by=("tenant",))
    check_cost(query, desk.reads.gpu_count())
    book, now = desk.teams.book(), desk.now()
    sums: dict[str | None, _Sum] = {}
    for low, high in book.pieces(query.start, query.end):
        piece: CostQuery = replace(query, start=low, end=high)
        for row in desk.costs.rows(piece, now):
            tenant = row.key[0]
            if tenant is None:
                continue  # what nobody's line holds
            team = sums.setdefault(book.team_of(tenant, low), _Sum())
            team.tenants.add(tenant)
            team.nusd += row["cost_nusd"]
            team.requests += row["requests"]
            team.tokens += row["prompt_tokens"] + row["completion_tokens"]
            team.unknown_tokens += row["unknown_gpu_tokens"]
            team.known = team.known.plus(row.known)
    names = sorted(sums, key=lambda name: (name is None, -sums[name].nusd, name or ""))
    rows = [_cost(name, sums[name]) for name in names]
    whole = reduce(Known.plus, (item.known for item in sums.values()), NO_ROWS)
    nusd = None if whole.is_unpriced else sum(item.nusd for item in sums.values())
    return TeamCostsResponse(query.start, query.end, rows, nusd)


def _cost(name: str | None, spent: _Sum) -> TeamCost:
    return TeamCost(
        team=name,
        tenants=sorted(spent.tenants),
        attributed_nusd=None if spent.known.is_unpriced else spent.nusd,
        requests=spent.requests,
        tokens=spent.tokens,
        unknown_gpu_tokens=spent.unknown_tokens,
    )


def _row(row: dict[str, Any]) -> TeamRow:
    return TeamRow(
        tenant=row["tenant"],
        team=row["team"],
        **dated(row),
    )
