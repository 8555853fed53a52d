"""Write commands sent as they are: for ingest's many small documents the driver's own classes cost
more than encoding does.

Not retried by the driver; every caller's write can be repeated. What the answers mean is decided
here, once:

    writeConcernErrors, alone or not     applied, not known to be durable: StoreOutcomeUnknown,
                                         repeat
    no answer, timeout, not primary      anything may have happened: StoreUnreachable, repeat
    a code that names the document       this one will never be accepted: its place, with why; set
                                         it aside, go on
    any other code                       an operator has to act: StoreRefused
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.errors import BSONError
from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.errors import StoreError, StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.mongo.encoded import Joined
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.mongo.pieces import pieces

MAX_COMMAND_BYTES = 12 * 1024 * 1024  # the driver sends no command of more than 16 MiB
MAX_COMMAND_STATEMENTS = 10_000
MAX_STATEMENT_BYTES = 15 * 1024 * 1024  # MongoDB stores no document of more than 16 MiB

DUPLICATE_KEY = 11000
BSON_OBJECT_TOO_LARGE = 10334
# The document itself is at fault (mongodb src/mongo/base/error_codes.yml); everything else is the
# server's state.
BAD_DOCUMENT = frozenset(
    {
        2,  # BadValue
        22,  # InvalidBSON
        52,  # DollarPrefixedFieldName
        53,  # InvalidIdField
        121,  # DocumentValidationFailure: an operator's validator
        BSON_OBJECT_TOO_LARGE,
        17280,  # KeyTooLong
    }
)


def write_command(
    where: MongoCollection[Document], kind: str, items: Sequence[Any], *, ordered: bool = False
) -> Document:
    """`insert` (documents) or `update` (statements) on a collection, with its write concern.

    Returns the server's reply: {n, writeErrors?: [{index, code, ...}], upserted?, nModified?}.
    Raises StoreUnreachable, StoreRefused, StoreOutcomeUnknown (also for any writeConcernError), and
    what encoding raises, before anything is sent.
    """
    command = {
        kind: where.name,
        "ordered": ordered,
        "writeConcern": where.write_concern.document,
        {"insert": "documents", "update": "updates"}[kind]: items,
    }
    with store_errors(f"{kind} {where.name}"):
        reply: Document = where.database.command(command)
    if unsure := reply.get("writeConcernError"):
        raise StoreOutcomeUnknown(
            f"{kind} of {where.name} is not known to be durable: {unsure.get('errmsg')}"
        )
    return reply


@dataclass(slots=True)
class Updated:
    """What became of update statements. Places are those of the statements."""

    matched: int = 0  # those that found their document, upserted ones included
    upserted: int = 0
    # upserts of what somebody else inserted at the same moment, or holds
    duplicates: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)  # never to be accepted, and why

    def raise_refused(self, what: str) -> None:
        """For callers to whom a refusal is a defect of theirs."""
        for why in self.refused.values():
            raise StoreRefused(f"MongoDB refused {what}: {why}")


def update_many(where: MongoCollection[Document], statements: Iterable[Document]) -> Updated:
    """Any number of update statements {q, u, upsert?, multi?} in as few commands as their number
    and bytes allow.

    Unordered: one that is refused does not hold up the others. Raises StoreUnreachable,
    StoreRefused (an operator has to act) and StoreOutcomeUnknown: repeat all.
    """
    outcome = Updated()
    for places, joined in _pieces(statements, outcome):
        reply = write_command(where, "update", [joined])
        upserted = len(reply.get("upserted", ()))
        outcome.matched += reply["n"]
        outcome.upserted += upserted
        _judge(where, places, reply.get("writeErrors", ()), outcome)
    return outcome


def swap(
    where: MongoCollection[Document], query: Document, update: Document
) -> tuple[Document | None, str | None]:
    """Update one document, or insert it where there is none of its _id.

    Returns ({chunks?} of the document it replaced, None), ({}, None) where there was none, (None,
    None) where the query did not let it, and (None, why) where MongoDB refuses it for good. Raises
    StoreUnreachable, StoreRefused, StoreOutcomeUnknown.
    """
    try:
        with store_errors(f"update {where.name}"):
            before = where.find_one_and_update(query, update, {"chunks": 1}, upsert=True)
    except StoreError as error:
        code = getattr(error.__cause__, "code", None)
        if code == DUPLICATE_KEY:
            return None, None
        if code in BAD_DOCUMENT:
            return None, str(error)
        raise
    except (BSONError, OverflowError) as error:
        return None, f"it cannot be encoded: {error}"
    return before or {}, None


def _pieces(statements: Iterable[Document], outcome: Updated) -> Iterator[tuple[list[int], Joined]]:
    places: list[int] = []
    parts: list[bytes] = []
    size = 0
    for index, statement in enumerate(statements):
        try:
            encoded = bson.encode(statement)
        except (BSONError, OverflowError) as error:
            outcome.refused[index] = f"it cannot be encoded: {error}"
            continue
        if len(encoded) > MAX_STATEMENT_BYTES:
            outcome.refused[index] = (
                f"{len(encoded):,} bytes; MongoDB takes 16 MiB (code {BSON_OBJECT_TOO_LARGE})"
            )
            continue
        if parts and (
            len(parts) == MAX_COMMAND_STATEMENTS or size + len(encoded) > MAX_COMMAND_BYTES
        ):
            yield places, Joined(b"".join(parts))
            places, parts, size = [], [], 0
        places.append(index)
        parts.append(encoded)
        size += len(encoded)
    if parts:
        yield places, Joined(b"".join(parts))


def _judge(
    where: MongoCollection[Document],
    places: Sequence[int],
    errors: Sequence[Document],
    outcome: Updated,
) -> None:
    for error in errors:
        index, code = places[error["index"]], error["code"]
        if code == DUPLICATE_KEY:
            outcome.duplicates.append(index)
        elif code in BAD_DOCUMENT:
            outcome.refused[index] = f"{error.get('errmsg')} (code {code})"
        else:
            raise StoreRefused(
                f"MongoDB refused to update {where.name}: {error.get('errmsg')} (code {code})"
            )


def by_bytes(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in pieces for `$in`, bounded by number and by bytes."""
    return pieces(names, lambda name: 4 * len(name), most=1000)  # bytes of UTF-8 at most
