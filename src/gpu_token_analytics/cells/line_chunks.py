"""Lines that are too many for the document they belong to, in documents of their own.

    ledger_cells, rollups_*  {..., lines: {ref: {token, section, chunks, lines}}}   the header
    line_chunks              "<token>|<section>|<n>": one piece of its lines

No document grows with the number of names in the data: a header holds its lines as long as they are
few, and a reference to chunks from then on. A reader sees one state of a header and exactly the
lines that belong to it:

    1 the chunks are written under a token of their own, and are durable, before a header refers to
      them
    2 the header is swapped as it ever was, by comparing its revision or version
    3 the chunks of the header that was replaced are removed, and no others: another writer's may be
      about to be referred to
    4 a reader that misses chunks reads the header again: it was swapped meanwhile

What a crash between 1 and 3 leaves is swept up later: chunks that no header refers to, an hour
after they were written.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import bson
from pymongo import ReadPreference, WriteConcern
from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import LinesReplaced, StoreOutcomeUnknown
from gpu_token_analytics.mongo.commands import MAX_COMMAND_BYTES, write_command
from gpu_token_analytics.mongo.encoded import Joined
from gpu_token_analytics.mongo.errors import Document

ORPHAN_AFTER = timedelta(hours=1)
FIRST_SWEEP = timedelta(days=1)  # how far back the first sweep of a process looks
READ_TRIES = 10
_SWEPT_AT_ONCE = 500


class LineChunks:
    """Reads and writes of `line_chunks`."""

    def __init__(
        self, database: Database[Document], now: Callable[[], datetime] | None = None
    ) -> None:
        """now: the server's clock; only writers need it."""
        self._chunks = database.get_collection(
            Collection.LINE_CHUNKS.value,
            write_concern=WriteConcern("majority"),
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        self._database = database
        self._now = now
        self._swept_until: datetime | None = None

    # -- writing -----------------------------------------------------------------------------------

    def put(
        self, of: Collection, owner: str, sections: Mapping[str, Iterable[Document]]
    ) -> tuple[str, dict[str, Document]]:
        """Store pieces of lines durably. Returns the token they are under, and for each section the
        reference that its header has to hold, `lines` left out. Raises StoreError; nothing refers
        to what was stored then."""
        assert self._now is not None
        token = secrets.token_hex(8)
        head = {"of": of.value, "owner": owner, "written_at": self._now()}
        counts = dict.fromkeys(sections, 0)

        def documents() -> Iterator[bytes]:
            for section, pieces in sections.items():
                for number, piece in enumerate(pieces):
                    counts[section] += 1
                    yield bson.encode({"_id": _chunk_id(token, section, number), **head, **piece})

        for joined in _commands(documents()):
            reply = write_command(self._chunks, "insert", [joined])
            if failed := reply.get("writeErrors"):
                raise StoreOutcomeUnknown(
                    f"lines of {owner} were not stored: {failed[0].get('errmsg')}"
                )
        return token, {
            name: {"token": token, "section": name, "chunks": count}
            for name, count in counts.items()
        }

    def drop(self, tokens: Iterable[str | None]) -> None:
        """Remove the chunks of these tokens, to which no header refers any more."""
        for token in tokens:
            if token is not None:
                self._chunks.delete_many({"_id": {"$gte": f"{token}|", "$lt": f"{token}}}"}})

    # -- reading -----------------------------------------------------------------------------------

    def read(self, ref: Document, fields: Sequence[str] = ()) -> list[Document] | None:
        """The pieces a reference names, in order; None when some are missing: its header was
        swapped."""
        low = f"{ref['token']}|{ref['section']}|"
        where = {"_id": {"$gte": low, "$lt": low[:-1] + "}"}}
        pieces = list(
            self._chunks.find(where, dict.fromkeys(fields, 1) or None).sort("_id", 1).batch_size(8)
        )
        return pieces if len(pieces) == ref["chunks"] else None

    def read_some(self, ref: Document, low: int, high: int) -> Iterator[Document]:
        """The pieces [low, high) of those a reference names, in order, a few in memory at a time.
        Raises LinesReplaced, at the latest after the last one."""
        if low >= high:
            return
        first, last = (_chunk_id(ref["token"], ref["section"], at) for at in (low, high - 1))
        where = {"_id": {"$gte": first, "$lte": last}}
        found = 0
        with self._chunks.find(where).sort("_id", 1).batch_size(4) as pieces:
            for piece in pieces:
                found += 1
                yield piece
        if found != high - low:
            raise LinesReplaced(
                f"{ref['section']} of a sum was written anew while it was read; read it once more"
            )

    # -- what crashes left -------------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove chunks that no header refers to, of what was written since the last sweep and more
        than an hour ago. Returns of how many documents."""
        assert self._now is not None
        until = self._now() - ORPHAN_AFTER
        since = until - FIRST_SWEEP if self._swept_until is None else self._swept_until
        if since >= until:
            return 0
        where = {"written_at": {"$gte": since, "$lt": until}}
        orphans = 0
        some: dict[str, tuple[str, str]] = {}  # token -> collection, owner
        for chunk in self._chunks.find(where, {"of": 1, "owner": 1}):
            some[chunk["_id"].split("|", 1)[0]] = chunk["of"], chunk["owner"]
            if len(some) == _SWEPT_AT_ONCE:
                orphans += self._sweep(some)
                some = {}
        orphans += self._sweep(some)
        self._swept_until = until
        return orphans

    def _sweep(self, tokens: Mapping[str, tuple[str, str]]) -> int:
        referred: set[str] = set()
        for name in {of for of, _ in tokens.values()}:
            owners = list({owner for of, owner in tokens.values() if of == name})
            headers = self._database[name].find({"_id": {"$in": owners}}, {"chunks": 1})
            referred.update(header["chunks"] for header in headers if header.get("chunks"))
        orphans = tokens.keys() - referred
        self.drop(orphans)
        return len(orphans)


def _chunk_id(token: str, section: str, number: int) -> str:
    return f"{token}|{section}|{number:06d}"


def _commands(documents: Iterable[bytes]) -> Iterator[Joined]:
    parts: list[bytes] = []
    size = 0
    for document in documents:
        if parts and size + len(document) > MAX_COMMAND_BYTES:
            yield Joined(b"".join(parts))
            parts, size = [], 0
        parts.append(document)
        size += len(document)
    if parts:
        yield Joined(b"".join(parts))


def read_again(owner: Any) -> StoreOutcomeUnknown:
    """What to raise when a header was swapped at every try."""
    return StoreOutcomeUnknown(f"{owner} is being written again and again; read it once more")
