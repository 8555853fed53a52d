"""Which team a tenant belongs to, and since when: append-only, effective-dated, as prices are.

    {_id, tenant, team (null: none from then on), valid_from, created_at, source}

A row holds until the tenant's next one. It begins on a whole or half UTC hour: sums are kept by half hours, so a tenant that
changes its team divides between both to the nano-dollar, and cheaply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from pymongo import DESCENDING, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.errors import mapped
from gpu_token_analytics.wire.identity import new_event_id

Document = dict[str, Any]
MAX_TEAM_ROWS = 2_000


class TooManyTeamRows(Exception):
    """There are MAX_TEAM_ROWS already."""


class TeamBook:
    """Who belonged where at any time."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows: dict[str, list[tuple[datetime, str | None]]] = {}
        for row in sorted(rows, key=lambda row: (row["valid_from"], row["created_at"], row["_id"])):
            self._rows.setdefault(row["tenant"], []).append((row["valid_from"], row["team"]))

    def team_of(self, tenant: str, at: datetime) -> str | None:
        """The team of a tenant then; None: none was named. Of rows that begin at once the one written last holds."""
        team = None
        for begins, named in self._rows.get(tenant, ()):
            if begins > at:
                break
            team = named
        return team

    def pieces(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """[start, end) cut where somebody changes: within a piece nobody does."""
        borders = {begins for rows in self._rows.values() for begins, _ in rows if start < begins < end}
        cuts = [start, *sorted(borders), end]
        return [(low, high) for low, high in pairwise(cuts) if low < high]

    def members(self, team: str, at: datetime) -> frozenset[str]:
        """The tenants of a team then."""
        return frozenset(tenant for tenant in self._rows if self.team_of(tenant, at) == team)

    def teams_at(self, at: datetime) -> dict[str, str | None]:
        """The team of every tenant that has a row."""
        return {tenant: self.team_of(tenant, at) for tenant in sorted(self._rows)}


class TeamStore:
    """Lists and appends rows. Raises StoreError."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._teams = database.get_collection(Collection.TEAMS.value, write_concern=WriteConcern("majority"))
        self._timeout_ms = timeout_ms

    @mapped
    def rows(self) -> list[Document]:
        """All rows, newest valid_from first."""
        order = [("valid_from", DESCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        return list(self._teams.find({}, max_time_ms=self._timeout_ms).sort(order))

    def book(self) -> TeamBook:
        """The book now."""
        return TeamBook(self.rows())

    @mapped
    def append(self, *, tenant: str, team: str | None, valid_from: datetime, created_at: datetime, source: str) -> Document:
        """Append one row. Raises TooManyTeamRows."""
        if self._teams.count_documents({}, limit=MAX_TEAM_ROWS) >= MAX_TEAM_ROWS:
            raise TooManyTeamRows
        row: Document = {
            "_id": new_event_id(),
            "tenant": tenant,
            "team": team,
            "valid_from": valid_from,
            "created_at": created_at,
            "source": source,
        }
        self._teams.insert_one(row)
        return row
