"""Dimensions that no cell holds but books tell: the team of a tenant, the owner of what money was
spent on.

They are found while rows are grouped, so a row that was appended with a valid_from in the past
holds at once, for all its time: nothing stored changes by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_token_analytics.books.owners import OwnerBook
    from gpu_token_analytics.books.teams import TeamBook
    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.costs.query import CostQuery

BY_TENANT = ("team",)
BY_OWNER = ("owner", "cost_centre")
TOLD = (*BY_TENANT, *BY_OWNER)  # by books


@dataclass(frozen=True)
class Whose:
    """The books that group rows."""

    teams: TeamBook
    owners: OwnerBook

    def borders(self, start: datetime, end: datetime) -> set[datetime]:
        """When inside (start, end) somebody changes."""
        return self.teams.borders(start, end) | self.owners.borders(start, end)

    def at(self, when: datetime) -> WhoseThen:
        """What the books say of one time."""
        return WhoseThen(self, when)


class WhoseThen:
    """Who holds what at one time; each answer is found once."""

    def __init__(self, whose: Whose, when: datetime) -> None:
        self._owner = cache(lambda model, gpu, host: whose.owners.owner_of(model, gpu, host, when))
        self._team = cache(lambda tenant: whose.teams.team_of(tenant, when))

    def told(
        self, model: str | None, tenant: str | None, gpu: str | None, host: str | None
    ) -> tuple[str | None, str | None, str | None]:
        """The values of TOLD."""
        team = None if tenant is None else self._team(tenant)
        return (team, *self._owner(model, gpu, host))


def with_books(desk: Desk, query: CostQuery) -> CostQuery:
    """The query with the books that its grouping asks for."""
    from gpu_token_analytics.books.owners import OwnerBook
    from gpu_token_analytics.books.teams import TeamBook

    groups = set(query.group_by)
    if not groups.intersection(TOLD):
        return query
    teams = desk.teams.book() if groups.intersection(BY_TENANT) else TeamBook(())
    owners = desk.owners.book() if groups.intersection(BY_OWNER) else OwnerBook(())
    return replace(query, whose=Whose(teams, owners))
