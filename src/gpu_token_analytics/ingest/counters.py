"""What follows from counters of engines: where they run, and the cells that they can change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
import numpy as np

from gpu_token_analytics.ingest.kinds import KindShaper
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.ingest.touched import touch
from gpu_token_analytics.raw.columns import LabelBook
from gpu_token_analytics.raw.counter_columns import CounterColumns
from gpu_token_analytics.sources.instances import InstanceBook
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.times import to_us

NOBODY = ""  # in place of the tenant that named a GPU


class CounterShaper(KindShaper[EngineCounters, tuple[str, ...]]):
    """Counters get the GPUs of their instance's placement, and touch the cells of their time."""

    def __init__(
        self,
        book: LabelBook[EngineCounters, tuple[str, ...]],
        rate: LiveRate,
        gap_us: int,
        limits: Limits,
        placements: Callable[[], InstanceBook],
    ) -> None:
        """placements: those known now."""
        super().__init__(book, rate, gap_us, limits)
        self._placements = placements

    def columns(self, events: Sequence[EngineCounters]) -> CounterColumns:
        """As in KindShaper; where an engine runs is said here, once, as for requests at their door
        (decision 43)."""
        placements = self._placements()
        return CounterColumns([placed(event, placements, event.ts) for event in events], self._book)

    def follow(self, columns: CounterColumns, shaped: Shaped) -> None:
        """As in KindShaper: the cells they touch."""
        for names in columns.table:
            for gpu in names.meaning:
                shaped.named.setdefault(gpu, NOBODY)
        named = columns.meanings
        times_us = columns.start_us, columns.ts_us, columns.ts_us
        touch(shaped, named, np.asarray(columns.codes), times_us, self._limits.batch_cells)


def placed(event: EngineCounters, placements: InstanceBook, at: datetime) -> EngineCounters:
    """`event` with the GPUs and the model that the placement of its instance says at a time, where
    it does not say them."""
    if event.gpu_uuids and event.model:
        return event
    row = placements.at([event.instance], to_us(at))
    if row is None:
        return event
    gpus = event.gpu_uuids or list(row.gpus)
    return msgspec.structs.replace(event, gpu_uuids=gpus, model=event.model or row.model)
