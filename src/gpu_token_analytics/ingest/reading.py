"""Records read together, several times as fast as one by one; what they are is the same.

A record is held against its event by counting quotation marks. What an event says must stand in its record, in a number of
marks that is known. A field that is not known, or given twice, or says what goes without saying, is one more key, in two more
marks; then decode() looks at the record as it would have anyway (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.ledger.money import Int64
from gpu_token_analytics.wire.events import MAX_RECORD_BYTES, Event, decode_or_error, read_lines

# Records read at once: one that cannot be sends all of them through the next smaller size, the last through decode().
_TOGETHER = (1024, 32)
_JUDGED = 0


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """Of n records."""

    events: list[Event | InvalidRecord]  # an error takes the place of its record
    quotes: Int64  # quotation marks in each record; _JUDGED: decode() has had its say. Shape (n,)

    def judged(self, places: Int64) -> NDArray[np.bool_]:
        """Whether the records at these places were read one by one, whatever else is in them. Shape (m,)."""
        judged: NDArray[np.bool_] = self.quotes[places] == _JUDGED
        return judged

    def unlike(self, places: Int64, own_quotes: Int64) -> NDArray[np.bool_]:
        """Whether the records at these places may say more than their events do.

        own_quotes: the marks that each event needs, with every field once, and only where it is not the default. Shapes (m,).
        """
        quotes = self.quotes[places]
        unlike: NDArray[np.bool_] = (quotes != own_quotes) & (quotes != _JUDGED)
        return unlike


def read_many(values: Sequence[bytes | None], broker_ms: Sequence[int], together: Sequence[int] = _TOGETHER) -> ReadRecords:
    """`decode` of each value. One thing is left to the caller: an event that is unlike its record, or may break a rule between
    its fields, is still to be judged by decode().

    broker_ms: the broker's time of each record in milliseconds since 1970; together: how many are tried at once.
    """
    if not together:
        events = [decode_or_error(value, at) for value, at in zip(values, broker_ms, strict=True)]
        return ReadRecords(events, np.full(len(events), _JUDGED))
    size, *smaller = together
    parts = []
    for start in range(0, len(values), size):
        chunk, clock = values[start : start + size], broker_ms[start : start + size]
        parts.append(_read_together(chunk) or read_many(chunk, clock, smaller))
    if len(parts) == 1:
        return parts[0]
    return ReadRecords(
        [event for part in parts for event in part.events],
        np.concatenate([part.quotes for part in parts]) if parts else np.zeros(0, dtype=np.int64),
    )


def _read_together(values: Sequence[bytes | None]) -> ReadRecords | None:
    """They are read as lines. None where one is not one object, or has a backslash in it, which would quote what is not a
    quotation mark.

    No JSON goes on from `}` with `{`. So an object ends in the record that it begins in, each record has one or more, and as
    many as there are records is one in each.
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
    if read is None or len(read) != len(values):
        return None
    return ReadRecords(list(read), np.add.reduceat(characters == ord('"'), begins, dtype=np.int64))
