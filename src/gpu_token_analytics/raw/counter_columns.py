"""Counters of engines in a batch as columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.ledger.money import Int64
from gpu_token_analytics.raw.columns import Columns
from gpu_token_analytics.raw.encoding import INT64, Number
from gpu_token_analytics.wire.counters import EngineCounters


def gpus_of(event: EngineCounters) -> tuple[str, ...]:
    """The GPUs it names, in their one spelling."""
    return tuple(event.gpus)


class CounterColumns(Columns[EngineCounters, tuple[str, ...]]):
    """Counters in the order they were read; their meaning is the GPUs they name."""

    ADDED = (Number("start_us", INT64, "<i8"),)

    @cached_property
    def start_us(self) -> Int64:
        """When each interval began. Shape (n,)."""
        length_us: Int64 = np.rint(self.numbers["interval_ms"] * 1000).astype(np.int64)
        return self.ts_us - length_us

    def added(self) -> Mapping[str, NDArray[Any]]:
        """As in Columns."""
        return {"start_us": self.start_us}
