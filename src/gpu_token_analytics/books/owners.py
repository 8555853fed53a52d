"""Who owns GPUs, hosts and models, and since when: append-only, effective-dated, as prices are.

    {_id, scope (model, gpu, host, default), key (null: of default), team, cost_centre (both null:
     nobody from then on), valid_from, created_at, source}

The owner of a nano-dollar is that of its model, where a model's line holds it: who keeps a model
loaded pays for its idling. Else it is the owner of its GPU, else of its host, else the default one.
As teams, rows begin on a whole or half UTC hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from gpu_token_analytics.books.dated import DatedBook, DatedStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.names import canonical_host, spellings

OwnerKey: TypeAlias = tuple[str, str | None]


class OwnerScope(StrEnum):
    """What a row is about; the first that names somebody holds."""

    MODEL = "model"
    GPU = "gpu"
    HOST = "host"
    DEFAULT = "default"


class Owner(NamedTuple):
    """Who pays for what nobody used. Both unknown: nobody is named."""

    team: str | None = None
    cost_centre: str | None = None


NOBODY = Owner()


class OwnerBook(DatedBook[OwnerKey]):
    """Who owned what at any time."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        spelled = [
            {**row, "key": key} for row in rows for key in _stored_keys(row["scope"], row["key"])
        ]
        super().__init__(spelled, lambda row: (row["scope"], row["key"]))

    def owner_of(self, model: str | None, gpu: str | None, host: str | None, at: datetime) -> Owner:
        """The owner of money of a model (None: no model's) on a GPU of a host then."""
        scopes = (
            (OwnerScope.MODEL, model),
            (OwnerScope.GPU, gpu),
            (OwnerScope.HOST, host),
            (OwnerScope.DEFAULT, None),
        )
        for scope, key in scopes:
            if key is None and scope is not OwnerScope.DEFAULT:
                continue
            row = self.row_at((scope.value, key), at)
            if row is not None and (row["team"] is not None or row["cost_centre"] is not None):
                return Owner(row["team"], row["cost_centre"])
        return NOBODY


class OwnerStore(DatedStore):
    """The stored rows. Raises StoreError."""

    collection = Collection.OWNERS

    def book(self) -> OwnerBook:
        """The book now."""
        return OwnerBook(self.rows())


def _stored_keys(scope: str, key: str | None) -> Iterable[str | None]:
    """The names under which cells may hold what a row is about, as people wrote it."""
    if key is None or scope not in (OwnerScope.GPU, OwnerScope.HOST):
        return (key,)
    return spellings(key) if scope == OwnerScope.GPU else {key, canonical_host(key)}
