"""Events of one kind as columns, and the documents that are stored of them.

What many events share - labels - is coded: few different entries, again and again. What is a number
is an array, where nan is unknown. A kind says which fields are which (wire/kind.py);
usage_columns.py and sample_columns.py add what follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from gpu_token_analytics.documents import PERIOD_US, payload_hash
from gpu_token_analytics.ledger.money import Int64, NDArrayBool
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.encoding import (
    DOUBLE,
    HASH,
    INGESTED_AT,
    INT32,
    INT64,
    TS,
    TS_US,
    Number,
    encode_together,
    label_elements,
)
from gpu_token_analytics.wire.identity import identify
from gpu_token_analytics.wire.kind import Event, Kind
from gpu_token_analytics.wire.times import to_us

MOST_BOOK_BYTES = 8 * 1024 * 1024

E = TypeVar("E", bound=Event)
T = TypeVar("T")  # what the labels of an event mean to whoever asks for columns


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """What events with the same labels have in common."""

    meaning: T
    encoded: bytes  # their labels as label_elements()
    owner: str  # of their ids
    rule_values: tuple[float, ...]  # what each rule of the kind needs to know of them


class LabelBook(Generic[E, T]):
    """The labels seen so far, each once. Bounded: what is forgotten costs an encoding, nothing
    else."""

    def __init__(
        self, kind: Kind[E], meaning: Callable[[E], T], most_bytes: int = MOST_BOOK_BYTES
    ) -> None:
        self.kind = kind
        self._meaning = meaning
        self._most_bytes = most_bytes
        self._forget()

    def __len__(self) -> int:
        return len(self._entries)

    def entries(
        self, events: Sequence[E], fields: Mapping[str, Sequence[Any]]
    ) -> tuple[list[Entry[T]], Int64]:
        """Those of the events that occur, and which of them each event has. fields: the events'
        own, by name."""
        if self._bytes > self._most_bytes:
            self._forget()
        known = self._codes
        codes = []
        labels = [
            map(tuple, fields[name]) if name in self.kind.forms.lists else fields[name]
            for name in self.kind.labels
        ]
        for row, key in enumerate(zip(*labels, strict=True)):
            code = known.get(key)
            if code is None:
                code = known[key] = self._learn(events[row])
            codes.append(code)
        present, codes_of_present = np.unique(np.array(codes, dtype=np.int64), return_inverse=True)
        return [self._entries[code] for code in present.tolist()], codes_of_present

    def _learn(self, event: E) -> int:
        document = self.kind.document(event)
        entry = Entry(
            self._meaning(event),
            label_elements(document),
            document[self.kind.owner],
            tuple(rule.label_value(event) for rule in self.kind.rules),
        )
        self._entries.append(entry)
        self._bytes += len(entry.encoded)
        return len(self._entries) - 1

    def _forget(self) -> None:
        self._codes: dict[Hashable, int] = {}
        self._entries: list[Entry[T]] = []
        self._bytes = 0


class Columns(Generic[E, T]):
    """Events of one kind, in the order they were read. All of length n, but for `table`."""

    ADDED: ClassVar[tuple[Number, ...]] = ()  # what is stored besides the kind's own numbers

    def __init__(self, events: Sequence[E], book: LabelBook[E, T]) -> None:
        """book: knows the kind."""
        self.kind = book.kind
        self.events = events
        fields = dict(
            zip(
                self.kind.struct.__struct_fields__,
                zip(*map(astuple, events), strict=True),
                strict=True,
            )
        )
        # labels that occur, each once; which of them each event has
        self.table, self.codes = book.entries(events, fields)
        owners = [entry.owner for entry in self.table]
        self.ids, self._heads = identify(
            [owners[code] for code in self.codes.tolist()], fields["event_id"]
        )
        self.ts_us = times_us(fields["ts"])
        self.texts: dict[str, Sequence[str]] = {name: fields[name] for name in self.kind.texts}
        whole = self.kind.forms.integers.keys() - self.kind.forms.nullable
        self.numbers: dict[str, NDArray[Any]] = {
            # None becomes nan
            name: np.array(fields[name], dtype=np.int64 if name in whole else np.float64)
            for name in self.kind.numbers
        }

    def __len__(self) -> int:
        return len(self.events)

    @cached_property
    def meanings(self) -> list[T]:
        """Of `table`."""
        return [entry.meaning for entry in self.table]

    @property
    def doubtful(self) -> NDArrayBool:
        """Whether each event breaks a rule of its kind: decode() says how. Shape (n,)."""
        doubtful = np.zeros(len(self), dtype=np.bool_)
        for number, rule in enumerate(self.kind.rules):
            of_labels = np.array([entry.rule_values[number] for entry in self.table])[self.codes]
            doubtful |= rule.broken(self.numbers.__getitem__, of_labels)
        return doubtful

    def added(self) -> Mapping[str, NDArray[Any]]:
        """The numbers of ADDED that follow from the events alone."""
        return {}

    def encode(
        self,
        into: EncodedDocuments,
        values: Sequence[bytes],
        sources: Sequence[str],
        stored_at: datetime,
        others: Mapping[str, NDArray[Any]],
    ) -> None:
        """Add one document for each event.

        values: the records themselves (for `h`); sources: where each was read,
        `topic/partition/offset`; others: numbers of ADDED that do not follow from the events alone,
        nan where they are not known. Lengths and shapes (n,).
        """
        hashes = list(map(payload_hash, values))
        numbers = {
            "ts": self.ts_us // 1000,
            "ts_us": self.ts_us,
            "h": np.frombuffer(b"".join(hashes), dtype="V8"),
            "ingested_at": np.full(len(self), to_us(stored_at) // 1000, dtype=np.int64),
            "period": np.full(len(self), to_us(stored_at) // PERIOD_US, dtype=np.int64),
            **self.numbers,
            **self.added(),
            **others,
        }
        labels = [entry.encoded for entry in self.table]
        encode_together(
            into,
            self.ids,
            self._heads,
            {**self.texts, "src": sources},
            [labels[code] for code in self.codes.tolist()],
            (*_numbers_of(self.kind), *self.ADDED),
            numbers,
            hashes,
        )


@cache
def _numbers_of(kind: Kind[Any]) -> tuple[Number, ...]:
    """What is stored of the numbers of a kind. One that is not known is null."""
    return (TS, TS_US, *(_number(kind, name) for name in kind.numbers), HASH, INGESTED_AT)


def _number(kind: Kind[Any], name: str) -> Number:
    if name not in kind.forms.integers:
        return Number(name, DOUBLE, "<f8")
    most = kind.forms.integers[name]
    return (
        Number(name, INT32, "<i4")
        if most is not None and most < 1 << 31
        else Number(name, INT64, "<i8")
    )


def times_us(times: Sequence[datetime]) -> Int64:
    """Microseconds since 1970. Exact: as seconds in a float they are within 0.25 us of the time, up
    to the year 2106."""
    rounded: Int64 = np.rint(np.array([at.timestamp() for at in times]) * 1e6).astype(np.int64)
    return rounded
