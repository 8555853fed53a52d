"""Records read together, several times as fast as one by one; what they are is the same.

A record is held against its event written again. Most are the same bytes. Of others, in another
spacing or order of fields, the quotation marks are counted: what an event says must stand in its
record, in as many marks as there are in the event written again. A field that is not known, or
given twice, or says what goes without saying, is one more key, in two more marks; then decode()
looks at the record as it would have anyway (docs/decisions/0020, 0040).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.ledger.money import Int64, NDArrayBool
from gpu_token_analytics.wire.events import MAX_RECORD_BYTES, decode_or_error, read_lines
from gpu_token_analytics.wire.kind import Event

# Records read at once: one that cannot be sends all of them through the next smaller size, the last
# through decode().
_TOGETHER = (1024, 32)


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """Of n records. An event that is unlike its record, or may break a rule between its fields, is
    still to be judged."""

    events: list[Event | InvalidRecord]  # an error takes the place of its record
    judged: NDArrayBool  # by decode(), whatever else is in the record; shape (n,)
    unlike: NDArrayBool  # may say more than its event does; shape (n,)


def read_many(
    values: Sequence[bytes | None], broker_ms: Sequence[int], together: Sequence[int] = _TOGETHER
) -> ReadRecords:
    """`decode` of each value, but for those that are still to be judged by it.

    broker_ms: the broker's time of each record in milliseconds since 1970; together: how many are
    tried at once.
    """
    if not together:
        events = [decode_or_error(value, at) for value, at in zip(values, broker_ms, strict=True)]
        return ReadRecords(
            events, np.ones(len(events), dtype=np.bool_), np.zeros(len(events), dtype=np.bool_)
        )
    size, *smaller = together
    parts = []
    for start in range(0, len(values), size):
        chunk, clock = values[start : start + size], broker_ms[start : start + size]
        parts.append(_read_together(chunk) or read_many(chunk, clock, smaller))
    if len(parts) == 1:
        return parts[0]
    return ReadRecords(
        [event for part in parts for event in part.events],
        np.concatenate([part.judged for part in parts]) if parts else np.zeros(0, dtype=np.bool_),
        np.concatenate([part.unlike for part in parts]) if parts else np.zeros(0, dtype=np.bool_),
    )


def _read_together(values: Sequence[bytes | None]) -> ReadRecords | None:
    """They are read as lines. None where one is not one object, or has a backslash in it, which
    would quote what is not a quotation mark.

    No JSON goes on from `}` with `{`. So an object ends in the record that it begins in, each
    record has one or more, and as many as there are records is one in each.
    """
    if None in values:
        return None
    joined = b"\n".join(values) + b"\n"  # type: ignore[arg-type]  # no None in them
    lengths = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    characters = np.frombuffer(joined, dtype=np.uint8)
    ends = np.cumsum(lengths + 1)
    begins = ends - lengths - 1
    braces = (characters[begins] == ord("{")) & (characters[ends - 2] == ord("}"))
    if not braces.all() or lengths.max() > MAX_RECORD_BYTES or b"\\" in joined:
        return None
    read = read_lines(joined)
    if read is None or len(read.events) != len(values):
        return None
    nothing = np.zeros(len(values), dtype=np.bool_)
    if read.written == joined:
        return ReadRecords(list(read.events), nothing, nothing)
    written = np.frombuffer(read.written, dtype=np.uint8)
    written_begins = np.concatenate([[0], np.flatnonzero(written == ord("\n"))[:-1] + 1])
    return ReadRecords(
        list(read.events), nothing, _marks(characters, begins) != _marks(written, written_begins)
    )


def _marks(characters: NDArray[np.uint8], begins: Int64) -> Int64:
    """Quotation marks in each line. Shape (n,)."""
    return np.add.reduceat(characters == ord('"'), begins, dtype=np.int64)
