"""Which team a tenant belongs to, and since when: append-only, effective-dated, as prices are.

    {_id, tenant, team (null: none from then on), valid_from, created_at, source}

A row holds until the tenant's next one. It begins on a whole or half UTC hour: sums are kept by
half hours, so a tenant that changes its team divides between both to the nano-dollar, and cheaply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from gpu_token_analytics.books.dated import DatedBook, DatedStore
from gpu_token_analytics.documents import Collection


class TeamBook(DatedBook[str]):
    """Who belonged where at any time."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(rows, lambda row: str(row["tenant"]))

    def team_of(self, tenant: str, at: datetime) -> str | None:
        """The team of a tenant then; None: none was named. Of rows that begin at once the one
        written last holds."""
        row = self.row_at(tenant, at)
        return None if row is None else row["team"]

    def members(self, team: str, at: datetime) -> frozenset[str]:
        """The tenants of a team then."""
        return frozenset(tenant for tenant in self.keys if self.team_of(tenant, at) == team)


class TeamStore(DatedStore):
    """The stored rows. Raises StoreError."""

    collection = Collection.TEAMS

    def book(self) -> TeamBook:
        """The book now."""
        return TeamBook(self.rows())
