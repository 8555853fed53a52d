"""Owners: who owns GPUs, hosts and models, the idle money of each, and idle money shared out among
teams by a stated rule.

    by_use     in proportion to the attributed money of each team (tenants of no team together are
               one); none: nobody's
    evenly     the same for every named team that has attributed money in the range; none: nobody's
    to_owner   to the team that owns it; what has no owner stays nobody's

The idle money of the whole range is shared at once, so the parts sum to it to the nano-dollar;
parts of two ranges need not sum to those of both together. Unmetered work is not idle and is not
shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from gpu_token_analytics.costs.answers.owners import (
    IdleResponse,
    OwnerIdle,
    OwnerRow,
    OwnersResponse,
    SharedIdle,
    SharedOut,
)
from gpu_token_analytics.costs.choices import ShareRule
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import (
    Instant,
    Model,
    appended,
    check_half_hour,
    check_key,
    check_texts,
    dated,
)
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.questions import check_cost, cost_query
from gpu_token_analytics.costs.rows import IDLE_COLUMNS, gpu_seconds
from gpu_token_analytics.costs.whose import BY_OWNER, with_books
from gpu_token_analytics.ledger.money import split_exactly

RULES = {
    ShareRule.BY_USE: "Idle money in proportion to the attributed money of each team in the range.",
    ShareRule.EVENLY: (
        "Idle money in equal parts to every named team with attributed money in the range."
    ),
    ShareRule.TO_OWNER: "Idle money to the team that owns the model, GPU or host.",
}


class NewOwnerRow(Model):
    """A row to append. Nothing is ever edited: the next row of the same scope and key takes
    over."""

    scope: Literal["model", "gpu", "host", "default"] = Field(examples=["host"])
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Left out for the default row.",
        examples=["node-1"],
    )
    team: str | None = Field(default=None, min_length=1, max_length=256, examples=["platform"])
    cost_centre: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Team and cost centre left out: from then on this row names nobody.",
        examples=["CC-4711"],
    )
    valid_from: Instant = Field(
        description="RFC 3339, on a whole or half UTC hour; may lie in the past.",
        examples=["2026-01-01T00:00:00Z"],
    )


def owner_rows(desk: Desk) -> OwnersResponse:
    """The answer of GET /v1/owners."""
    return OwnersResponse([_row(row) for row in desk.owners.rows()])


def append_owner(desk: Desk, new: NewOwnerRow, source: str) -> OwnerRow:
    """Append a row. source: who says so (`api`, `cli`). Raises Refused."""
    check_owner(new)
    said = {"scope": new.scope, "key": new.key, "team": new.team, "cost_centre": new.cost_centre}
    return _row(
        appended(desk.owners, said, valid_from=new.valid_from, now=desk.now(), source=source)
    )


def check_owner(new: NewOwnerRow) -> None:
    """Rules beyond those of the fields. Raises Refused."""
    check_key(new.scope, new.key, keyless="default")
    check_texts(team=new.team, cost_centre=new.cost_centre)
    check_half_hour("valid_from", new.valid_from)


def idle_money(
    desk: Desk, start: datetime, end: datetime, rule: ShareRule | None = None
) -> IdleResponse:
    """Idle money of [start, end) by owner; shared out where a rule is given. Raises Refused."""
    query = with_books(desk, cost_query(start, end, group_by=BY_OWNER))
    check_cost(query, desk.reads.gpu_count())
    rows = [_idle(query, row) for row in desk.costs.rows(query, desk.now())]
    rows = [row for row in rows if row.idle_nusd or row.unmetered_work_nusd or row.gpu_seconds]
    rows.sort(key=lambda row: -row.idle_nusd)
    idle_nusd = sum(row.idle_nusd for row in rows)
    return IdleResponse(
        from_=query.start,
        to=query.end,
        rows=rows,
        idle_nusd=idle_nusd,
        unmetered_work_nusd=sum(row.unmetered_work_nusd for row in rows),
        shared_out=None if rule is None else _shared_out(desk, query, rows, idle_nusd, rule),
    )


def shares(
    rule: ShareRule, idle_nusd: int, used: Mapping[str | None, int], owned: Mapping[str | None, int]
) -> dict[str | None, int]:
    """Each team's part of the idle money; None is nobody. used: attributed money by team, owned:
    idle money by owning team."""
    if rule is ShareRule.TO_OWNER:
        return dict(owned)
    weights = {team: nusd for team, nusd in used.items() if nusd > 0}
    if rule is ShareRule.EVENLY:
        weights = {team: 1 for team in weights if team is not None}
    if not weights:
        return {None: idle_nusd}
    teams = sorted(weights, key=lambda team: (team is None, team or ""))
    return dict(
        zip(teams, split_exactly(idle_nusd, [weights[team] for team in teams]), strict=True)
    )


def _shared_out(
    desk: Desk, query: CostQuery, rows: list[OwnerIdle], idle_nusd: int, rule: ShareRule
) -> SharedOut:
    by_team = with_books(desk, cost_query(query.start, query.end, group_by=("team",)))
    check_cost(by_team, desk.reads.gpu_count())
    used = {
        row.key[0]: row["cost_nusd"]
        for row in desk.costs.rows(by_team, desk.now())
        if row["cost_nusd"]
    }
    owned: dict[str | None, int] = {}
    for row in rows:
        owned[row.owner] = owned.get(row.owner, 0) + row.idle_nusd
    parts = shares(rule, idle_nusd, used, owned)
    both = {team: used.get(team, 0) + parts.get(team, 0) for team in used.keys() | parts.keys()}
    teams = sorted(both, key=lambda team: (team is None, -both[team], team or ""))
    shared = [
        SharedIdle(
            team=team,
            attributed_nusd=used.get(team, 0),
            shared_idle_nusd=parts.get(team, 0),
            with_shared_idle_nusd=both[team],
        )
        for team in teams
        if both[team]
    ]
    return SharedOut(rule.value, RULES[rule], shared, sum(used.values()), sum(parts.values()))


def _idle(query: CostQuery, row: Row) -> OwnerIdle:
    owner, cost_centre = row.key
    warm, cold, unobserved = (row[name] for name in IDLE_COLUMNS)
    return OwnerIdle(
        owner=owner,
        cost_centre=cost_centre,
        warm_idle_nusd=warm,
        cold_idle_nusd=cold,
        unobserved_nusd=unobserved,
        idle_nusd=warm + cold + unobserved,
        unmetered_work_nusd=row["unmetered_work_nusd"],
        gpu_seconds=gpu_seconds(query, row),
    )


def _row(row: Mapping[str, Any]) -> OwnerRow:
    return OwnerRow(
        scope=row["scope"],
        key=row["key"],
        team=row["team"],
        cost_centre=row["cost_centre"],
        **dated(row),
    )
