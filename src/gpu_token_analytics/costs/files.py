"""Rows as files: CSV and Parquet, written piece by piece in constant memory.

Money is exact: decimal text in CSV, integers of nano-USD or decimal128 in Parquet; never a float.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from gpu_token_analytics.foreign_text import in_csv, in_json_text

ROWS_PER_CHUNK = 1_000
ROWS_PER_GROUP = 10_000


class ColumnKind(StrEnum):
    """Type of a column. DECIMAL: Decimal with 9 places. JSON: a dict, as text."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TIME = "time"
    BOOLEAN = "boolean"
    JSON = "json"


@dataclass(frozen=True)
class Column:
    """One column of a file."""

    name: str
    kind: ColumnKind


def usd(nusd: int) -> Decimal:
    """Nano-USD as exact USD; of another currency's billionths, its units."""
    return Decimal(nusd).scaleb(-9)


def csv_chunks(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """The file as UTF-8 pieces: a header, then rows; empty is null. Lines end in CRLF (RFC
    4180)."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([column.name for column in columns])
    kinds = [column.kind for column in columns]
    source = iter(rows)
    while chunk := list(islice(source, ROWS_PER_CHUNK)):
        writer.writerows(
            [_text(kind, value) for kind, value in zip(kinds, row, strict=True)] for row in chunk
        )
        yield out.getvalue().encode()
        out.seek(0)
        out.truncate()
    if out.tell():
        yield out.getvalue().encode()


_TO_TEXT: dict[ColumnKind, Callable[[Any], str]] = {
    ColumnKind.TEXT: in_csv,
    ColumnKind.INTEGER: str,
    ColumnKind.DECIMAL: lambda value: format(value, "f"),
    ColumnKind.FLOAT: str,
    ColumnKind.TIME: lambda value: f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    ColumnKind.BOOLEAN: lambda value: "true" if value else "false",
    ColumnKind.JSON: lambda value: in_json_text(
        json.dumps(value, ensure_ascii=False, sort_keys=True)
    ),
}


def _text(kind: ColumnKind, value: Any) -> str:
    return "" if value is None else _TO_TEXT[kind](value)


def parquet_chunks(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], notes: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """The file as pieces: one row group at a time is in memory. notes: names and texts that its
    footer keeps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pool = pa.system_memory_pool()  # the default pool keeps what it once had
    types = {
        ColumnKind.TEXT: pa.string(),
        ColumnKind.INTEGER: pa.int64(),
        ColumnKind.DECIMAL: pa.decimal128(38, 9),
        ColumnKind.FLOAT: pa.float64(),
        ColumnKind.TIME: pa.timestamp("ms", tz="UTC"),
        ColumnKind.BOOLEAN: pa.bool_(),
        ColumnKind.JSON: pa.string(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns], metadata=notes)
    sink = _Pieces()
    source = iter(rows)
    with pq.ParquetWriter(sink, schema, compression="snappy") as writer:
        while group := list(islice(source, ROWS_PER_GROUP)):
            arrays = [
                pa.array(
                    (_arrow(column.kind, row[index]) for row in group),
                    types[column.kind],
                    size=len(group),
                    memory_pool=pool,
                )
                for index, column in enumerate(columns)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


def parquet_note(path: Path, name: str) -> str | None:
    """What the footer of a file says under a name; None: it is no whole Parquet file, or says
    nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        notes = pq.read_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    note: bytes | None = notes.get(name.encode())
    return None if note is None else note.decode()


def _arrow(kind: ColumnKind, value: Any) -> Any:
    if kind is ColumnKind.JSON and value is not None:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value


class _Pieces(io.RawIOBase):
    """A file that keeps only what was not taken yet."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._held += piece
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        """What was written since."""
        piece = bytes(self._held)
        self._held.clear()
        return piece


def month_of(at: datetime) -> tuple[datetime, datetime]:
    """The calendar month (UTC) that holds `at`: [first, first of the next)."""
    first = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (
        first.replace(year=first.year + 1, month=1)
        if first.month == 12
        else first.replace(month=first.month + 1)
    )
    return first, following
