"""Raw documents into MongoDB, each once. What the driver says, what it means, and what follows:

    returns                                   stored by the majority: go on
    E11000 on _id, the stored `h` is ours     the same event again: go on, a duplicate
    E11000 on _id, another `h`                the id was used for two events: a dead letter,
                                              id_conflict
    any writeConcernErrors (E11000 or not)    applied, not known to be durable:
                                              StoreOutcomeUnknown, repeat the batch
    no answer, timeout, not primary           anything may have happened: StoreUnreachable, repeat
                                              the batch
    a code that names the document as bad     this one will never be accepted: a dead letter,
                                              refused_by_store
    any other code                            an operator has to act: StoreRefused, stop, nothing
                                              committed

Repeating a batch is always safe, because `_id` is made of the event's own id (wire/identity.py). A
batch goes out as one `insert` command, unless it is too much for one (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import (
    BAD_DOCUMENT,
    DUPLICATE_KEY,
    MAX_COMMAND_BYTES,
    write_command,
)
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.wire.kind import Kind

MAX_COMMAND_DOCUMENTS = 10_000


@dataclass(slots=True)
class InsertOutcome:
    """What became of a batch. `conflicts` and `refused` are places in it, with a message each."""

    inserted: int = 0
    duplicates: int = 0
    conflicts: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def insert_raw(
    store: Store, kind: Kind[Any], documents: EncodedDocuments, *, ask_first: bool = False
) -> InsertOutcome:
    """Insert what is not stored yet; returns when all of `documents` are durable.

    ask_first: look up which ids exist before inserting. Worth it from a few percent of duplicates
    on (a duplicate-key error costs the server ten times an insert). Raises StoreUnreachable or
    StoreOutcomeUnknown: call again with the same documents. Raises StoreRefused: an operator has to
    act.
    """
    outcome = InsertOutcome()
    where = store[kind.collection]
    todo = _unknown(where, documents, outcome) if ask_first else range(len(documents))
    for places, joined in documents.commands(todo, MAX_COMMAND_DOCUMENTS, MAX_COMMAND_BYTES):
        reply = write_command(where, "insert", joined)
        outcome.inserted += reply["n"]
        _judge_errors(where, documents, places, reply.get("writeErrors", ()), outcome)
    return outcome


def _unknown(
    where: MongoCollection[Document], documents: EncodedDocuments, outcome: InsertOutcome
) -> list[int]:
    """Places of the documents whose id is not stored; the others are judged."""
    stored = _stored_hashes(where, documents.ids)
    fresh: list[int] = []
    for index, name in enumerate(documents.ids):
        h = stored.get(name)
        if h is None:
            # a second one of this id in the batch is judged by the first
            stored[name] = documents.hashes[index]
            fresh.append(index)
        else:
            _judge(index, documents, h, outcome)
    return fresh


def _judge_errors(
    where: MongoCollection[Document],
    documents: EncodedDocuments,
    places: Sequence[int],
    errors: Sequence[Document],
    outcome: InsertOutcome,
) -> None:
    again: list[int] = []
    for error in errors:
        index = places[error["index"]]
        if error["code"] == DUPLICATE_KEY and error.get("keyPattern", {"_id": 1}) == {"_id": 1}:
            again.append(index)
        elif error["code"] in BAD_DOCUMENT:
            outcome.refused[index] = str(error.get("errmsg", ""))
        else:
            raise StoreRefused(
                f"MongoDB refused documents of {where.name}: {error.get('errmsg')} (code "
                f"{error['code']}); nothing is lost, "
                "the batch is read again after the cause is repaired"
            )
    if not again:
        return
    stored = _stored_hashes(where, [documents.ids[index] for index in again])
    for index in again:
        h = stored.get(documents.ids[index])
        if h is None:
            raise StoreOutcomeUnknown(
                f"{where.name} {documents.shown(index)!r} exists and does not: expired or rolled "
                "back"
            )
        _judge(index, documents, h, outcome)


def _judge(
    index: int, documents: EncodedDocuments, stored_h: bytes, outcome: InsertOutcome
) -> None:
    h = documents.hashes[index]
    if stored_h == h:
        outcome.duplicates += 1
    else:
        outcome.conflicts[index] = (
            f"event_id {documents.shown(index)[:80]!r} is stored with another payload (hash "
            f"{stored_h.hex()}, this one "
            f"{h.hex()}); an event's id is its own for ever: send corrections under a new id"
        )


def _stored_hashes(where: MongoCollection[Document], ids: list[bytes]) -> dict[bytes, bytes]:
    """`h` by id, as the majority has it."""
    with store_errors(f"look up {where.name}"):
        return {
            doc["_id"]: doc.get("h", b"")
            for doc in where.find({"_id": {"$in": ids}}, {"h": 1}).batch_size(len(ids))
        }
