"""Requests of a batch as columns, and all their documents of `token_usage` encoded at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from gpu_token_analytics.documents import LONG_REQUEST_US, payload_hash
from gpu_token_analytics.ledger.labels import LabelColumn, Labels
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.requests import UNKNOWN_US, UsageRows, objects
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.columns import (
    BOOLEAN,
    DOUBLE,
    HASH,
    INGESTED_AT,
    INT32,
    INT64,
    TS,
    TS_US,
    Book,
    Number,
    encode_together,
    label_elements,
    stored_columns,
    times_us,
)
from gpu_token_analytics.wire.identity import identify
from gpu_token_analytics.wire.names import canonical_host
from gpu_token_analytics.wire.usage import TokenUsage

_FIELDS = TokenUsage.__struct_fields__
_SHORT_LATENCY_MS = 3_600_000  # on however many GPUs, it touches fewer cells than events.MAX_CELLS


class LabelBook(Book[TokenUsage, Labels]):
    """The labels seen so far, as BSON with the reason why a request finished."""

    def learn(self, event: TokenUsage) -> tuple[Labels, bytes]:
        """As in Book."""
        document = {
            "host": canonical_host(event.host),
            "gpus": event.gpus,
            "model": event.model,
            "tenant": event.tenant,
            "finish_reason": event.finish_reason,
        }
        labels = Labels(canonical_host(event.host), tuple(event.gpus), event.model, event.tenant)
        return labels, label_elements(document)


def _key(event: TokenUsage) -> Hashable:
    names = event.gpu_uuids
    gpus = names[0] if len(names) == 1 else (event.gpu_index, *names)
    return event.host, gpus, event.model, event.tenant, event.finish_reason


@dataclass(slots=True)
class UsageColumns:
    """Requests in the order they were read. All of length n."""

    ids: Sequence[bytes]  # see wire/identity.py
    heads: Sequence[bytes]
    request_ids: Sequence[str]
    labels: LabelColumn
    encoded_labels: list[bytes]  # and the reason why it finished; after the end of the text before them
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
        ts_us = times_us(fields["ts"])
        active_us = np.rint((np.nan_to_num(latency_ms) - np.nan_to_num(queue_ms)) * 1000).astype(np.int64)
        to_end_us = np.rint(np.nan_to_num(latency_ms - ttft_ms) * 1000).astype(np.int64)
        codes = book.codes(events, map(_key, events))
        ids, heads = identify(fields["tenant"], fields["event_id"])
        return UsageColumns(
            ids=ids,
            heads=heads,
            request_ids=fields["request_id"],
            labels=LabelColumn(book.entries, np.array(codes, dtype=np.int64)).compact(),
            encoded_labels=[book.encoded[code] for code in codes],
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

    @property
    def rows(self) -> UsageRows:
        """What the ledger needs of them."""
        return UsageRows(
            ids=objects(self.ids),
            labels=self.labels,
            start_us=self.start_us,
            ts_us=self.ts_us,
            first_us=self.first_us,
            has_latency=~np.isnan(self.latency_ms),
            prompt=self.prompt_tokens,
            cached=self.cached_tokens,
            completion=self.completion_tokens,
            reasoning=self.reasoning_tokens,
        )

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Whether each request may break a rule between its fields: events.decode() knows. All others keep them."""
        by_uuid = self.labels.each(lambda labels: not any("/" in gpu for gpu in labels.gpus), np.bool_)
        by_label = self.labels.each(lambda labels: all("/" in gpu for gpu in labels.gpus), np.bool_)
        fine = by_uuid | by_label & ~np.isnan(self.gpu_index)  # else none may be named
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
    texts = {"request_id": usages.request_ids, "src": sources}
    encode_together(found, usages.ids, usages.heads, texts, usages.encoded_labels, _NUMBERS, columns, hashes)


_NUMBERS = (
    TS,
    TS_US,
    Number("start_us", INT64, "<i8"),
    Number("first_us", INT64, "<i8", absent=True),
    Number("prompt_tokens", INT32, "<i4"),
    Number("completion_tokens", INT32, "<i4"),
    Number("cached_tokens", INT32, "<i4"),
    Number("reasoning_tokens", INT32, "<i4"),
    Number("latency_ms", DOUBLE, "<f8"),
    Number("queue_ms", DOUBLE, "<f8"),
    Number("ttft_ms", DOUBLE, "<f8"),
    Number("gpu_index", INT32, "<i4", absent=True),
    Number("long", BOOLEAN, "<u1", absent=True),
    HASH,
    INGESTED_AT,
    Number("tokens", INT32, "<i4"),
    Number("tps", DOUBLE, "<f8"),
    Number("cost_per_token", DOUBLE, "<f8"),
)


def _numbers(usages: UsageColumns, hashes: Sequence[bytes], stored_at: datetime) -> dict[str, NDArray[Any]]:
    long = usages.ts_us - usages.start_us > LONG_REQUEST_US
    return stored_columns(usages.ts_us, hashes, stored_at) | {
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
        "tokens": usages.tokens,
    }
