"""What ingest does with the events of any kind: they become documents.

A kind that more follows from has a subclass (usages.py, samples.py), named in shape.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from numpy.typing import NDArray

from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.raw.columns import Columns, E, LabelBook, T
from gpu_token_analytics.wire.kind import Kind


@dataclass(frozen=True)
class Sources:
    """Events of one kind in a batch: which of its records they are, and where each of all its
    records was read."""

    records: Sequence[int]
    read_at: Sequence[str]  # `topic/partition/offset`


class KindShaper(Generic[E, T]):
    """Stores events of a kind; nothing else follows from them. Keeps the labels seen so far; for
    one thread."""

    def __init__(self, book: LabelBook[E, T], rate: LiveRate, gap_us: int, limits: Limits) -> None:
        """gap_us: for how long a sample speaks at most, in microseconds."""
        self.kind: Kind[E] = book.kind
        self._book = book
        self._rate, self._gap_us, self._limits = rate, gap_us, limits

    def columns(self, events: Sequence[E]) -> Columns[E, T]:
        """The events as columns."""
        return Columns(events, self._book)

    def learn(self, columns: Any) -> None:
        """Take note of what documents of any kind in the same batch are made with."""

    def numbers(self, columns: Any, shaped: Shaped) -> Mapping[str, NDArray[Any]]:  # noqa: ARG002  # for those that have some
        """What is stored besides what follows from the events alone."""
        return {}

    def follow(self, columns: Any, shaped: Shaped) -> None:
        """Whatever else is to be written because of these events."""

    def shape(
        self, columns: Columns[E, T], shaped: Shaped, sources: Sources, now: datetime
    ) -> None:
        """All that is to be written of these events; `now` becomes `ingested_at`."""
        raws, values = shaped.raws[self.kind], shaped.records.values
        columns.encode(
            raws.documents,
            [values[index] for index in sources.records],  # type: ignore[misc]  # a record that is an event has a value
            [sources.read_at[index] for index in sources.records],
            now,
            self.numbers(columns, shaped),
        )
        raws.records += sources.records
        shaped.event_us += columns.ts_us.tolist()
        self.follow(columns, shaped)
