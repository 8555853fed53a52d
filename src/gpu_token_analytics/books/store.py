"""What cells are priced and named by besides their events: the price book, the placements, the
inventory, the declarations.

A row that changed what cells depend on is `pending` until the closer has marked them
(closing/spread.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from gpu_token_analytics.documents import Collection, GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.cards import placements_of_cards, rows_of_cards, shared_uuids
from gpu_token_analytics.ledger.declarations import Declaration
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.ledger.prices import PriceBook, PriceRow
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import update_many
from gpu_token_analytics.mongo.errors import Document, mapped
from gpu_token_analytics.wire.names import may_be_same, name_key
from gpu_token_analytics.wire.times import from_us

MANY_NAMES = 2_000  # that requests gave to GPUs nobody knows: more are not all read each time
KEYS_AT_ONCE = 10_000


class BookStore:
    """Reads of `prices` and `inventory`. Every method raises StoreUnreachable, StoreRefused or
    StoreOutcomeUnknown."""

    def __init__(self, store: Store) -> None:
        self._now = store.now
        self._prices = store[Collection.PRICES]
        self._inventory = store[Collection.INVENTORY]

    def read(self) -> Books:
        """The price book, the placements and the inventory now."""
        named = self._some_names(MANY_NAMES)
        placements = [Placement.of(row) for row in self.placements()]
        told: dict[GpuId, Document] = {row["_id"]: row for row in self.gpus()}
        stays = self.stays() if any(row.get("shared") for row in told.values()) else []
        shared = shared_uuids(told, placements, stays)
        inventory = rows_of_cards(told, placements, stays, shared)
        placements = placements_of_cards(placements, shared)
        declared = self.declarations()
        held = [row for row in declared if not row["withdrawn"] and row["gpu"] not in shared]
        declarations = {row["gpu"]: Declaration.of(row) for row in held}
        known = inventory.keys() | declarations.keys()
        if len(named) == MANY_NAMES:  # of which only those matter that may mean a GPU that is known
            named = self._names_like({*known, *(placement.label for placement in placements)})
        named += [row["gpu"] for row in declared if row["withdrawn"]]
        return Books(
            PriceBook(PriceRow.of(row) for row in self.prices()),
            Placements(placements, known, named),
            inventory,
            declarations,
            shared,
        )

    @mapped
    def _some_names(self, limit: int) -> list[str]:
        return [
            row["name"] for row in self._inventory.find({"kind": "name"}, {"name": 1}).limit(limit)
        ]

    @mapped
    def _names_like(self, known: Iterable[str]) -> list[str]:
        keys = sorted(set(map(name_key, known)))
        names: list[str] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            where = {"kind": "name", "key": {"$in": keys[start : start + KEYS_AT_ONCE]}}
            names += [row["name"] for row in self._inventory.find(where, {"name": 1})]
        return names

    @mapped
    def prices(self) -> list[Document]:
        """The whole price book (small: one row per change)."""
        return list(self._prices.find())

    @mapped
    def gpus(self) -> list[Document]:
        """Every GPU known."""
        return list(self._inventory.find({"kind": "gpu"}))

    @mapped
    def stays(self) -> list[Document]:
        """On which hosts MIG slices were sampled, and when."""
        return list(self._inventory.find({"kind": "stay"}))

    @mapped
    def count_shared(self) -> int:
        """How many UUIDs were seen on two hosts at once."""
        return self._inventory.count_documents({"kind": "gpu", "shared": True})

    @mapped
    def pending_stays(self) -> list[Document]:
        """New ones, whose cells were not marked yet."""
        return list(self._inventory.find({"kind": "stay", "pending": True}))

    @mapped
    def clear_pending_stay(self, stay: Document) -> None:
        """Mark one as handled: only that it is new changes anything."""
        self._inventory.update_one({"_id": stay["_id"]}, {"$set": {"pending": False}})

    def names_like(self, gpu: GpuId) -> set[str]:
        """What requests called GPUs nobody knows, and may be this UUID."""
        return {name for name in self._names_like([gpu]) if may_be_same(name, gpu)}

    @mapped
    def note_shared(self, gpu: GpuId) -> None:
        """This UUID was seen on two hosts at once: it is shared from now on, and its cells are
        still to be marked."""
        changes = {"shared": True, "pending": True, "changed_at": "$$NOW"}
        self._inventory.update_one(
            {"_id": gpu, "kind": "gpu", "shared": {"$ne": True}}, [{"$set": changes}]
        )

    @mapped
    def declarations(self) -> list[Document]:
        """What operators declared, what they took back included (`withdrawn`)."""
        return list(self._inventory.find({"kind": "declaration"}))

    @mapped
    def pending_declarations(self) -> list[Document]:
        """Declarations that changed, and whose cells were not marked yet."""
        return list(self._inventory.find({"kind": "declaration", "pending": True}))

    @mapped
    def gpu(self, gpu: GpuId) -> Document | None:
        """One GPU of the inventory."""
        return self._inventory.find_one({"_id": gpu, "kind": "gpu"})

    @mapped
    def placements(self) -> list[Document]:
        """Which `host/index` label carried which UUID, and when."""
        return list(self._inventory.find({"kind": "placement"}))

    @mapped
    def pending_placements(self) -> list[Document]:
        """New or extended placements whose cells were not marked yet."""
        return list(self._inventory.find({"kind": "placement", "pending": True}))

    @mapped
    def clear_pending_placement(self, placement: Document) -> None:
        """Mark one as handled, unless it was extended meanwhile."""
        self._inventory.update_one(
            {
                "_id": placement["_id"],
                "first_us": placement["first_us"],
                "last_us": placement["last_us"],
            },
            {"$set": {"pending": False}},
        )

    @mapped
    def pending_gpus(self) -> list[Document]:
        """GPUs of which something changed that the ledger depends on, and whose cells were not
        marked yet."""
        return list(self._inventory.find({"kind": "gpu", "pending": True}))

    def clear_pending_gpus(self, rows: Sequence[Document]) -> None:
        """Mark GPUs, or declarations, as handled, unless they changed again meanwhile."""
        outcome = update_many(
            self._inventory,
            (
                {
                    "q": {"_id": row["_id"], "changed_at": row["changed_at"]},
                    "u": {"$set": {"pending": False}},
                }
                for row in rows
            ),
        )
        outcome.raise_refused("to clear what was pending")

    @mapped
    def pending_prices(self) -> list[Document]:
        """Price rows whose cells were not marked yet."""
        return list(self._prices.find({"pending": True}))

    @mapped
    def clear_pending_price(self, row: Document) -> None:
        """Mark one price row as handled."""
        self._prices.update_one({"_id": row["_id"]}, {"$set": {"pending": False}})

    @mapped
    def ensure_default_price(self, usd_per_hour: float) -> None:
        """Make PRICE_PER_HOUR_USD the newest `default` row of source `settings`; earlier days keep
        their price.

        The first one holds from 1970, a changed one from now. Racing processors agree through the
        numbered _id.
        """
        wanted = str(usd_per_hour)
        while True:
            rows = list(
                self._prices.find({"scope": "default", "source": "settings"}).sort(
                    "number", ASCENDING
                )
            )
            if rows and rows[-1]["usd_per_hour"] == wanted:
                return
            number = rows[-1]["number"] + 1 if rows else 0
            now = self._now()
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
