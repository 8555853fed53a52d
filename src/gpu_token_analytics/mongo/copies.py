"""The whole store as of one moment, as bytes; and the way back into an empty database.

Consistent means: one cluster time for all collections (a snapshot session), so that a copy is a
ledger with exactly the raw events it was computed from. A standalone mongod has no snapshots: there
dbHash before and after says whether somebody wrote. Snapshot reads:
https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from bson import CodecOptions, decode_all
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, make_client
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.mongo.storage import create_raw_collections
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.events import KINDS

# What is stored, raw events first; `corrections` is a view.
COPIED: tuple[str, ...] = (
    *(kind.collection for kind in KINDS),
    *(name.value for name in Collection if name is not Collection.CORRECTIONS),
)
_SNAPSHOT_TOO_OLD = 239
_INSERT_DOCUMENTS = 2000
_INSERT_BYTES = 8 * 1024 * 1024
_RAW = CodecOptions(document_class=RawBSONDocument)


class Consistency(StrEnum):
    """How a copy is known to be of one moment."""

    SNAPSHOT = "snapshot"  # all collections were read at one cluster time
    QUIET = "quiet"  # nothing was written while they were read


class Copy:
    """The collections at one moment. `consistency` says how that is known."""

    def __init__(self, database: Any, session: ClientSession | None) -> None:
        self._database = database
        self._session = session
        self.consistency = Consistency.QUIET if session is None else Consistency.SNAPSHOT

    def documents(self, name: str) -> Iterator[bytes]:
        """BSON documents one after another, in order of `_id`, in chunks that never cut one.

        Raises StoreRefused when the server no longer remembers the moment.
        """
        collection = self._database[name]
        try:
            with store_errors(f"read {name} for a copy"):
                yield from collection.find_raw_batches({}, sort=[("_id", 1)], session=self._session)
        except StoreOutcomeUnknown as error:
            if (
                isinstance(error.__cause__, OperationFailure)
                and error.__cause__.code == _SNAPSHOT_TOO_OLD
            ):
                raise StoreRefused(
                    "the copy took longer than MongoDB remembers a moment; let it remember longer: "
                    "db.adminCommand("
                    "{setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600}) on every member, "
                    "and try again"
                ) from error
            raise


@contextmanager
def copy_of(settings: Settings) -> Iterator[Copy]:
    """The store as it is now; read it within the block.

    Raises StoreRefused at the end of the block when the server is a standalone and somebody wrote
    meanwhile.
    """
    client = make_client(settings, "gpu-tokens-backup", patient=True, connect_ms=COMMAND_CONNECT_MS)
    try:
        with store_errors("start a copy"):
            hello = client.admin.command("hello")
            database = client.get_database(
                settings.mongodb_database, read_preference=ReadPreference.SECONDARY_PREFERRED
            )
        if "setName" in hello or hello.get("msg") == "isdbgrid":
            with client.start_session(snapshot=True) as session:
                yield Copy(database, session)
            return
        before = _hash(database)
        yield Copy(database, None)
        if _hash(database) != before:
            raise StoreRefused(
                "somebody wrote while the copy was made, and a standalone mongod cannot read as of "
                "one moment: stop the "
                "processors, the api and the agents and try again, or make the mongod a replica "
                "set of one member"
            )
    finally:
        client.close()


def prepare(settings: Settings) -> None:
    """Make an empty database ready for documents: what is compressed must be so from the first one
    on."""
    client = make_client(settings, "gpu-tokens-restore")
    try:
        create_raw_collections(client[settings.mongodb_database])
    finally:
        client.close()


def put_back(settings: Settings, name: str, chunks: Iterable[bytes]) -> int:
    """Inserts BSON documents (each chunk holds whole ones) into a collection; how many they
    were."""
    client = make_client(
        settings, "gpu-tokens-restore", patient=True, connect_ms=COMMAND_CONNECT_MS
    )
    count = 0
    try:
        collection = client[settings.mongodb_database].get_collection(name, codec_options=_RAW)
        for batch in _batches(chunks):
            with store_errors(f"restore {name}"):
                collection.insert_many(batch, ordered=False)
            count += len(batch)
    finally:
        client.close()
    return count


def refuse_unless_empty(settings: Settings) -> None:
    """Raises StoreRefused when the database has a document of ours: a copy is never mixed with
    something else."""
    client = make_client(settings, "gpu-tokens-restore", connect_ms=COMMAND_CONNECT_MS)
    try:
        for name in COPIED:
            with store_errors(f"look into {name}"):
                first: Document | None = client[settings.mongodb_database][name].find_one(
                    {}, {"_id": 1}
                )
            if first is not None:
                raise StoreRefused(
                    f"database {settings.mongodb_database} is not empty ({name} has documents); "
                    "restore into another one: "
                    "set MONGODB_DATABASE or MONGODB_URI, or drop this one first"
                )
    finally:
        client.close()


def _batches(chunks: Iterable[bytes]) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for chunk in chunks:
        for document in decode_all(chunk, _RAW):
            batch.append(document)
            size += len(document.raw)
            if len(batch) >= _INSERT_DOCUMENTS or size >= _INSERT_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _hash(database: Any) -> str:
    with store_errors("compare the store before and after"):
        return str(database.command("dbHash", collections=list(COPIED))["md5"])
