"""What operators declare of GPUs that never sent a sample: money begins at a GPU that is known.

    {_id: "declaration|<gpu>", kind: "declaration", key, gpu, host, name, valid_from, valid_to,
     withdrawn, declared_at, source, pending, changed_at}

One for each GPU. `pending` is true until the closer has marked the GPU's cells (closing/spread.py).
One that was taken back stays, `withdrawn`, so that requests which named the GPU are still found.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo import ASCENDING, ReturnDocument, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.documents import Collection, GpuId
from gpu_token_analytics.wire.names import name_key

Document = dict[str, Any]


class DeclarationStore:
    """Lists, makes, ends and takes back declarations."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._inventory = database.get_collection(
            Collection.INVENTORY.value, write_concern=WriteConcern("majority")
        )
        self._timeout_ms = timeout_ms

    def rows(self) -> list[Document]:
        """Those that hold, by GPU."""
        where = {"kind": "declaration", "withdrawn": False}
        return list(
            self._inventory.find(where, max_time_ms=self._timeout_ms).sort("gpu", ASCENDING)
        )

    def declare(
        self,
        *,
        gpu: GpuId,
        host: str,
        name: str | None,
        valid_from: datetime | None,
        valid_to: datetime | None,
        declared_at: datetime,
        source: str,
    ) -> Document:
        """Declare a GPU, in canonical names, for whole minutes; what was declared of it before is
        replaced."""
        fields = {
            "kind": "declaration",
            "key": name_key(gpu),
            "gpu": gpu,
            "host": host,
            "name": name,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "withdrawn": False,
            "declared_at": declared_at,
            "source": source,
        }
        row = self._change(
            gpu, {name: {"$literal": value} for name, value in fields.items()}, upsert=True
        )
        assert row is not None
        return row

    def retire(self, gpu: GpuId, valid_to: datetime) -> Document | None:
        """End a declaration with the minute before `valid_to`. None: there is none that begins
        before."""
        begins = {"$or": [{"valid_from": None}, {"valid_from": {"$lt": valid_to}}]}
        return self._change(
            gpu, {"valid_to": {"$literal": valid_to}}, where={"withdrawn": False, **begins}
        )

    def withdraw(self, gpu: GpuId) -> Document | None:
        """Take a declaration back, for all time. None: there is none."""
        return self._change(gpu, {"withdrawn": True}, where={"withdrawn": False})

    def _change(
        self, gpu: GpuId, fields: Document, *, where: Document | None = None, upsert: bool = False
    ) -> Document | None:
        return self._inventory.find_one_and_update(
            {"_id": f"declaration|{gpu}", **(where or {})},
            [{"$set": {**fields, "pending": True, "changed_at": "$$NOW"}}],
            upsert=upsert,
            return_document=ReturnDocument.AFTER,
        )
