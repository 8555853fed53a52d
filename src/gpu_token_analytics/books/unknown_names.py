"""The list of what requests call GPUs that nobody sampled or declared (gpu_names.py keeps the
names)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gpu_token_analytics.books.store import BookStore
from gpu_token_analytics.documents import Collection, GpuId
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.errors import store_errors

MOST_COUNTED = 10_000


@dataclass(frozen=True)
class UnknownName:
    """What requests call a GPU that nobody sampled or declared."""

    name: str
    tenant: str  # that named it first
    first_named_at: datetime
    # two or more GPUs of which it can be another spelling: it is not guessed
    may_be: tuple[GpuId, ...]


def unknown_names(store: Store, books: BookStore, limit: int) -> tuple[int, list[UnknownName]]:
    """(how many there are, at most MOST_COUNTED; the first of them)."""
    with store_errors("list the names of GPUs"):
        rows = list(
            store[Collection.INVENTORY]
            .find({"kind": "name"})
            .sort("first_named_at", 1)
            .limit(MOST_COUNTED)
        )
    if not rows:
        return 0, []
    known = books.read()
    names: list[UnknownName] = []
    for row in rows:
        name, meanings = row["name"], known.placements.meanings(row["name"])
        if not known.may_own(name) and len(meanings) != 1:
            names.append(UnknownName(name, row["tenant"], row["first_named_at"], tuple(meanings)))
    return len(names), names[:limit]
