"""Positions in answers of several pages: opaque texts that say after what the next page begins."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpu_token_analytics.costs.query import CostQuery, Order, Row, sort_key
from gpu_token_analytics.errors import Refused

# Six names of 256 characters, each of them `\u0001` in JSON, in base64: whoever sends such names
# may not end anybody's pages.
MAX_CURSOR = 16_384


def encode_cursor(*parts: Any) -> str:
    """An opaque position, of at most MAX_CURSOR characters."""
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, shapes: Sequence[type | tuple[type, ...]]) -> list[Any]:
    """The parts of a position. Raises Refused unless they have these types."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        good = (
            isinstance(parts, list)
            and len(parts) == len(shapes)
            and all(isinstance(part, shape) for part, shape in zip(parts, shapes, strict=True))
            # half a surrogate pair is JSON, and no text that a database can be asked for
            and bool(encode_cursor(*parts))
        )
    except (ValueError, binascii.Error, RecursionError):
        good, parts = False, []
    if not good:
        raise Refused(
            "invalid_cursor",
            "cursor is not a `next` of this query; leave it out to start anew",
            "cursor",
        )
    position: list[Any] = parts
    return position


def page_of_rows(
    rows: Sequence[dict[str, Any]], limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of a whole list after a cursor, and the next page's cursor. Raises Refused for a
    cursor of another list."""
    begin = 0
    if cursor is not None:
        (after,) = decode_cursor(cursor, (str,))
        ids = [row["_id"] for row in rows]
        if after not in ids:
            raise Refused("invalid_cursor", "cursor is not a `next` of this list", "cursor")
        begin = ids.index(after) + 1
    page = list(rows[begin : begin + limit])
    return page, encode_cursor(page[-1]["_id"]) if begin + limit < len(rows) else None


def cursor_time(text: str, start: datetime, end: datetime) -> datetime:
    """A time in [start, end) out of a cursor. Raises Refused: after another range what is left out
    would be silently missing."""
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Refused("invalid_cursor", "cursor holds no time", "cursor") from None
    if not start <= at < end:
        raise Refused("invalid_cursor", "cursor lies outside of from and to", "cursor")
    return at


def row_position(query: CostQuery, row: Row, state: int) -> str:
    """The cursor of the rows after this one. state: what its bucket was made of."""
    start = f"{row.start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return encode_cursor(_kind(query), start, list(row.key), state)


def _kind(query: CostQuery) -> str:
    """What rows of another question must not be counted off by."""
    return ",".join((query.step.name, *query.group_by))


@dataclass(frozen=True)
class RowPosition:
    """After which row a page begins, and what the bucket was made of when that one was read."""

    start: datetime
    order: Order
    state: int


def read_row_position(text: str, query: CostQuery) -> RowPosition:
    """Where to go on. Raises Refused."""
    kind, when, key, state = decode_cursor(text, (str, str, list, int))
    start = cursor_time(when, query.start, query.end)
    if (
        kind != _kind(query)
        or len(key) != len(query.group_by)
        or not all(part is None or isinstance(part, str) for part in key)
    ):
        raise Refused("invalid_cursor", "cursor belongs to another group_by or bucket", "cursor")
    return RowPosition(start, sort_key(tuple(key)), state)
