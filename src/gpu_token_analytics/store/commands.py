"""Write commands sent as they are: for ingest's many small documents the driver's own classes cost more than encoding does.

Not retried by the driver; every caller's write can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.errors import StoreOutcomeUnknown
from gpu_token_analytics.store.client import Document, store_errors


def write_command(where: MongoCollection[Document], kind: str, items: Sequence[Any], *, ordered: bool = False) -> Document:
    """`insert` (documents) or `update` (statements) on a collection, with its write concern.

    Returns the server's reply: {n, writeErrors?: [{index, code, ...}], upserted?, nModified?}. Raises StoreUnreachable,
    StoreRefused, StoreOutcomeUnknown (also for any writeConcernError), and what encoding raises, before anything is sent.
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
        raise StoreOutcomeUnknown(f"{kind} of {where.name} is not known to be durable: {unsure.get('errmsg')}")
    return reply
