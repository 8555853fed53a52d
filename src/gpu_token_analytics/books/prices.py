"""The price book's documents: listed and appended, never edited.

    {_id, scope, key, usd_per_hour (decimal text), mode, usd_per_kwh, pue, valid_from, valid_to,
    created_at, source, pending}

`pending` is true until the closer has marked the cells that a row touches (closing/spread.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pymongo import DESCENDING, WriteConcern
from pymongo.database import Database

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.identity import new_event_id

Document = dict[str, Any]


class PriceStore:
    """Lists and appends price rows."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        self._prices = database.get_collection(
            Collection.PRICES.value, write_concern=WriteConcern("majority")
        )
        self._timeout_ms = timeout_ms

    def rows(self) -> list[Document]:
        """All rows, newest valid_from first."""
        order = [("valid_from", DESCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        return list(self._prices.find({}, max_time_ms=self._timeout_ms).sort(order))

    def append(
        self,
        *,
        scope: str,
        key: str | None,
        usd_per_hour: str,
        mode: str,
        usd_per_kwh: str | None,
        pue: float | None,
        valid_from: datetime,
        valid_to: datetime | None,
        created_at: datetime,
        source: str,
    ) -> Document:
        """Append one row; the ledger follows within seconds (open cells) or as corrections (final
        ones)."""
        row: Document = {
            "_id": new_event_id(),
            "scope": scope,
            "key": key,
            "usd_per_hour": usd_per_hour,
            "mode": mode,
            "usd_per_kwh": usd_per_kwh,
            "pue": pue,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "created_at": created_at,
            "source": source,
            "pending": True,
        }
        self._prices.insert_one(row)
        return row
