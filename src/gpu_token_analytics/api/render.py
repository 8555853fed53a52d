"""Answers of /v1 as JSON, and rows as one total."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi.responses import Response

from gpu_token_analytics.books.unknown_names import UnknownName
from gpu_token_analytics.costs.read import FLAG_COLUMNS, ROW_COLUMNS, CostQuery, Row

_encoder = msgspec.json.Encoder(enc_hook=int)  # the driver's 64-bit integers are a subclass of int


def json_response(body: Any, status: int = 200) -> Response:
    """`body` as JSON, fast."""
    return Response(_encoder.encode(body), status, media_type="application/json")


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC, with `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def total_row(query: CostQuery, rows: Iterable[Row]) -> Row:
    """All rows as one. Flags are those of the buckets, each once."""
    values = [0] * len(ROW_COLUMNS)
    first_flag = len(ROW_COLUMNS) - len(FLAG_COLUMNS)
    last_start: datetime | None = None
    for row in rows:
        upto = len(ROW_COLUMNS) if row.start != last_start else first_flag
        for index in range(upto):
            values[index] += row.values[index]
        last_start = row.start
    return Row(None, query.start, query.end, (), values)


def unknown_gpu(found: UnknownName) -> dict[str, Any]:
    """A name of an unknown GPU as /v1 shows it."""
    return {
        "name": found.name,
        "tenant": found.tenant,
        "first_named_at": timestamp(found.first_named_at),
        "may_be": list(found.may_be),
    }
