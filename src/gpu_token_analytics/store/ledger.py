"""The ledger's side of the store: take due cells, read what they depend on, write what was computed.

Safety rests on two guards, not on leases: a cell is written only where `done_gen < gen` that was read before its events,
and only over the revision it was computed against. Times in `due_at` and leases are the MongoDB server's clock.

No `due_at` is ever brought forward: every mark writes now + debounce, because ingest leaves a mark out while the one it
knows of is still ahead (marks.py).
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from pymongo import ASCENDING, DESCENDING, UpdateMany, UpdateOne
from pymongo.cursor import Cursor
from pymongo.errors import BulkWriteError, DuplicateKeyError

from gpu_token_analytics.documents import LONG_REQUEST_US, CellState, Collection, GpuId, cell_id
from gpu_token_analytics.events import MAX_LATENCY_MS, from_us
from gpu_token_analytics.ledger.requests import UsageRow
from gpu_token_analytics.store.client import Document, Store, store_errors
from gpu_token_analytics.store.marks import SAFETY
from gpu_token_analytics.store.usage_rows import USAGE_FIELDS, usage_rows

LEASE_SECONDS = 60
MAX_REQUEST_US = MAX_LATENCY_MS * 1000

_SAMPLE_FIELDS = dict.fromkeys(
    ("ts_us", "host", "name", "utilization", "mem_used_mb", "power_w", "energy_j", "price_per_hour_usd"), 1
)
_USAGE_FIELDS = dict.fromkeys(USAGE_FIELDS, 1)
_DUE_FIELDS = dict.fromkeys(
    (
        "gpu",
        "minute",
        "gen",
        "done_gen",
        "revision",
        "state",
        "opened_at",
        "content",
        "due_at",
        "final_at",
        "silent",
        "host",
        "gpu_name",
        "own_price",
        "samples",
        "lease",
    ),
    1,
)

_CARRIED_FIELDS = dict.fromkeys(("minute", "host", "gpu_name", "own_price", "samples", "due_at", "lease"), 1)


def _computed_by_others(own_lease: str | None) -> Document:
    """Cells that somebody else may be computing from what was read before a change: he writes them as done, unless they
    are marked again."""
    return {"lease": {"$exists": True, "$ne": own_lease}}


@dataclass(frozen=True)
class CellWrite:
    """One computed cell. `due_again_at`: null when nothing more is expected; set for a minute that is not over."""

    cell: str
    gen: int
    revision: int
    changes: Document  # fields to set; {} when the content is what is stored already
    due_again_at: datetime | None = None
    correction: Document | None = None

    @property
    def changed(self) -> bool:
        """Whether the content is another one than the stored."""
        return "content" in self.changes


Method = TypeVar("Method", bound=Callable[..., Any])


def _mapped(method: Method) -> Method:
    """The driver's errors as ours, whatever the method does."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with store_errors(method.__name__.replace("_", " ")):
            return method(*args, **kwargs)

    return cast("Method", call)


class LedgerStore:
    """Reads and writes of the ledger. Every method raises StoreUnreachable, StoreRefused or StoreOutcomeUnknown."""

    def __init__(self, store: Store, debounce_seconds: float = 10.0) -> None:
        self.now = store.now
        self._debounce = timedelta(seconds=debounce_seconds)
        self._cells = store[Collection.LEDGER_CELLS]
        self._usage = store[Collection.TOKEN_USAGE]
        self._samples = store[Collection.GPU_METRICS]
        self._prices = store[Collection.PRICES]
        self._inventory = store[Collection.INVENTORY]

    # -- due cells ---------------------------------------------------------------------------------------------------

    @_mapped
    def take_due(self, limit: int) -> list[Document]:
        """Lease up to `limit` due cells, longest due first. Their `gen` is read before any event is."""
        now = self.now()
        due: Document = {"due_at": {"$lte": now}}
        ids = [found["_id"] for found in self._cells.find(due, {"_id": 1}).sort("due_at", ASCENDING).limit(limit)]
        if not ids:
            return []
        lease = secrets.token_hex(8)
        free = {"$or": [{"lease_until": {"$exists": False}}, {"lease_until": {"$lt": now}}]}
        self._cells.update_many(
            {"_id": {"$in": ids}, **due, **free},
            {"$set": {"lease_until": now + timedelta(seconds=LEASE_SECONDS), "lease": lease}},
        )
        return list(self._cells.find({"_id": {"$in": ids}, "lease": lease}, _DUE_FIELDS))

    @_mapped
    def count_due(self) -> int:
        """Cells that wait to be computed, their debounce included."""
        return self._cells.count_documents({"due_at": {"$exists": True}})

    @_mapped
    def count_overdue(self) -> int:
        """Cells that could be computed now."""
        return self._cells.count_documents({"due_at": {"$lte": self.now()}})

    @_mapped
    def write(self, writes: Sequence[CellWrite]) -> int:
        """Write computed cells where nobody was faster; a cell touched meanwhile stays due. Returns how many were taken."""
        if not writes:
            return 0
        operations = [self._write_one(write) for write in writes]
        return self._cells.bulk_write(operations, ordered=False).matched_count

    def _touch(self) -> Document:
        return {"$inc": {"gen": 1}, "$min": {"due_at": self.now() + self._debounce}}

    def _write_one(self, write: CellWrite) -> UpdateOne:
        again: Any = "$$REMOVE" if write.due_again_at is None else write.due_again_at
        touched = self.now() + self._debounce
        # $literal: field values are data; a model named "$x" must not become an expression.
        fields: Document = {name: {"$literal": value} for name, value in write.changes.items()}
        fields["done_gen"] = write.gen
        fields["due_at"] = {"$cond": [{"$eq": ["$gen", write.gen]}, again, touched]}
        fields["lease_until"] = fields["lease"] = "$$REMOVE"
        if write.correction is not None:
            fields["corrections"] = {"$concatArrays": [{"$ifNull": ["$corrections", []]}, [{"$literal": write.correction}]]}
        # `done_gen <= gen`: a cell may be due again without a new mark, because its minute was not over.
        guard = {"_id": write.cell, "revision": write.revision, "done_gen": {"$lte": write.gen}}
        return UpdateOne(guard, [{"$set": fields}])

    @_mapped
    def contents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Whole cell documents by id."""
        return {found["_id"]: found for found in self._cells.find({"_id": {"$in": list(ids)}})}

    @_mapped
    def finalise(self) -> int:
        """Turn cells whose time is over from provisional to final. Returns how many."""
        return self._cells.update_many(
            {"state": CellState.PROVISIONAL, "final_at": {"$lte": self.now()}, "due_at": {"$exists": False}},
            {"$set": {"state": CellState.FINAL.value}},
        ).modified_count

    # -- marks -------------------------------------------------------------------------------------------------------

    @_mapped
    def mark_missing(self, gpu: GpuId, minutes_us: Iterable[int]) -> int:
        """Open cells for silent minutes that have none; those that exist are left alone. Returns how many were opened."""
        now = self.now()
        operations = [
            UpdateOne(
                {"_id": cell_id(gpu, minute)},
                {
                    "$setOnInsert": {
                        "gpu": gpu,
                        "minute": from_us(minute),
                        "gen": 1,
                        "done_gen": 0,
                        "revision": 0,
                        "due_at": now,
                        "opened_at": now,
                        "state": CellState.PENDING.value,
                        "rolled": True,
                    }
                },
                upsert=True,
            )
            for minute in minutes_us
        ]
        opened = 0
        for at in range(0, len(operations), 1000):
            try:
                opened += self._cells.bulk_write(operations[at : at + 1000], ordered=False).upserted_count
            except BulkWriteError as error:
                if any(item["code"] != 11000 for item in error.details["writeErrors"]):
                    raise
                opened += error.details["nUpserted"]  # another processor opened the rest at the same moment
        return opened

    @_mapped
    def mark_existing(self, ids: Sequence[str]) -> None:
        """Mark cells that exist as touched; ids without a cell are left out."""
        for at in range(0, len(ids), 1000):
            self._cells.update_many({"_id": {"$in": list(ids[at : at + 1000])}}, self._touch())

    @_mapped
    def mark_range(self, match: Mapping[str, Any], start: datetime | None, end: datetime | None) -> int:
        """Mark every existing cell of `match` with start <= minute < end as touched (a price or a name changed)."""
        minute = {key: value for key, value in (("$gte", start), ("$lt", end)) if value is not None}
        where = {**match, **({"minute": minute} if minute else {})}
        result = self._cells.bulk_write([UpdateMany(where, self._touch())])
        return result.matched_count

    @_mapped
    def neighbours(self, gpu: GpuId, minutes_us: Sequence[int]) -> dict[int, Document]:
        """The cells among these minutes that exist: minute -> {silent, due_at}."""
        ids = {cell_id(gpu, minute): minute for minute in minutes_us}
        found = self._cells.find({"_id": {"$in": list(ids)}}, {"silent": 1, "due_at": 1})
        return {ids[cell["_id"]]: cell for cell in found}

    @_mapped
    def count_cells(self, gpu: GpuId, start_us: int, end_us: int) -> int:
        """How many cells a GPU has in [start, end)."""
        return self._cells.count_documents({"gpu": gpu, "minute": {"$gte": from_us(start_us), "$lt": from_us(end_us)}})

    @_mapped
    def last_heard(self, gpu: GpuId, before_us: int | None = None) -> Document | None:
        """The newest cell of a GPU (before a minute) that was computed with evidence in it: {minute}."""
        before = {} if before_us is None else {"minute": {"$lt": from_us(before_us)}}
        return self._cells.find_one({"gpu": gpu, "silent": False, **before}, {"minute": 1}, sort=[("minute", DESCENDING)])

    @_mapped
    def mark_not_owned(self, gpu: GpuId, start_us: int, end_us: int, own_lease: str | None = None) -> None:
        """Mark the silent cells of [start, end) that were computed as not owned: evidence beside them may own them now."""
        self._mark_silent(gpu, start_us, end_us, {"silent": True, "owned_us": 0}, own_lease)

    @_mapped
    def mark_silent(self, gpu: GpuId, start_us: int, end_us: int) -> None:
        """Mark the silent cells of [start, end): evidence beside them is gone."""
        self._mark_silent(gpu, start_us, end_us, {"silent": True}, None)

    def _mark_silent(self, gpu: GpuId, start_us: int, end_us: int, stale: Document, own_lease: str | None) -> None:
        if start_us < end_us:
            minute = {"$gte": from_us(start_us), "$lt": from_us(end_us)}
            where = {"gpu": gpu, "minute": minute, "$or": [stale, _computed_by_others(own_lease)]}
            self._cells.update_many(where, self._touch())

    @_mapped
    def cells_from(self, gpu: GpuId, minute_us: int) -> Iterator[Document]:
        """The cells of a GPU from a minute on, ascending: {minute, host, gpu_name, own_price, samples, due_at, lease}."""
        return self._carried({"gpu": gpu, "minute": {"$gte": from_us(minute_us)}}, ASCENDING)

    @_mapped
    def cells_before(self, gpu: GpuId, minute_us: int) -> Iterator[Document]:
        """The cells of a GPU before a minute, descending, as in cells_from."""
        return self._carried({"gpu": gpu, "minute": {"$lt": from_us(minute_us)}}, DESCENDING)

    def _carried(self, where: Document, order: int) -> Iterator[Document]:
        return self._each(self._cells.find(where, _CARRIED_FIELDS).sort("minute", order))

    @_mapped
    def mark_computed_before(self, gpus: Sequence[GpuId], at: datetime) -> None:
        """Mark the cells of these GPUs whose computation may have read something that changed at `at`."""
        read_before = {"computed_at": {"$lt": at + SAFETY}}
        self._cells.update_many({"gpu": {"$in": list(gpus)}, "$or": [read_before, _computed_by_others(None)]}, self._touch())

    # -- what cells are computed from --------------------------------------------------------------------------------

    @_mapped
    def usage(self, names: Sequence[str], start_us: int, end_us: int) -> list[UsageRow]:
        """Requests naming one of `names` that can be active in [start, end), each once. Also some that are not."""
        gpus: Any = names[0] if len(names) == 1 else {"$in": list(names)}
        near = {"gpus": gpus, "ts_us": {"$gte": start_us, "$lt": end_us + LONG_REQUEST_US}, "start_us": {"$lt": end_us}}
        far = {"long": True, "gpus": gpus, "start_us": {"$gte": start_us - MAX_REQUEST_US, "$lt": end_us}}
        late = {**far, "ts_us": {"$gte": end_us + LONG_REQUEST_US}}
        rows: list[UsageRow] = []
        for where in (near, late):
            batches = self._usage.find_raw_batches(where, _USAGE_FIELDS).batch_size(20_000)
            rows += usage_rows(cast("Iterable[bytes]", batches))  # the driver's types say documents
        return rows

    @_mapped
    def samples(self, gpu: GpuId, start_us: int, end_us: int) -> list[Document]:
        """Samples of one GPU with start <= ts < end."""
        where = {"gpu": gpu, "ts_us": {"$gte": start_us, "$lt": end_us}}
        return list(self._samples.find(where, _SAMPLE_FIELDS).batch_size(20_000))

    @_mapped
    def last_sample(self, gpu: GpuId, before_us: int) -> Document | None:
        """The newest sample before a time (equal times: the greatest id)."""
        return self._samples.find_one(
            {"gpu": gpu, "ts_us": {"$lt": before_us}}, _SAMPLE_FIELDS, sort=[("ts_us", DESCENDING), ("_id", DESCENDING)]
        )

    def usage_until(self, name: str, until_us: int) -> Iterator[Document]:
        """Requests that named this UUID or label and ended by a time, newest first: {start_us, ts_us}."""
        return self._times({"gpus": name, "ts_us": {"$lte": until_us}}, DESCENDING)

    def usage_from(self, name: str, from_us_: int) -> Iterator[Document]:
        """Requests that named this UUID or label and ended at or after a time, oldest first: {start_us, ts_us}."""
        return self._times({"gpus": name, "ts_us": {"$gte": from_us_}}, ASCENDING)

    def _times(self, where: Document, order: int) -> Iterator[Document]:
        found = self._usage.find(where, {"_id": 0, "start_us": 1, "ts_us": 1}).sort("ts_us", order).batch_size(8)
        return self._each(found)

    @_mapped
    def first_sample(self, gpu: GpuId, from_us_: int) -> Document | None:
        """The oldest sample at or after a time (equal times: the smallest id)."""
        return self._samples.find_one(
            {"gpu": gpu, "ts_us": {"$gte": from_us_}}, _SAMPLE_FIELDS, sort=[("ts_us", ASCENDING), ("_id", ASCENDING)]
        )

    @_mapped
    def has_sample_from(self, gpu: GpuId, from_us_: int) -> bool:
        """Whether a sample at or after a time exists."""
        return self._samples.find_one({"gpu": gpu, "ts_us": {"$gte": from_us_}}, {"_id": 1}) is not None

    @_mapped
    def slices(self, card: GpuId, start_us: int, end_us: int) -> list[Document]:
        """MIG slices of a card seen in [start, end): {ts_us, gpu, mig_profile}."""
        where = {"parent_uuid": card, "ts_us": {"$gte": start_us, "$lt": end_us}}
        return list(self._samples.find(where, {"_id": 0, "ts_us": 1, "gpu": 1, "mig_profile": 1}))

    @_mapped
    def prices(self) -> list[Document]:
        """The whole price book (small: one row per change)."""
        return list(self._prices.find())

    @staticmethod
    def _each(cursor: Cursor[Document]) -> Iterator[Document]:
        """A cursor's documents, its later errors mapped like the first ones."""
        with store_errors("read on"), cursor:
            yield from cursor

    # -- the audit's reads -------------------------------------------------------------------------------------------

    @_mapped
    def cell_gpus(self) -> list[GpuId]:
        """Every GPU that has a cell."""
        return list(self._cells.distinct("gpu"))

    @_mapped
    def cells_of(self, gpu: GpuId, start: datetime | None, end: datetime | None) -> Iterable[Document]:
        """The cells of one GPU with start <= minute < end, in time order."""
        minute = {key: value for key, value in (("$gte", start), ("$lt", end)) if value is not None}
        return self._each(self._cells.find({"gpu": gpu, **({"minute": minute} if minute else {})}).sort("minute", ASCENDING))

    @_mapped
    def sampled_gpus(self) -> list[GpuId]:
        """Every GPU that has a sample."""
        return list(self._samples.distinct("gpu"))

    @_mapped
    def usage_gpus(self) -> list[str]:
        """Every GPU name that a request used: UUIDs and labels."""
        return list(self._usage.distinct("gpus"))

    @_mapped
    def sample_times(self, gpu: GpuId) -> Iterable[int]:
        """Times of all samples of one GPU, from the index alone."""
        return (doc["ts_us"] for doc in self._each(self._samples.find({"gpu": gpu}, {"_id": 0, "ts_us": 1})))

    @_mapped
    def usage_totals(self) -> dict[str, int]:
        """Requests and tokens of all raw events."""
        sums = {
            name: {"$sum": f"${name}"} for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
        }
        found = list(self._usage.aggregate([{"$group": {"_id": None, "requests": {"$sum": 1}, **sums}}]))
        return {name: value for name, value in found[0].items() if name != "_id"} if found else {}

    # -- inventory ---------------------------------------------------------------------------------------------------

    @_mapped
    def gpus(self) -> list[Document]:
        """Every GPU known."""
        return list(self._inventory.find({"kind": "gpu"}))

    @_mapped
    def gpu(self, gpu: GpuId) -> Document | None:
        """One GPU of the inventory."""
        return self._inventory.find_one({"_id": gpu, "kind": "gpu"})

    @_mapped
    def placements(self) -> list[Document]:
        """Which `host/index` label carried which UUID, and when."""
        return list(self._inventory.find({"kind": "placement"}))

    @_mapped
    def labelled_usage(self, label: str) -> Iterable[Document]:
        """Requests that named a GPU by its `host/index` label: {start_us, ts_us}."""
        return self._each(self._usage.find({"gpus": label}, {"_id": 0, "start_us": 1, "ts_us": 1}))

    @_mapped
    def pending_placements(self) -> list[Document]:
        """New or extended placements whose cells were not marked yet."""
        return list(self._inventory.find({"kind": "placement", "pending": True}))

    @_mapped
    def clear_pending_placement(self, placement: Document) -> None:
        """Mark one as handled, unless it was extended meanwhile."""
        self._inventory.update_one(
            {"_id": placement["_id"], "first_us": placement["first_us"], "last_us": placement["last_us"]},
            {"$set": {"pending": False}},
        )

    @_mapped
    def pending_gpus(self) -> list[Document]:
        """GPUs of which something changed that the ledger depends on, and whose cells were not marked yet."""
        return list(self._inventory.find({"kind": "gpu", "pending": True}))

    @_mapped
    def clear_pending_gpu(self, row: Document) -> None:
        """Mark one as handled, unless it changed again meanwhile."""
        self._inventory.update_one({"_id": row["_id"], "changed_at": row["changed_at"]}, {"$set": {"pending": False}})

    @_mapped
    def pending_prices(self) -> list[Document]:
        """Price rows whose cells were not marked yet."""
        return list(self._prices.find({"pending": True}))

    @_mapped
    def ensure_default_price(self, usd_per_hour: float) -> None:
        """Make PRICE_PER_HOUR_USD the newest `default` row of source `settings`; earlier days keep their price.

        The first one holds from 1970, a changed one from now. Racing processors agree through the numbered _id.
        """
        wanted = str(usd_per_hour)
        while True:
            rows = list(self._prices.find({"scope": "default", "source": "settings"}).sort("number", ASCENDING))
            if rows and rows[-1]["usd_per_hour"] == wanted:
                return
            number = rows[-1]["number"] + 1 if rows else 0
            now = self.now()
            row: Document = {
                "_id": f"settings-{number}",
                "number": number,
                "scope": "default",
                "key": None,
                "usd_per_hour": wanted,
                "mode": "on_demand",
                "usd_per_kwh": None,
                "pue": None,
                "valid_from": now if rows else from_us(0),
                "valid_to": None,
                "created_at": now,
                "source": "settings",
                "pending": bool(rows),
            }
            try:
                self._prices.insert_one(row)
            except DuplicateKeyError:
                continue
            return

    @_mapped
    def clear_pending_price(self, row: Document) -> None:
        """Mark one price row as handled."""
        self._prices.update_one({"_id": row["_id"]}, {"$set": {"pending": False}})
