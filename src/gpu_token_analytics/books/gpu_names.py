"""What requests call their GPUs: the names that nobody sampled or declared are kept in the
inventory, so that closing finds the requests again when a GPU turns up that is meant by them, and
so that they can be listed (unknown_names.py).

    {_id: "name|<name>", kind: "name", key, name, tenant, first_named_at}       the tenant that
    named it first

Anybody can make names up, so they are bounded: NameLimits.per_hour new ones of this process, and
NameLimits.kept in all, of which the oldest go. What is not kept is not listed, and where it turns
out to be another spelling of a GPU its requests until then stay without money; as the GPU's own
name it is found all the same, by its cells.

A name is kept before it is looked up: a GPU that becomes known afterwards is `pending`, and whoever
marks what that changes finds the name; one that became known before is found by the look-up. In
between there is no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Collection as Sized
from dataclasses import dataclass
from datetime import datetime

from gpu_token_analytics.books.inventory import OWN_NAME, fill_keys, own_name
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import DUPLICATE_KEY, write_command
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.names import name_key

_REMEMBERED = 200_000
_AT_ONCE = 1000
_TRIM_EVERY = 1000  # names kept


def meanings_of(store: Store, names: Iterable[str]) -> Placements:
    """What these names mean, as of now."""
    asked = set(names)
    return _placements(asked, _like(store, asked))


@dataclass(frozen=True)
class NameLimits:
    """How many names nobody knows are kept."""

    per_hour: int = 10_000  # new ones
    kept: int = 100_000

    @staticmethod
    def of(settings: Settings) -> NameLimits:
        """The limits these settings make."""
        return NameLimits(settings.gpu_names_per_hour, settings.gpu_names_kept)


class GpuNames:
    """Looks names up, remembering those that mean themselves for good. For one thread; forgetting
    costs a look-up."""

    def __init__(
        self,
        store: Store,
        limits: NameLimits | None = None,
        dropped: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """dropped: told how many names were not kept, or forgotten."""
        self._store, self._limits, self._dropped = store, limits or NameLimits(), dropped
        self._hour: datetime | None = None
        self._kept_this_hour = 0
        self._kept_since_trim = _TRIM_EVERY  # a process begins with it
        # GPUs' own names; no labels, which may turn out to be another GPU
        self._sampled: set[str] = set()
        self._kept: set[str] = set()
        self._keys_filled = False
        # names that meant a GPU somebody told of when they were looked up; others may add to it
        self.known: set[str] = set()

    def resolve(self, named: Mapping[str, str]) -> Placements:
        """What these names mean, as of now; their requests must be durable already. named: name ->
        a tenant that uses it.

        Raises StoreUnreachable or StoreOutcomeUnknown: call again; StoreRefused: stop.
        """
        asked = named.keys() - self._sampled
        if not asked:
            return Placements()
        if not self._keys_filled:
            fill_keys(self._store)
            self._keys_filled = True
        rows = _like(self._store, asked)
        unknown = asked - _exact(rows)
        if new := self._some_of(unknown - self._kept):
            self._keep({name: named[name] for name in new})
            self._trim(len(new))
            rows = _like(self._store, asked)
            unknown = asked - _exact(rows)
        if len(self._sampled) + len(rows) > _REMEMBERED:
            self._sampled.clear()
        self._sampled |= {
            row["gpu"] for row in rows if row["kind"] == "gpu" and "/" not in row["gpu"]
        }
        placements = _placements(asked, rows)
        if len(self.known) > _REMEMBERED:
            self.known.clear()
            self._sampled.clear()  # they are not looked up, so they would not come back
        unmeant = {name for name in unknown if len(placements.meanings(name)) != 1}
        self.known |= named.keys() - unmeant
        self.known -= unmeant
        return placements

    def recall(self) -> None:
        """Know what the inventory tells of: a process that begins knows the GPUs of the one before
        it. Raises as resolve()."""
        fields = dict.fromkeys(OWN_NAME.values(), 1) | {"kind": 1}
        where = {"kind": {"$in": list(OWN_NAME)}, "withdrawn": {"$ne": True}}
        with store_errors("read the GPUs that are known"):
            self.known |= {
                own_name(row)
                for row in self._store[Collection.INVENTORY].find(where, fields).limit(_REMEMBERED)
            }

    def _some_of(self, new: set[str]) -> set[str]:
        """As many of them as may be kept this hour."""
        if not new:
            return new
        hour = self._store.now().replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour, self._kept_this_hour = hour, 0
        allowed = set(sorted(new)[: max(0, self._limits.per_hour - self._kept_this_hour)])
        self._kept_this_hour += len(allowed)
        if left := len(new) - len(allowed):
            self._dropped(left)
        return allowed

    def _trim(self, added: int) -> None:
        """Forget the oldest of too many. Another process may add some meanwhile: now and then, not
        exactly."""
        self._kept_since_trim += added
        if self._kept_since_trim < min(_TRIM_EVERY, self._limits.kept):
            return
        self._kept_since_trim = 0
        inventory = self._store[Collection.INVENTORY]
        with store_errors("forget names of GPUs"):
            many = inventory.count_documents({"kind": "name"}) - self._limits.kept
            if many <= 0:
                return
            oldest = list(
                inventory.find({"kind": "name"}, {"name": 1}).sort("first_named_at", 1).limit(many)
            )
            for start in range(0, len(oldest), _AT_ONCE):
                inventory.delete_many(
                    {"_id": {"$in": [row["_id"] for row in oldest[start : start + _AT_ONCE]]}}
                )
        self._kept -= {row["name"] for row in oldest}
        self._dropped(len(oldest))

    def _keep(self, named: Mapping[str, str]) -> None:
        now = self._store.now()
        updates: list[Document] = [
            {
                "q": {"_id": f"name|{name}"},
                "u": {
                    "$setOnInsert": {
                        "kind": "name",
                        "key": name_key(name),
                        "name": name,
                        "tenant": tenant,
                        "first_named_at": now,
                    }
                },
                "upsert": True,
            }
            for name, tenant in sorted(named.items())
        ]
        for start in range(0, len(updates), _AT_ONCE):
            reply = write_command(
                self._store[Collection.INVENTORY], "update", updates[start : start + _AT_ONCE]
            )
            for error in reply.get("writeErrors", ()):
                # another process keeps the same one at this moment
                if error["code"] != DUPLICATE_KEY:
                    raise StoreRefused(f"MongoDB refused the name of a GPU: {error.get('errmsg')}")
        if len(self._kept) + len(named) > _REMEMBERED:
            self._kept.clear()
        self._kept |= named.keys()


def _like(store: Store, names: Iterable[str]) -> list[Document]:
    keys = set(map(name_key, names))
    # None: a process of an earlier version may still write rows, and it gives them no key
    asked = [None, *sorted(keys)]
    with store_errors("look up the names of GPUs"):
        inventory = store[Collection.INVENTORY]
        rows = [
            row
            for start in range(0, len(asked), _AT_ONCE)
            for row in inventory.find(
                {"key": {"$in": asked[start : start + _AT_ONCE]}, "kind": {"$in": list(OWN_NAME)}}
            )
        ]
    return [row for row in rows if "key" in row or name_key(own_name(row)) in keys]


def _placements(names: set[str], rows: Sized[Document]) -> Placements:
    placements = (Placement.of(row) for row in rows if row["kind"] == "placement")
    gpus = (row["gpu"] for row in rows if row["kind"] != "placement" and not row.get("withdrawn"))
    return Placements(placements, gpus, names - _exact(rows))


def _exact(rows: Sized[Document]) -> set[str]:
    """Names that somebody gave to a GPU he told of."""
    return {own_name(row) for row in rows if not row.get("withdrawn")}
