"""API keys. A key is `gta_<id>_<secret>`: 8 public characters and 256 random bits. Only the SHA-256
of the whole key is stored: with 256 bits of randomness a slow hash would protect nothing and cost
every request.

    {_id: public id, hash, name, scopes, tenant, created_at, expires_at, revoked_at, last_used_at}
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pymongo import ASCENDING, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.documents import Collection

Document = dict[str, Any]
_KEY = re.compile(r"gta_([0-9a-z]{8})_([A-Za-z0-9_-]{43})")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
LAST_USED_EVERY = timedelta(minutes=5)


class KeyScope(StrEnum):
    """What a key may do. ADMIN includes the others."""

    READ = "read"
    INGEST = "ingest"
    PLACEMENTS = "placements"
    ADMIN = "admin"


@dataclass(frozen=True)
class ApiKey:
    """A stored key, without its secret."""

    id: str
    name: str
    scopes: frozenset[KeyScope]
    tenant: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def usable(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return (self.revoked_at is None or self.revoked_at > now) and (
            self.expires_at is None or self.expires_at > now
        )


class KeyStore:
    """Keeps keys. Revoking with a delay (rotation) sets `revoked_at` in the future."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._keys = database.get_collection(
            Collection.API_KEYS.value, write_concern=WriteConcern("majority")
        )
        self._timeout_ms = timeout_ms

    def create(
        self,
        name: str,
        scopes: frozenset[KeyScope],
        tenant: str | None,
        now: datetime,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which is shown this once. Raises ValueError without a scope, and
        for a tenant's key with `admin`."""
        if not scopes:
            raise ValueError(f"a key needs at least one scope: {', '.join(KeyScope)}")
        if tenant is not None and KeyScope.ADMIN in scopes:
            raise ValueError("scope admin is for all tenants: leave out the tenant, or the scope")
        public = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        text = f"gta_{public}_{secrets.token_urlsafe(32)}"
        document: Document = {
            "_id": public,
            "hash": _hash(text),
            "name": name,
            "scopes": sorted(scopes),
            "tenant": tenant,
            "created_at": now,
            "expires_at": expires_at,
            "revoked_at": None,
            "last_used_at": None,
        }
        self._keys.insert_one(document)
        return _key(document), text

    def find(self, text: str) -> ApiKey | None:
        """The key of a presented text; None when it is not one of ours. Usable or not is for the
        caller to ask."""
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        document = self._keys.find_one({"_id": parts.group(1)}, max_time_ms=self._timeout_ms)
        if document is None or not hmac.compare_digest(document["hash"], _hash(text)):
            return None
        return _key(document)

    def keys(self) -> list[ApiKey]:
        """All keys, oldest first."""
        return [
            _key(row)
            for row in self._keys.find({}, max_time_ms=self._timeout_ms).sort(
                "created_at", ASCENDING
            )
        ]

    def get(self, public: str) -> ApiKey | None:
        """One key by its public id."""
        document = self._keys.find_one({"_id": public}, max_time_ms=self._timeout_ms)
        return None if document is None else _key(document)

    def revoke(self, public: str, at: datetime) -> bool:
        """No use from `at` on (an earlier revocation stands). False: no such key."""
        revoked = self._keys.update_one(
            {"_id": public, "$or": [{"revoked_at": None}, {"revoked_at": {"$gt": at}}]},
            {"$set": {"revoked_at": at}},
        )
        return bool(revoked.matched_count) or self.get(public) is not None

    def rotate(self, public: str, now: datetime, overlap: timedelta) -> tuple[ApiKey, str]:
        """A new key with the same name, scopes, tenant and expiry; the old one works for `overlap`
        more.

        Raises KeyError when there is no usable key of that id.
        """
        old = self.get(public)
        if old is None or not old.usable(now):
            raise KeyError(public)
        new, text = self.create(old.name, old.scopes, old.tenant, now, old.expires_at)
        self.revoke(public, now + overlap)
        return new, text

    def used(self, public: str, now: datetime) -> None:
        """Note that a key is in use; at most one write per LAST_USED_EVERY."""
        stale = {"$or": [{"last_used_at": None}, {"last_used_at": {"$lt": now - LAST_USED_EVERY}}]}
        self._keys.update_one({"_id": public, **stale}, {"$set": {"last_used_at": now}})


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _key(document: Document) -> ApiKey:
    return ApiKey(
        id=document["_id"],
        name=document["name"],
        scopes=frozenset(KeyScope(scope) for scope in document["scopes"]),
        tenant=document["tenant"],
        created_at=document["created_at"],
        expires_at=document["expires_at"],
        revoked_at=document["revoked_at"],
        last_used_at=document["last_used_at"],
    )
