"""The inventory: which GPUs there are, which `host/index` carried which UUID when, and the latest
sample of each; which GPUs operators declared (declarations.py), and what requests called GPUs that
nobody told of (gpu_names.py).

    {_id, kind: gpu | placement | stay | declaration | name, key, pending, ...}       key:
    names.name_key()

Learned from samples. A placement that is new, or that reaches into a time in which its label may
have meant another GPU, is left `pending`: the closer then computes the cells of the requests that
named the label again. So is a GPU that is new or described anew: the closer computes its cells
again that were computed before `changed_at`.

A stay says on which host a MIG slice was; of any other GPU its placement says so. `shared`: several
cards have this UUID (ledger/shared.py), and the row describes the one that was sampled last.

The ledger depends on the times in here (which label meant which GPU), so they are whole minutes -
from the start of the first sample's to the end of the last one's - and are written before the
offsets of the samples that moved them are committed: what a crash leaves is exactly what the stored
samples say, and most batches have nothing to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_token_analytics.books.sightings import Sighting, placement_id
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import StoreOutcomeUnknown, StoreRefused
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.commands import DUPLICATE_KEY, write_command
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.wire.names import name_key

_TRIES = 10
_AT_ONCE = 1000
# of rows that tell of a GPU, by kind: its field
OWN_NAME = {"gpu": "gpu", "placement": "label", "declaration": "gpu"}
_DESCRIPTION = ("host", "gpu_index", "name", "mig_profile", "parent_uuid", "source")
_LEDGER_DEPENDS_ON = ("name", "mig_profile", "parent_uuid", "live")


def upsert_inventory(store: Store, sightings: Sequence[Sighting]) -> None:
    """Write what was seen. Raises StoreUnreachable or StoreOutcomeUnknown: call again;
    StoreRefused: stop."""
    if not sightings:
        return
    placed = _placed(
        store, {label for sighting in sightings if (label := sighting.description.placement)}
    )
    if _only_later(store, sightings, placed):
        return
    updates: list[Document] = []
    for sighting in sightings:
        updates.append(_gpu(sighting))
        label = sighting.description.placement
        if label is not None:
            updates.append(_placement(sighting, label, placed.get(label, [])))
        elif sighting.description.has_uuid:
            updates.append(_stay(sighting))
    for _ in range(_TRIES):
        updates = _write(store, updates)
        if not updates:
            return
    raise StoreOutcomeUnknown(
        f"{len(updates)} inventory rows are being created by others again and again"
    )


def _only_later(
    store: Store, sightings: Sequence[Sighting], placed: Mapping[str, Sequence[Document]]
) -> bool:
    """Write the times alone, for the usual batch: GPUs that are known as they are described, under
    labels that mean what they meant. False: some are not, so all has to be written; these times are
    right in any case."""
    updates: list[Document] = []
    for sighting in sightings:
        described, label = sighting.description, sighting.description.placement
        if label is not None and changes_meaning(sighting, placed.get(label, [])):
            return False
        times = {"$min": {"first_us": sighting.first_us}, "$max": {"last_us": sighting.last_us}}
        same = {name: {"$eq": getattr(described, name)} for name in _DESCRIPTION}
        updates.append(
            {
                "q": {
                    "_id": described.gpu,
                    "kind": "gpu",
                    **same,
                    **({"live": True} if described.live else {}),
                },
                "u": times,
            }
        )
        if (whereabouts := described.whereabouts) is not None:
            updates.append({"q": {"_id": whereabouts}, "u": times})
    reply = write_command(store[Collection.INVENTORY], "update", updates)
    return not reply.get("writeErrors") and bool(reply["n"] == len(updates))


def fill_keys(store: Store) -> None:
    """Give `key` to the rows of an earlier version, which wrote none: names are looked up by it.
    Repeatable."""
    inventory = store[Collection.INVENTORY]
    with store_errors("read inventory rows without a key"):
        rows = list(inventory.find({"key": None, "kind": {"$in": list(OWN_NAME)}}))
    updates: list[Document] = [
        {"q": {"_id": row["_id"]}, "u": {"$set": {"key": name_key(own_name(row))}}} for row in rows
    ]
    for start in range(0, len(updates), _AT_ONCE):
        for error in write_command(inventory, "update", updates[start : start + _AT_ONCE]).get(
            "writeErrors", ()
        ):
            raise StoreRefused(
                f"MongoDB refused the key of an inventory row: {error.get('errmsg')}"
            )


def own_name(row: Mapping[str, Any]) -> str:
    """What a row is about, and its key made of: the GPU, or the label it carried."""
    name: str = row[OWN_NAME[row["kind"]]]
    return name


def _placed(store: Store, labels: set[str]) -> dict[str, list[Document]]:
    by_label: dict[str, list[Document]] = {}
    if labels:
        with store_errors("read placements"):
            for row in store[Collection.INVENTORY].find(
                {"kind": "placement", "label": {"$in": sorted(labels)}}
            ):
                by_label.setdefault(row["label"], []).append(row)
    return by_label


def _write(store: Store, updates: Sequence[Document]) -> list[Document]:
    """Returns what to repeat. Ordered, so that of two descriptions of one time the later record
    wins."""
    failed = write_command(store[Collection.INVENTORY], "update", updates, ordered=True).get(
        "writeErrors"
    )
    if not failed:
        return []
    if failed[0]["code"] != DUPLICATE_KEY:
        raise StoreRefused(f"MongoDB refused the inventory: {failed[0].get('errmsg')}")
    return list(updates[failed[0]["index"] :])


def _gpu(sighting: Sighting) -> Document:
    """One update that also leaves the description of a newer sighting alone: late samples do not
    turn it back."""
    described = sighting.description
    newest = {"$gte": [sighting.last_us, {"$ifNull": ["$last_us", sighting.last_us]}]}
    fields: Document = {
        # $literal: values are data; a host named "$x" must not become an expression.
        name: {"$cond": [newest, {"$literal": getattr(described, name)}, f"${name}"]}
        for name in _DESCRIPTION
    }
    fields["live"] = {"$or": ["$live", described.live]}  # live once is live
    # A card that sends no samples has the host of its slices.
    names = _LEDGER_DEPENDS_ON if described.parent_uuid is None else (*_LEDGER_DEPENDS_ON, "host")
    changed: Document = {
        "$or": [
            # money begins at a GPU that is known: that it is known changes its cells
            {"$eq": [{"$type": "$kind"}, "missing"]},
            *({"$ne": [{"$ifNull": [f"${name}", None]}, fields[name]]} for name in names),
        ]
    }
    # several cards: whichever was sampled last describes it
    changed = {"$and": [changed, {"$ne": ["$shared", True]}]}
    fields |= {
        "pending": {"$or": [changed, "$pending"]},
        "changed_at": {"$cond": [changed, "$$NOW", "$changed_at"]},
        "kind": "gpu",
        "key": {"$literal": name_key(described.gpu)},
        "gpu": {"$literal": described.gpu},
        "first_us": {"$min": ["$first_us", sighting.first_us]},
        "last_us": {"$max": ["$last_us", sighting.last_us]},
    }
    return {"q": {"_id": described.gpu}, "u": [{"$set": fields}], "upsert": True}


def _placement(sighting: Sighting, label: str, placed: Sequence[Document]) -> Document:
    update: Document = {
        "$min": {"first_us": sighting.first_us},
        "$max": {"last_us": sighting.last_us},
        "$setOnInsert": {
            "kind": "placement",
            "key": name_key(label),
            "label": label,
            "gpu": sighting.description.gpu,
        },
    }
    if changes_meaning(sighting, placed):
        update["$set"] = {"pending": True}
    return {
        "q": {"_id": placement_id(label, sighting.description.gpu)},
        "u": update,
        "upsert": True,
    }


def _stay(sighting: Sighting) -> Document:
    described = sighting.description
    update: Document = {
        "$min": {"first_us": sighting.first_us},
        "$max": {"last_us": sighting.last_us},
        "$setOnInsert": {
            "kind": "stay",
            "gpu": described.gpu,
            "host": described.host,
            "pending": True,
        },
    }
    return {"q": {"_id": described.whereabouts}, "u": update, "upsert": True}


def changes_meaning(sighting: Sighting, placed: Sequence[Document]) -> bool:
    """Whether this sighting can change which GPU its label meant at some time (see
    ledger/placements.py).

    True for a new placement, and for one that grows towards another of the same label: only times
    between the two, or past the ends of both, are decided by their ends.
    """
    gpu = sighting.description.gpu
    before = next((row for row in placed if row["gpu"] == gpu), None)
    if before is None:
        return True
    others = [row for row in placed if row["gpu"] != gpu]
    later = sighting.last_us > before["last_us"] and any(
        row["last_us"] >= before["last_us"] for row in others
    )
    earlier = sighting.first_us < before["first_us"] and any(
        row["first_us"] <= before["first_us"] for row in others
    )
    return later or earlier
