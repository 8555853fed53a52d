"""Every index, every TTL and every view, in one table; created at start, by any process, any number
of times.

Each index costs ingest speed, so each names the question that needs it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from pymongo import ASCENDING, HASHED
from pymongo.errors import OperationFailure

from gpu_token_analytics.documents import CellState, Collection
from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.mongo.client import Store, make_client
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.mongo.storage import create_raw_collections
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.counters import COUNTERS
from gpu_token_analytics.wire.events import KINDS
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

_log = logging.getLogger(__name__)

_DAY_SECONDS = 86_400
_INDEX_CONFLICT = frozenset({85, 86})  # the same keys exist with other options


@dataclass(frozen=True)
class Index:
    """One index. `why`: the question it answers. `ttl`: documents go RAW_RETENTION_DAYS after the
    (date) key."""

    collection: str
    keys: tuple[str, ...]
    why: str
    # one of the keys that are compared for equality alone: its hash is smaller than it is
    hashed: str | None = None
    unique: bool = False
    ttl: bool = False
    partial: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As MongoDB itself would name it, so that an index made by hand is the same index."""
        return "_".join(f"{key}_{side}" for key, side in self.specification)

    @property
    def specification(self) -> list[tuple[str, int | str]]:
        """Keys as createIndexes is given them."""
        return [(key, HASHED if key == self.hashed else ASCENDING) for key in self.keys]

    def options(self, settings: Settings) -> dict[str, Any]:
        """What createIndexes is given besides the keys."""
        options: dict[str, Any] = {"name": self.name}
        if self.unique:
            options["unique"] = True
        if self.partial:
            options["partialFilterExpression"] = self.partial
        if self.ttl:
            options["expireAfterSeconds"] = settings.raw_retention_days * _DAY_SECONDS
        return options


INDEXES: tuple[Index, ...] = (
    Index(
        USAGE.collection,
        ("gpus", "ts_us"),
        "requests of a GPU that ended in a time: a cell's events",
    ),
    Index(
        USAGE.collection,
        ("gpus", "start_us"),
        "requests longer than LONG_REQUEST_US, which end far after the minute they touch",
        partial={"long": True},
    ),
    Index(
        USAGE.collection,
        ("period", "request_id"),
        "one request, by the id its engine gave it",
        hashed="request_id",
    ),
    Index(
        SAMPLE.collection, ("gpu", "ts_us"), "samples of a GPU in a time; the latest of each GPU"
    ),
    Index(
        COUNTERS.collection,
        ("gpus", "ts_us"),
        "what engines on a GPU counted in a time: a cell's events",
    ),
    *(Index(kind.collection, ("ingested_at",), "retention", ttl=True) for kind in KINDS),
    Index(
        Collection.LEDGER_CELLS,
        ("due_at",),
        "cells to compute, longest due first",
        partial={"due_at": {"$exists": True}},
    ),
    Index(
        Collection.LEDGER_CELLS,
        ("final_at",),
        "provisional cells whose time is over",
        partial={"state": CellState.PROVISIONAL.value},
    ),
    Index(Collection.LEDGER_CELLS, ("gpu", "minute"), "cells of a GPU in a time", unique=True),
    Index(Collection.LEDGER_CELLS, ("minute",), "cells of the fleet in a time"),
    Index(
        Collection.LEDGER_CELLS,
        ("rolled", "minute"),
        "cells the rollups do not hold yet",
        partial={"rolled": False},
    ),
    Index(
        Collection.LEDGER_CELLS,
        ("unsent", "minute"),
        "cells the ledger's topic does not hold yet",
        partial={"unsent": True},
    ),
    Index(
        Collection.ROLLUPS_HOURLY,
        ("scope", "start", "gpu"),
        "sums of hours, of the fleet or of GPUs",
    ),
    Index(
        Collection.ROLLUPS_HOURLY,
        ("rolled", "scope", "start"),
        "hours that days (and the fleet) do not hold yet",
        partial={"rolled": False},
    ),
    Index(
        Collection.ROLLUPS_DAILY, ("scope", "start", "gpu"), "sums of days, of the fleet or of GPUs"
    ),
    Index(Collection.LINE_CHUNKS, ("written_at",), "lines that a crash left without a document"),
    Index(
        Collection.PENDING_MARKS, ("cells",), "marks that were left for later, short spans first"
    ),
    Index(
        Collection.PRICES,
        ("scope", "key", "valid_from"),
        "the price history of one GPU, host, name or default",
    ),
    Index(
        Collection.BUDGET_ALERTS,
        ("deliveries.state", "deliveries.next_at"),
        "alerts that are still to be sent",
    ),
    Index(Collection.BUDGET_ALERTS, ("raised_at",), "the newest alerts; those to forget"),
    Index(Collection.INVENTORY, ("kind", "label"), "all GPUs; which GPU carried a label"),
    Index(Collection.INVENTORY, ("key", "kind"), "what is known of the GPU that a request named"),
)

# Of earlier versions, and no longer needed.
FORMER: tuple[Index, ...] = (
    Index(USAGE.collection, ("request_id",), "one request, wherever it was stored"),
)

VIEWS: dict[Collection, tuple[Collection, list[dict[str, Any]]]] = {
    Collection.CORRECTIONS: (
        Collection.LEDGER_CELLS,
        [{"$match": {"corrections.0": {"$exists": True}}}, {"$unwind": "$corrections"}],
    ),
}


def ensure_indexes(store: Store, settings: Settings) -> None:
    """Create what is missing, drop what is no longer needed; bring TTLs and views up to date.

    Waits for a build however long it takes. Raises StoreUnreachable, StoreRefused when an index of
    the same keys has other options (it says which) or raw events are of the version with text ids.
    """
    _refuse_text_ids(store)
    client = make_client(settings, "gpu-tokens-indexes", patient=True)
    try:
        database = client.get_database(store.database.name)
        create_raw_collections(database)
        for name in dict.fromkeys(index.collection for index in INDEXES):
            existing = _existing(database[name])
            for index in INDEXES:
                if index.collection == name:
                    _ensure(database, index, existing, settings)
        for former in FORMER:
            if former.name in _existing(database[former.collection]):
                with store_errors(f"drop index {former.name} of {former.collection}"):
                    database[former.collection].drop_index(former.name)
        for view, (source, pipeline) in VIEWS.items():
            _ensure_view(database, view, source, pipeline)
    finally:
        client.close()


def _refuse_text_ids(store: Store) -> None:
    """Raises StoreRefused for raw events of an earlier version: read again from Kafka they would be
    stored a second time."""
    for name in (kind.collection for kind in KINDS):
        with store_errors(f"look at {name}"):
            older = store[name].find_one({"_id": {"$type": "string"}}, {"_id": 1})
        if older is not None:
            raise StoreRefused(
                f"{name} of the database {store.database.name!r} was written by an earlier version "
                "(event ids were unique over "
                "all tenants): set MONGODB_DATABASE to a new name and let the processor read the "
                "topic from its beginning with "
                "a new KAFKA_GROUP; the old database stays readable by the earlier version"
            )


def _existing(collection: Any) -> dict[str, dict[str, Any]]:
    with store_errors(f"list indexes of {collection.name}"):
        return dict(collection.index_information())


def _ensure(
    database: Any, index: Index, existing: dict[str, dict[str, Any]], settings: Settings
) -> None:
    wanted = index.options(settings)
    stored = existing.get(index.name)
    if (
        stored is not None
        and index.ttl
        and stored.get("expireAfterSeconds") != wanted["expireAfterSeconds"]
    ):
        with store_errors(f"change the retention of {index.collection}"):
            database.command(
                "collMod",
                index.collection,
                index={"name": index.name, "expireAfterSeconds": wanted["expireAfterSeconds"]},
            )
        _log.info(
            "%s: retention changed from %s to %d seconds",
            index.collection,
            stored.get("expireAfterSeconds"),
            wanted["expireAfterSeconds"],
        )
        return
    if stored is not None and _same(stored, wanted):
        return
    try:
        with store_errors(f"create index {index.name} of {index.collection}"):
            database[index.collection].create_index(index.specification, **wanted)
    except StoreRefused as error:
        if (
            isinstance(error.__cause__, OperationFailure)
            and error.__cause__.code in _INDEX_CONFLICT
        ):
            raise StoreRefused(
                f"{index.collection} has an index {index.name} with other options than this "
                f"version needs ({index.why}); "
                f"drop it while no process runs: db.{index.collection}.dropIndex({index.name!r})"
            ) from error
        raise


def _same(stored: dict[str, Any], wanted: dict[str, Any]) -> bool:
    names = ("unique", "partialFilterExpression", "expireAfterSeconds")
    return all(stored.get(name) == wanted.get(name) for name in names)


def _ensure_view(
    database: Any, view: Collection, source: Collection, pipeline: list[dict[str, Any]]
) -> None:
    with store_errors(f"create the view {view}"):
        stored = next(iter(database.list_collections(filter={"name": view.value})), None)
        if stored is None:
            try:
                database.create_collection(
                    view.value, check_exists=False, viewOn=source.value, pipeline=pipeline
                )
            except OperationFailure as error:
                if error.code != 48:  # NamespaceExists: another process was faster
                    raise
        elif stored.get("options", {}).get("pipeline") != pipeline:
            database.command("collMod", view.value, viewOn=source.value, pipeline=pipeline)
