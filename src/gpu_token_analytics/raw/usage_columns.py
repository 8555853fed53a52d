"""Requests of a batch as columns: the times that follow from what each says, and what the ledger
needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.documents import LONG_REQUEST_US
from gpu_token_analytics.ledger.labels import LabelColumn, Labels, LabelTable
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.requests import UNKNOWN_US, UsageRows, objects
from gpu_token_analytics.raw.columns import Columns
from gpu_token_analytics.raw.encoding import BOOLEAN, DOUBLE, INT32, INT64, Number
from gpu_token_analytics.wire.names import canonical_host
from gpu_token_analytics.wire.usage import TokenUsage


def labels_of(event: TokenUsage) -> Labels:
    """Its labels as the ledger knows them."""
    return Labels(canonical_host(event.host), tuple(event.gpus), event.model, event.tenant)


class UsageColumns(Columns[TokenUsage, Labels]):
    """Requests in the order they were read. All of length n."""

    ADDED = (
        Number("start_us", INT64, "<i8"),
        Number("long", BOOLEAN, "<u1", absent=True),
        Number("tokens", INT32, "<i4"),
        Number("tps", DOUBLE, "<f8"),
        Number("cost_per_token", DOUBLE, "<f8"),
        # in which it was stored, as the number of PERIOD_US since 1970
        Number("period", INT32, "<i4"),
    )

    @cached_property
    def labels(self) -> LabelColumn:
        """Host, GPUs, model and tenant of each."""
        return LabelColumn(LabelTable(self.meanings), self.codes)

    @cached_property
    def start_us(self) -> Int64:
        """When each began to use its GPUs (end - latency + queue); its end when no latency is
        known."""
        active_ms = np.nan_to_num(self._latency_ms) - np.nan_to_num(self.numbers["queue_ms"])
        active_us: Int64 = np.maximum(np.rint(active_ms * 1000).astype(np.int64), 0)
        return self.ts_us - active_us

    @cached_property
    def first_us(self) -> Int64:
        """The first token of each; UNKNOWN_US: not known."""
        to_end_ms = self._latency_ms - self.numbers["ttft_ms"]
        to_end_us = np.rint(np.nan_to_num(to_end_ms) * 1000).astype(np.int64)
        return np.where(np.isnan(to_end_ms), UNKNOWN_US, self.ts_us - to_end_us)

    @property
    def tokens(self) -> Int64:
        """Prompt and completion. Shape (n,)."""
        tokens: Int64 = self.numbers["prompt_tokens"] + self.numbers["completion_tokens"]
        return tokens

    @property
    def _latency_ms(self) -> Float64:
        return self.numbers["latency_ms"]

    @cached_property
    def rows(self) -> UsageRows:
        """What the ledger needs of them."""
        return UsageRows(
            ids=objects(self.ids),
            labels=self.labels,
            start_us=self.start_us,
            ts_us=self.ts_us,
            first_us=self.first_us,
            has_latency=~np.isnan(self._latency_ms),
            prompt=self.numbers["prompt_tokens"],
            cached=self.numbers["cached_tokens"],
            completion=self.numbers["completion_tokens"],
            reasoning=self.numbers["reasoning_tokens"],
        )

    def added(self) -> Mapping[str, NDArray[Any]]:
        """As in Columns."""
        long = self.ts_us - self.start_us > LONG_REQUEST_US
        return {
            "start_us": self.start_us,
            "long": np.where(long, 1.0, np.nan),
            "tokens": self.tokens,
        }
