"""Requests of a batch as columns, and all their documents of `token_usage` encoded at once.

A document is text (the id, where it came from, its labels) and numbers. The numbers of all documents with the same ones known
are laid out together, in one array whose rows are BSON already: building each document as a dict and encoding that costs the
interpreter three times as much, and the interpreter is what bounds ingest (docs/decisions/0016).

BSON as of https://bsonspec.org/spec.html, version 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import bson
import numpy as np
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray

from gpu_token_analytics.documents import LONG_REQUEST_US, payload_hash
from gpu_token_analytics.events import TokenUsage, to_us
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.requests import UNKNOWN_US, Labels, UsageRows, objects

# Element types
_DOUBLE, _BINARY, _BOOLEAN, _DATE, _NULL, _INT32, _INT64 = b"\x01", b"\x05", b"\x08", b"\x09", b"\x0a", b"\x10", b"\x12"

_MAX_LABEL_BYTES = 8 * 1024 * 1024

_DOCUMENT = b"%b\x02_id\x00%b%b\x00\x02request_id\x00%b%b\x00\x02src\x00%b%b\x00%b%b\x00"
_LENGTHS = [(length + 1).to_bytes(4, "little") for length in range(4 * 256 + 1)]  # of ids and sources, in bytes
_OTHER_BYTES = len(_DOCUMENT.replace(b"%b", b"")) + 4 * 4


class LabelBook:
    """The labels seen so far: there are few different ones, again and again."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Labels, bytes]] = {}
        self._bytes = 0

    def of(self, events: Sequence[TokenUsage]) -> list[tuple[Labels, bytes]]:
        """The labels of each request; and these with the reason why it finished as BSON elements."""
        known = self._known
        if self._bytes > _MAX_LABEL_BYTES:
            known.clear()  # forgetting costs an encoding, nothing else
            self._bytes = 0
        found = []
        for event in events:
            names = event.gpu_uuids
            key = (
                event.host,
                names[0] if len(names) == 1 else (event.gpu_index, *names),
                event.model,
                event.tenant,
                event.finish_reason,
            )
            labels = known.get(key)
            if labels is None:
                labels = known[key] = _labels(event)
                self._bytes += len(labels[1])
            found.append(labels)
        return found


def _labels(event: TokenUsage) -> tuple[Labels, bytes]:
    document = {
        "host": event.host,
        "gpus": event.gpus,
        "model": event.model,
        "tenant": event.tenant,
        "finish_reason": event.finish_reason,
    }
    elements = bson.encode(document)[4:-1]  # without its length and its end
    return Labels(event.host, tuple(event.gpus), event.model, event.tenant), elements


@dataclass(slots=True)
class UsageColumns:
    """Requests in the order they were read. All of length n."""

    ids: list[str]
    request_ids: list[str]
    labels: list[Labels]
    encoded_labels: list[bytes]
    ts_us: Int64
    start_us: Int64  # when it began to use its GPUs (end - latency + queue); ts_us when no latency is known
    first_us: Int64  # first token; UNKNOWN_US: not known
    prompt_tokens: Int64
    completion_tokens: Int64
    cached_tokens: Int64
    reasoning_tokens: Int64
    latency_ms: Float64  # nan: not known
    queue_ms: Float64
    ttft_ms: Float64
    gpu_index: Float64  # nan: not named

    @staticmethod
    def of(events: Sequence[TokenUsage], book: LabelBook) -> UsageColumns:
        """The events' own fields, and the times that follow from them."""
        latency_ms = np.array([event.latency_ms for event in events], dtype=np.float64)  # None becomes nan
        queue_ms = np.array([event.queue_ms for event in events], dtype=np.float64)
        ttft_ms = np.array([event.ttft_ms for event in events], dtype=np.float64)
        # Exact: seconds since 1970 as a float are within 0.25 us of the time, up to the year 2106.
        ts_us = np.rint(np.array([event.ts.timestamp() for event in events]) * 1e6).astype(np.int64)
        active_us = np.rint((np.nan_to_num(latency_ms) - np.nan_to_num(queue_ms)) * 1000).astype(np.int64)
        to_end_us = np.rint(np.nan_to_num(latency_ms - ttft_ms) * 1000).astype(np.int64)
        labels = book.of(events)
        return UsageColumns(
            ids=[event.event_id for event in events],
            request_ids=[event.request_id for event in events],
            labels=[each for each, _ in labels],
            encoded_labels=[encoded for _, encoded in labels],
            ts_us=ts_us,
            start_us=ts_us - np.maximum(active_us, 0),
            first_us=np.where(np.isnan(latency_ms) | np.isnan(ttft_ms), UNKNOWN_US, ts_us - to_end_us),
            prompt_tokens=np.array([event.prompt_tokens for event in events], dtype=np.int64),
            completion_tokens=np.array([event.completion_tokens for event in events], dtype=np.int64),
            cached_tokens=np.array([event.cached_tokens for event in events], dtype=np.int64),
            reasoning_tokens=np.array([event.reasoning_tokens for event in events], dtype=np.int64),
            latency_ms=latency_ms,
            queue_ms=queue_ms,
            ttft_ms=ttft_ms,
            gpu_index=np.array([event.gpu_index for event in events], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> UsageRows:
        """What the ledger needs of them."""
        return UsageRows(
            ids=objects(self.ids),
            labels=objects(self.labels),
            start_us=self.start_us,
            ts_us=self.ts_us,
            first_us=self.first_us,
            prompt=self.prompt_tokens,
            cached=self.cached_tokens,
            completion=self.completion_tokens,
            reasoning=self.reasoning_tokens,
        )

    @property
    def tokens(self) -> Int64:
        """Prompt and completion. Shape (n,)."""
        return self.prompt_tokens + self.completion_tokens


def encode_usages(
    usages: UsageColumns,
    values: Sequence[bytes],
    sources: Sequence[str],
    tps: Float64,
    cost_per_token_usd: Float64,
    stored_at: datetime,
) -> list[RawBSONDocument]:
    """One document of `token_usage` for each request.

    values: the records themselves (for `h`); sources: where each was read, `topic/partition/offset`; tps and
    cost_per_token_usd: the live rate, nan where it is not known. Lengths and shapes (n,).
    """
    columns = _numbers(usages, values, stored_at) | {"tps": tps, "cost_per_token": cost_per_token_usd}
    rows = _rows(columns, len(usages))
    return [
        RawBSONDocument(_document(event_id.encode(), request_id.encode(), source.encode(), labels, row))
        for event_id, request_id, source, labels, row in zip(
            usages.ids, usages.request_ids, sources, usages.encoded_labels, rows, strict=True
        )
    ]


def _document(event_id: bytes, request_id: bytes, source: bytes, labels: bytes, numbers: bytes | bytearray) -> bytes:
    length = _OTHER_BYTES + len(event_id) + len(request_id) + len(source) + len(labels) + len(numbers)
    return _DOCUMENT % (
        length.to_bytes(4, "little"),
        _LENGTHS[len(event_id)],
        event_id,
        _LENGTHS[len(request_id)],
        request_id,
        _LENGTHS[len(source)],
        source,
        labels,
        numbers,
    )


# -- numbers --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """An element of fixed size. `absent`: what is not known is left out; else it is null."""

    name: str
    kind: bytes
    format: str  # numpy's, little-endian
    before: bytes = b""  # between the name and the value
    absent: bool = False


_NUMBERS = (
    _Number("ts", _DATE, "<i8"),
    _Number("ts_us", _INT64, "<i8"),
    _Number("start_us", _INT64, "<i8"),
    _Number("first_us", _INT64, "<i8", absent=True),
    _Number("prompt_tokens", _INT32, "<i4"),
    _Number("completion_tokens", _INT32, "<i4"),
    _Number("cached_tokens", _INT32, "<i4"),
    _Number("reasoning_tokens", _INT32, "<i4"),
    _Number("latency_ms", _DOUBLE, "<f8"),
    _Number("queue_ms", _DOUBLE, "<f8"),
    _Number("ttft_ms", _DOUBLE, "<f8"),
    _Number("gpu_index", _INT32, "<i4", absent=True),
    _Number("long", _BOOLEAN, "<u1", absent=True),
    _Number("h", _BINARY, "V8", before=b"\x08\x00\x00\x00\x00"),  # its length, generic subtype
    _Number("ingested_at", _DATE, "<i8"),
    _Number("tokens", _INT32, "<i4"),
    _Number("tps", _DOUBLE, "<f8"),
    _Number("cost_per_token", _DOUBLE, "<f8"),
)


def _numbers(usages: UsageColumns, values: Sequence[bytes], stored_at: datetime) -> dict[str, NDArray[Any]]:
    long = usages.ts_us - usages.start_us > LONG_REQUEST_US
    hashes = b"".join(map(payload_hash, values))
    return {
        "ts": usages.ts_us // 1000,
        "ts_us": usages.ts_us,
        "start_us": usages.start_us,
        "first_us": np.where(usages.first_us == UNKNOWN_US, np.nan, usages.first_us),
        "prompt_tokens": usages.prompt_tokens,
        "completion_tokens": usages.completion_tokens,
        "cached_tokens": usages.cached_tokens,
        "reasoning_tokens": usages.reasoning_tokens,
        "latency_ms": usages.latency_ms,
        "queue_ms": usages.queue_ms,
        "ttft_ms": usages.ttft_ms,
        "gpu_index": usages.gpu_index,
        "long": np.where(long, 1.0, np.nan),
        "h": np.frombuffer(hashes, dtype="V8"),
        "ingested_at": np.full(len(usages), to_us(stored_at) // 1000, dtype=np.int64),
        "tokens": usages.tokens,
    }


def _rows(columns: dict[str, NDArray[Any]], count: int) -> list[bytes | bytearray]:
    """The numbers of each document, as BSON elements."""
    known = {name: ~np.isnan(column) for name, column in columns.items() if column.dtype.kind == "f"}
    variants = np.zeros(count, dtype=np.int64)
    for bit, is_known in enumerate(known.values()):
        variants |= is_known.astype(np.int64) << bit
    rows: list[bytes | bytearray] = [b""] * count
    for variant in np.unique(variants).tolist():
        missing = frozenset(name for bit, name in enumerate(known) if not variant >> bit & 1)
        dtype, template = _layout(missing)
        where = np.flatnonzero(variants == variant)
        packed = bytearray(template * len(where))
        block = np.frombuffer(packed, dtype=dtype)
        for name in dtype.names or ():
            block[name] = columns[name][where]
        width = len(template)
        for index, at in zip(where.tolist(), range(0, len(packed), width), strict=True):
            rows[index] = packed[at : at + width]
    return rows


@cache
def _layout(missing: frozenset[str]) -> tuple[np.dtype[Any], bytes]:
    """Where the values of a row lie, and a row with zeros in their places."""
    row = b""
    names, formats, offsets = [], [], []
    for number in _NUMBERS:
        name = number.name.encode() + b"\x00"
        if number.name in missing:
            row += b"" if number.absent else _NULL + name
            continue
        row += number.kind + name + number.before
        names.append(number.name)
        formats.append(number.format)
        offsets.append(len(row))
        row += bytes(np.dtype(number.format).itemsize)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(row)}), row
