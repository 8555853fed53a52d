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
from itertools import chain
from typing import Any

import bson
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from gpu_token_analytics.documents import LONG_REQUEST_US, payload_hash
from gpu_token_analytics.events import EARLIEST_TS, TokenUsage, to_us
from gpu_token_analytics.ledger.labels import LabelColumn, Labels
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.requests import UNKNOWN_US, UsageRows, objects
from gpu_token_analytics.store.encoded import EncodedDocuments

# Element types
_DOUBLE, _BINARY, _BOOLEAN, _DATE, _NULL, _INT32, _INT64 = b"\x01", b"\x05", b"\x08", b"\x09", b"\x0a", b"\x10", b"\x12"

_FIELDS = TokenUsage.__struct_fields__
_EARLIEST_US = to_us(EARLIEST_TS)
_DEFAULT_TENANT = "default"
_SHORT_LATENCY_MS = 3_600_000  # on however many GPUs, it touches fewer cells than events.MAX_CELLS

_MAX_LABEL_BYTES = 8 * 1024 * 1024

# Before a text: the end of the one before it, its name, and its length in bytes with the NUL at its end.
_LONGEST_TEXT = 4 * 256
_ID, _REQUEST_ID, _SOURCE = (
    [before + (length + 1).to_bytes(4, "little") for length in range(_LONGEST_TEXT + 1)]
    for before in (b"\x02_id\x00", b"\x00\x02request_id\x00", b"\x00\x02src\x00")
)
_END = b"\x00"
_OTHER_BYTES = 4 + len(_ID[0] + _REQUEST_ID[0] + _SOURCE[0])  # the length of the document is the first 4

# Quotation marks that a record needs: for its keys, and for values that are texts. See processor/reading.py.
_KEY, _TEXT = 2, 2
_REQUIRED_QUOTES = 8 * _KEY + 6 * _TEXT  # schema, event_id, ts, host, model, request_id; prompt_tokens, completion_tokens


class LabelBook:
    """The labels seen so far: there are few different ones, again and again."""

    def __init__(self) -> None:
        self._forget()

    def of(self, events: Sequence[TokenUsage]) -> tuple[LabelColumn, list[bytes], Int64]:
        """The labels of the requests; of each these with the reason why it finished, as BSON elements; and the quotation marks
        that its record needs for what it says of these."""
        if self._bytes > _MAX_LABEL_BYTES:
            self._forget()  # costs an encoding, nothing else
        known = self._codes
        codes = []
        for event in events:
            names = event.gpu_uuids
            key = (
                event.host,
                names[0] if len(names) == 1 else (event.gpu_index, *names),
                event.model,
                event.tenant,
                event.finish_reason,
            )
            code = known.get(key)
            if code is None:
                code = known[key] = self._learn(event)
            codes.append(code)
        encoded, quotes = self._encoded, self._quotes
        return (
            LabelColumn(self._labels, np.array(codes, dtype=np.int64)).compact(),
            [encoded[code] for code in codes],
            np.array([quotes[code] for code in codes], dtype=np.int64),
        )

    def _learn(self, event: TokenUsage) -> int:
        labels, encoded = _labels(event)
        self._labels.append(labels)
        self._encoded.append(encoded)
        self._quotes.append(_quotes(event))
        self._bytes += len(encoded)
        return len(self._labels) - 1

    def _forget(self) -> None:
        self._codes: dict[tuple[object, ...], int] = {}
        self._labels: list[Labels] = []
        self._encoded: list[bytes] = []
        self._quotes: list[int] = []
        self._bytes = 0


def _labels(event: TokenUsage) -> tuple[Labels, bytes]:
    document = {
        "host": event.host,
        "gpus": event.gpus,
        "model": event.model,
        "tenant": event.tenant,
        "finish_reason": event.finish_reason,
    }
    elements = bson.encode(document)[4:-1]  # without its length and its end
    return Labels(event.host, tuple(event.gpus), event.model, event.tenant), _END + elements


def _quotes(event: TokenUsage) -> int:
    """For the labels that are not required."""
    found = _KEY + _TEXT * len(event.gpu_uuids) if event.gpu_uuids else 0
    if event.tenant != _DEFAULT_TENANT:
        found += _KEY + _TEXT
    if event.finish_reason is not None:
        found += _KEY + _TEXT
    return found


@dataclass(slots=True)
class UsageColumns:
    """Requests in the order they were read. All of length n."""

    ids: Sequence[str]
    request_ids: Sequence[str]
    labels: LabelColumn
    encoded_labels: list[bytes]  # and the reason why it finished; after the end of the text before them
    label_quotes: Int64  # quotation marks for them in the record
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
        fields = dict(zip(_FIELDS, zip(*map(astuple, events), strict=True), strict=True))
        latency_ms = np.array(fields["latency_ms"], dtype=np.float64)  # None becomes nan
        queue_ms = np.array(fields["queue_ms"], dtype=np.float64)
        ttft_ms = np.array(fields["ttft_ms"], dtype=np.float64)
        # Exact: seconds since 1970 as a float are within 0.25 us of the time, up to the year 2106.
        ts_us = np.rint(np.array([ts.timestamp() for ts in fields["ts"]]) * 1e6).astype(np.int64)
        active_us = np.rint((np.nan_to_num(latency_ms) - np.nan_to_num(queue_ms)) * 1000).astype(np.int64)
        to_end_us = np.rint(np.nan_to_num(latency_ms - ttft_ms) * 1000).astype(np.int64)
        labels, encoded_labels, label_quotes = book.of(events)
        return UsageColumns(
            ids=fields["event_id"],
            request_ids=fields["request_id"],
            labels=labels,
            encoded_labels=encoded_labels,
            label_quotes=label_quotes,
            ts_us=ts_us,
            start_us=ts_us - np.maximum(active_us, 0),
            first_us=np.where(np.isnan(latency_ms) | np.isnan(ttft_ms), UNKNOWN_US, ts_us - to_end_us),
            prompt_tokens=np.array(fields["prompt_tokens"], dtype=np.int64),
            completion_tokens=np.array(fields["completion_tokens"], dtype=np.int64),
            cached_tokens=np.array(fields["cached_tokens"], dtype=np.int64),
            reasoning_tokens=np.array(fields["reasoning_tokens"], dtype=np.int64),
            latency_ms=latency_ms,
            queue_ms=queue_ms,
            ttft_ms=ttft_ms,
            gpu_index=np.array(fields["gpu_index"], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> UsageRows:
        """What the ledger needs of them."""
        return UsageRows(
            ids=objects(self.ids),
            labels=self.labels,
            start_us=self.start_us,
            ts_us=self.ts_us,
            first_us=self.first_us,
            prompt=self.prompt_tokens,
            cached=self.cached_tokens,
            completion=self.completion_tokens,
            reasoning=self.reasoning_tokens,
        )

    @property
    def quotes(self) -> Int64:
        """Quotation marks that the record of each needs: processor/reading.py holds them against those it has."""
        found = _REQUIRED_QUOTES + self.label_quotes
        for known in (
            *(count != 0 for count in (self.cached_tokens, self.reasoning_tokens)),
            *(~np.isnan(number) for number in (self.gpu_index, self.latency_ms, self.queue_ms, self.ttft_ms)),
        ):
            found += _KEY * known
        return found

    def doubtful(self, latest_us: int) -> NDArray[np.bool_]:
        """Whether each request may break a rule between its fields, or have a time before EARLIEST_TS or after `latest_us`:
        events.decode() knows. All others keep every rule."""
        by_uuid = self.labels.each(lambda labels: not any("/" in gpu for gpu in labels.gpus), np.bool_)
        by_label = self.labels.each(lambda labels: all("/" in gpu for gpu in labels.gpus), np.bool_)
        fine = by_uuid | by_label & ~np.isnan(self.gpu_index)  # else none may be named
        fine &= (self.ts_us >= _EARLIEST_US) & (self.ts_us <= latest_us)
        fine &= (self.cached_tokens <= self.prompt_tokens) & (self.reasoning_tokens <= self.completion_tokens)
        no_latency, no_queue, no_ttft = (np.isnan(part) for part in (self.latency_ms, self.queue_ms, self.ttft_ms))
        fine &= (self.latency_ms <= _SHORT_LATENCY_MS) | no_latency
        fine &= no_queue | (self.queue_ms <= self.latency_ms)  # not, where a part of something unknown is known
        fine &= no_ttft | (self.ttft_ms <= self.latency_ms)
        doubtful: NDArray[np.bool_] = ~fine
        return doubtful

    @property
    def tokens(self) -> Int64:
        """Prompt and completion. Shape (n,)."""
        return self.prompt_tokens + self.completion_tokens


def encode_usages(
    found: EncodedDocuments,
    usages: UsageColumns,
    values: Sequence[bytes],
    sources: Sequence[str],
    tps: Float64,
    cost_per_token_usd: Float64,
    stored_at: datetime,
) -> None:
    """One document of `token_usage` for each request, added to `found`.

    values: the records themselves (for `h`); sources: where each was read, `topic/partition/offset`; tps and
    cost_per_token_usd: the live rate, nan where it is not known. Lengths and shapes (n,).
    """
    hashes = list(map(payload_hash, values))
    columns = _numbers(usages, hashes, stored_at) | {"tps": tps, "cost_per_token": cost_per_token_usd}
    rows = _rows(columns, len(usages))
    ids, request_ids, where = ([text.encode() for text in column] for column in (usages.ids, usages.request_ids, sources))
    id_bytes, request_id_bytes, where_bytes = (_sizes(texts) for texts in (ids, request_ids, where))
    lengths = _OTHER_BYTES + id_bytes + request_id_bytes + where_bytes + _sizes(usages.encoded_labels) + _sizes(rows)
    # In C from here to the end: a loop over the documents would cost as much as all of the above.
    pieces = zip(
        lengths.astype("<i4").view("V4").tolist(),
        map(_ID.__getitem__, id_bytes.tolist()),
        ids,
        map(_REQUEST_ID.__getitem__, request_id_bytes.tolist()),
        request_ids,
        map(_SOURCE.__getitem__, where_bytes.tolist()),
        where,
        usages.encoded_labels,
        rows,
        strict=True,
    )
    found.extend(usages.ids, hashes, lengths.tolist(), b"".join(chain.from_iterable(pieces)))


def _sizes(texts: Sequence[bytes]) -> Int64:
    return np.fromiter(map(len, texts), np.int64, len(texts))


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


def _numbers(usages: UsageColumns, hashes: Sequence[bytes], stored_at: datetime) -> dict[str, NDArray[Any]]:
    long = usages.ts_us - usages.start_us > LONG_REQUEST_US
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
        "h": np.frombuffer(b"".join(hashes), dtype="V8"),
        "ingested_at": np.full(len(usages), to_us(stored_at) // 1000, dtype=np.int64),
        "tokens": usages.tokens,
    }


def _rows(columns: dict[str, NDArray[Any]], count: int) -> list[bytes]:
    """The numbers of each document as BSON elements, and its end."""
    known = {name: ~np.isnan(column) for name, column in columns.items() if column.dtype.kind == "f"}
    variants = np.zeros(count, dtype=np.int64)
    for bit, is_known in enumerate(known.values()):
        variants |= is_known.astype(np.int64) << bit
    rows = [b""] * count
    for variant in np.unique(variants).tolist():
        missing = frozenset(name for bit, name in enumerate(known) if not variant >> bit & 1)
        dtype, template = _layout(missing)
        where = np.flatnonzero(variants == variant)
        block = np.frombuffer(bytearray(template * len(where)), dtype=dtype)
        for name in dtype.names or ():
            block[name] = columns[name][where]
        for index, row in zip(where.tolist(), block.view(f"V{len(template)}").tolist(), strict=True):
            rows[index] = row
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
    row += _END
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(row)}), row
