"""What MongoDB refuses for good is set aside: counted, shown, and everything else goes on.

A refusal that repeating does not change is no outage. The one cell or sum that it concerns stays as
it was stored before, and is tried again when something it is made of changes, and every hour: an
operator may have removed a validator, or installed a version of this program that writes it
otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from pymongo.database import Database

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.commands import by_bytes
from gpu_token_analytics.mongo.errors import Document

_log = logging.getLogger(__name__)

RETRY_AFTER = timedelta(hours=1)
MAX_LISTED = 100
_MAX_REASON = 500


class Aside:
    """The documents set aside. Usually none: what is known of them is remembered, so that asking
    costs nothing."""

    def __init__(self, database: Database[Document], now: Callable[[], datetime]) -> None:
        """now: the server's clock."""
        self._rows = database[Collection.SET_ASIDE.value]
        self._now = now
        self._known: set[str] | None = None

    def put(self, of: Collection, name: str, why: str) -> None:
        """Set a document aside, or again."""
        now = self._now()
        key = f"{of.value}/{name}"
        if key not in self._names():
            _log.error("%s is set aside: MongoDB refuses it for good: %s", key, why)
        fields = {"of": of.value, "owner": name, "why": why[:_MAX_REASON], "at": now}
        self._rows.update_one(
            {"_id": key}, {"$set": fields, "$setOnInsert": {"since": now}}, upsert=True
        )
        self._names().add(key)

    def clear(self, of: Collection, names: Iterable[str]) -> None:
        """These documents were stored."""
        if not self._names():
            return
        keys = sorted({f"{of.value}/{name}" for name in names} & self._names())
        for some in by_bytes(keys):
            self._rows.delete_many({"_id": {"$in": some}})
            self._names().difference_update(some)

    def refresh(self) -> int:
        """Look again what is set aside, by whomever. Returns how many documents."""
        self._known = {row["_id"] for row in self._rows.find({}, {"_id": 1})}
        return len(self._known)

    def to_retry(self, of: Collection) -> list[str]:
        """Names of documents of a collection that wait to be tried again."""
        if not self._names():
            return []
        where = {"of": of.value, "at": {"$lt": self._now() - RETRY_AFTER}}
        return [row["owner"] for row in self._rows.find(where, {"owner": 1}).limit(MAX_LISTED)]

    def rows(self, limit: int = MAX_LISTED) -> list[Document]:
        """The first of them: {of, owner, why, since, at}."""
        return list(self._rows.find().sort("since", 1).limit(limit))

    def _names(self) -> set[str]:
        if self._known is None:
            self.refresh()
        assert self._known is not None
        return self._known
