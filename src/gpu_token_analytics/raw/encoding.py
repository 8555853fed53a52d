"""Documents of many events encoded together, as BSON.

A document is text (its id, where it came from, labels) and numbers. The numbers of all documents
with the same ones known are laid out together, in one array whose rows are BSON already: building
each document as a dict and encoding that costs the interpreter three times as much, and the
interpreter is what bounds ingest (docs/decisions/0016).

BSON as of https://bsonspec.org/spec.html, version 1.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import bson
import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.mongo.encoded import EncodedDocuments

# Element types
DOUBLE, TEXT, BINARY, BOOLEAN, DATE, NULL, INT32, INT64 = (
    b"\x01",
    b"\x02",
    b"\x05",
    b"\x08",
    b"\x09",
    b"\x0a",
    b"\x10",
    b"\x12",
)

_LONGEST_TEXT = 4 * 256
_END = b"\x00"  # of a text, and of a document
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Number:
    """An element of fixed size. `absent`: what is not known is left out; else it is null."""

    name: str
    kind: bytes
    format: str  # numpy's, little-endian
    before: bytes = b""  # between the name and the value
    absent: bool = False


TS, TS_US = Number("ts", DATE, "<i8"), Number("ts_us", INT64, "<i8")
HASH = Number("h", BINARY, "V8", before=b"\x08\x00\x00\x00\x00")  # its length, generic subtype
INGESTED_AT = Number("ingested_at", DATE, "<i8")


def encode_together(
    into: EncodedDocuments,
    ids: Sequence[bytes],
    heads: Sequence[bytes],
    texts: Mapping[str, Sequence[str]],
    labels: Sequence[bytes],
    numbers: tuple[Number, ...],
    columns: Mapping[str, NDArray[Any]],
    hashes: Sequence[bytes],
) -> None:
    """One document for each row, added to `found`: its head, its texts, its labels, its numbers.

    ids, heads: as identity.identify() gives them; texts: by name; labels: as label_elements() gives
    them;
    columns: those of `numbers`, where nan is unknown; hashes: see EncodedDocuments. Lengths and
    shapes (n,).
    """
    rows = _rows(numbers, columns, len(labels))
    encoded = [[text.encode() for text in column] for column in texts.values()]
    sizes = [_sizes(column) for column in encoded]
    before = [_before_text(name, number == 0) for number, name in enumerate(texts)]
    lengths = (
        sum(sizes)
        + _LENGTH_BYTES
        + _sizes(heads)
        + sum(len(constant[0]) for constant in before)
        + _sizes(labels)
        + _sizes(rows)
    )
    # In C from here to the end: a loop over the documents would cost as much as all of the above.
    begun = [
        pieces
        for constant, size, column in zip(before, sizes, encoded, strict=True)
        for pieces in (map(constant.__getitem__, size.tolist()), column)
    ]
    pieces = zip(
        lengths.astype("<i4").view("V4").tolist(), heads, *begun, labels, rows, strict=True
    )
    into.extend(ids, hashes, lengths.tolist(), b"".join(chain.from_iterable(pieces)))


def five_digits(estimates: Float64) -> Float64:
    """Each as the nearest number with 16 bits behind its first one: within 0.0008 %. Shape (n,).

    The other 36 bits of an estimate say nothing, and no compression makes them fewer."""
    bits = estimates.view(np.int64)
    rounded: Float64 = ((bits + (1 << 35)) & ~((1 << 36) - 1)).view(np.float64)
    return rounded


def label_elements(document: Mapping[str, Any]) -> bytes:
    """Fields that many documents have in common, as they stand after the texts."""
    # the end of the text before them; not of a document
    return _END + bson.encode(document)[_LENGTH_BYTES:-1]


@cache
def _before_text(name: str, first: bool) -> list[bytes]:
    """What stands before a text, by its length in bytes: the end of the one before it, its name,
    its length with the NUL."""
    name_of = (b"" if first else _END) + TEXT + name.encode() + b"\x00"
    return [
        name_of + (length + 1).to_bytes(_LENGTH_BYTES, "little")
        for length in range(_LONGEST_TEXT + 1)
    ]


def _sizes(texts: Sequence[bytes]) -> Int64:
    return np.fromiter(map(len, texts), np.int64, len(texts))


def _rows(
    numbers: tuple[Number, ...], columns: Mapping[str, NDArray[Any]], count: int
) -> list[bytes]:
    """The numbers of each document as BSON elements, and its end."""
    known = {
        name: ~np.isnan(column) for name, column in columns.items() if column.dtype.kind == "f"
    }
    variants = np.zeros(count, dtype=np.int64)
    for bit, is_known in enumerate(known.values()):
        variants |= is_known.astype(np.int64) << bit
    rows = [b""] * count
    for variant in np.unique(variants).tolist():
        missing = frozenset(name for bit, name in enumerate(known) if not variant >> bit & 1)
        dtype, template = _layout(numbers, missing)
        where = np.flatnonzero(variants == variant)
        block = np.frombuffer(bytearray(template * len(where)), dtype=dtype)
        for name in dtype.names or ():
            block[name] = columns[name][where]
        for index, row in zip(
            where.tolist(), block.view(f"V{len(template)}").tolist(), strict=True
        ):
            rows[index] = row
    return rows


@cache
def _layout(numbers: tuple[Number, ...], missing: frozenset[str]) -> tuple[np.dtype[Any], bytes]:
    """Where the values of a row lie, and a row with zeros in their places."""
    row = b""
    names, formats, offsets = [], [], []
    for number in numbers:
        name = number.name.encode() + b"\x00"
        if number.name in missing:
            row += b"" if number.absent else NULL + name
            continue
        row += number.kind + name + number.before
        names.append(number.name)
        formats.append(number.format)
        offsets.append(len(row))
        row += bytes(np.dtype(number.format).itemsize)
    row += _END
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": len(row)}
    ), row
