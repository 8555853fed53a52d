"""Raw documents into MongoDB, each once. What the driver says, what it means, and what follows:

    returns                                    stored by the majority                  go on
    E11000 on _id, the stored `h` is ours      it is the same event again              go on: a duplicate
    E11000 on _id, another `h`                 the id was used for two events          dead letter: id_conflict
    any writeConcernErrors (E11000 or not)     applied, not known to be durable        StoreOutcomeUnknown: repeat the batch
    no answer, timeout, not primary            anything may have happened              StoreUnreachable: repeat the batch
    a code that names the document as bad      this one will never be accepted         dead letter: refused_by_store
    any other code                             an operator has to act                  StoreRefused: stop, nothing committed

Repeating a batch is always safe, because `_id` is the event's own id. A batch goes out as one `insert` command, encoded in one
go; what cannot be encoded, or is too much for one command, is found by halving (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bson.errors import BSONError
from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.store.client import Document, Store, store_errors
from gpu_token_analytics.store.commands import write_command

RawDocument: TypeAlias = Mapping[str, Any]  # of documents.py; also one that is encoded already

MAX_CHUNK_DOCUMENTS = 10_000
# What the driver raises for a document it cannot encode, or for more of them than fit one command (16 MiB). An integer past
# 64 bit is an OverflowError.
_NOT_ENCODED = (BSONError, OverflowError, ValueError, TypeError)

_DUPLICATE_KEY = 11000
# The document itself is at fault (mongodb src/mongo/base/error_codes.yml); everything else is the server's state.
_BAD_DOCUMENT = frozenset(
    {
        2,  # BadValue
        22,  # InvalidBSON
        52,  # DollarPrefixedFieldName
        53,  # InvalidIdField
        121,  # DocumentValidationFailure: an operator's validator
        10334,  # BSONObjectTooLarge
        17280,  # KeyTooLong
    }
)


@dataclass(slots=True)
class InsertOutcome:
    """What became of a batch. `conflicts` and `refused` are indexes into it, with a message each."""

    inserted: int = 0
    duplicates: int = 0
    conflicts: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def insert_raw(
    store: Store, collection: Collection, documents: Sequence[RawDocument], *, ask_first: bool = False
) -> InsertOutcome:
    """Insert what is not stored yet; returns when all of `documents` (documents.py) are durable.

    ask_first: look up which ids exist before inserting. Worth it from a few percent of duplicates on (a duplicate-key
    error costs the server ten times an insert). Raises StoreUnreachable or StoreOutcomeUnknown: call again with the same
    documents. Raises StoreRefused: an operator has to act.
    """
    outcome = InsertOutcome()
    where = store[collection]
    todo = _unknown(where, documents, outcome) if ask_first else list(range(len(documents)))
    for at in range(0, len(todo), MAX_CHUNK_DOCUMENTS):
        _insert_chunk(where, documents, todo[at : at + MAX_CHUNK_DOCUMENTS], outcome)
    return outcome


def _unknown(where: MongoCollection[Document], documents: Sequence[RawDocument], outcome: InsertOutcome) -> list[int]:
    """Indexes of the documents whose id is not stored; the others are judged."""
    stored = _stored_hashes(where, [document["_id"] for document in documents])
    fresh: list[int] = []
    for index, document in enumerate(documents):
        h = stored.get(document["_id"])
        if h is None:
            stored[document["_id"]] = document["h"]  # a second one of this id in the batch is judged by the first
            fresh.append(index)
        else:
            _judge(index, document, h, outcome)
    return fresh


def _insert_chunk(
    where: MongoCollection[Document], documents: Sequence[RawDocument], chunk: list[int], outcome: InsertOutcome
) -> None:
    try:
        reply = write_command(where, "insert", [documents[index] for index in chunk])
    except _NOT_ENCODED as error:  # before anything was sent
        if len(chunk) == 1:
            outcome.refused[chunk[0]] = f"the event cannot be stored: {error}"
            return
        middle = len(chunk) // 2
        _insert_chunk(where, documents, chunk[:middle], outcome)
        _insert_chunk(where, documents, chunk[middle:], outcome)
        return
    outcome.inserted += reply["n"]
    _judge_errors(where, documents, chunk, reply.get("writeErrors", ()), outcome)


def _judge_errors(
    where: MongoCollection[Document],
    documents: Sequence[RawDocument],
    chunk: list[int],
    errors: Sequence[Document],
    outcome: InsertOutcome,
) -> None:
    again: list[int] = []
    for error in errors:
        index = chunk[error["index"]]
        if error["code"] == _DUPLICATE_KEY and error.get("keyPattern", {"_id": 1}) == {"_id": 1}:
            again.append(index)
        elif error["code"] in _BAD_DOCUMENT:
            outcome.refused[index] = str(error.get("errmsg", ""))
        else:
            raise StoreRefused(
                f"MongoDB refused documents of {where.name}: {error.get('errmsg')} (code {error['code']}); nothing is lost, "
                "the batch is read again after the cause is repaired"
            )
    if not again:
        return
    stored = _stored_hashes(where, [documents[index]["_id"] for index in again])
    for index in again:
        h = stored.get(documents[index]["_id"])
        if h is None:
            raise StoreOutcomeUnknown(f"{where.name} {documents[index]['_id']!r} exists and does not: expired or rolled back")
        _judge(index, documents[index], h, outcome)


def _judge(index: int, document: RawDocument, stored_h: bytes, outcome: InsertOutcome) -> None:
    if stored_h == document["h"]:
        outcome.duplicates += 1
    else:
        outcome.conflicts[index] = (
            f"event_id {document['_id'][:80]!r} is stored with another payload (hash {stored_h.hex()}, this one "
            f"{document['h'].hex()}); an event's id is its own for ever: send corrections under a new id"
        )


def _stored_hashes(where: MongoCollection[Document], ids: list[str]) -> dict[str, bytes]:
    """`h` by id, as the majority has it."""
    with store_errors(f"look up {where.name}"):
        return {found["_id"]: found.get("h", b"") for found in where.find({"_id": {"$in": ids}}, {"h": 1}).batch_size(len(ids))}
