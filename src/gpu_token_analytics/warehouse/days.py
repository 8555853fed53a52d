"""A folder of one Parquet file a UTC day, kept current: only days that have changed are written.

    DIR/day=2026-01-31/ledger.parquet

The footer of each file says of which version of its day it is, and of which question; there is no
other state. So a run that was killed goes on where it was, a file is whole or is not there, and a
correction rewrites its day alone. Engines that know Hive's partitions (DuckDB, Spark, Trino,
BigQuery) take `day` for a column.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_token_analytics.costs.choices import ExportFormat, ExportLayout
from gpu_token_analytics.costs.export import export_file
from gpu_token_analytics.costs.files import parquet_note
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.rollups.spans import DAY, ceil, floor
from gpu_token_analytics.rollups.store import RollupStore

if TYPE_CHECKING:
    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.costs.query import CostQuery

FILE = "ledger.parquet"
NOTE = "gpu_tokens.day"
_PARTIAL, _LOCK = f"{FILE}.partial", ".lock"


@dataclass(frozen=True)
class DayFile:
    """One day of a run: `written` is false where the file held this version already."""

    day: datetime
    path: Path
    bytes: int
    written: bool


def export_days(
    desk: Desk,
    query: CostQuery,
    layout: ExportLayout,
    billing_account: str,
    folder: Path,
    start: datetime | None,
    end: datetime | None,
) -> Iterator[DayFile]:
    """Bring the files of the days from `start` to `end` (None: of all) up to date, one after
    another. query: its range is replaced by each day's.

    Raises SettingsError where another run is at it, Refused, StoreError, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        first, last = (
            (None if start is None else floor(start, DAY)),
            (None if end is None else ceil(end, DAY)),
        )
        with store_errors("list the days"):
            days = RollupStore(desk.store.database, desk.now).fleet_days(first, last)
        for day in days:
            # The version was read before the day is: what comes meanwhile is another version, and
            # is written the next time.
            is_final = day["final_at"] is not None and day["final_at"] <= desk.now()
            note = json.dumps(
                {
                    **_question(query, layout, billing_account),
                    "version": day["version"],
                    "final": is_final,
                }
            )
            path = folder / f"day={day['start']:%Y-%m-%d}" / FILE
            written = parquet_note(path, NOTE) != note
            if written:
                asked = replace(query, start=day["start"], end=day["start"] + DAY)
                _write(
                    path,
                    export_file(
                        desk, asked, ExportFormat.PARQUET, layout, billing_account, {NOTE: note}
                    ).chunks,
                )
            yield DayFile(day["start"], path, path.stat().st_size, written)


def _question(query: CostQuery, layout: ExportLayout, billing_account: str) -> dict[str, object]:
    return {
        "layout": layout.value,
        "by": query.group_by,
        "bucket": query.step.value,
        "account": billing_account,
    }


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    """Under its name only when it is whole and on the disk."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(_PARTIAL)
    try:
        with partial.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another export writes to {folder} now: wait for it, or give another folder"
            ) from None
        yield
