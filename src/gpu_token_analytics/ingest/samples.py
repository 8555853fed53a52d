"""What follows from samples: prices of the live rate, sightings for the inventory, and the cells
they speak of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_token_analytics.books.sightings import GpuDescription
from gpu_token_analytics.documents import US_PER_MINUTE, minute_of
from gpu_token_analytics.ingest.kinds import KindShaper
from gpu_token_analytics.ingest.reach import minutes_met
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.raw.sample_columns import SampleColumns
from gpu_token_analytics.wire.sample import GpuSample


class SampleShaper(KindShaper[GpuSample, GpuDescription]):
    """Samples: they tell of their GPUs, and touch the cells they speak of."""

    def columns(self, events: Sequence[GpuSample]) -> SampleColumns:
        """As in KindShaper."""
        return SampleColumns(events, self._book)

    def learn(self, columns: SampleColumns) -> None:
        """As in KindShaper: which GPUs there are, and the last price of each."""
        last = {code: index for index, code in enumerate(columns.codes.tolist())}
        for code, index in sorted(last.items(), key=lambda item: item[1]):
            described = columns.meanings[code]
            self._rate.see_gpu(described.gpu, described.placement)
            self._rate.see_price(
                described.gpu, columns.events[index].price_per_hour_usd, described.mig_profile
            )

    def follow(self, columns: SampleColumns, shaped: Shaped) -> None:
        """As in KindShaper: what they say of GPUs, and the cells they touch."""
        shaped.sampled += columns.ledger_documents
        _see(shaped.seen, columns)
        # It speaks for the time since the sample before and until the next one, at most the gap
        # limit each.
        for code, minute_us in minutes_met(
            columns.codes, columns.ts_us - self._gap_us, columns.ts_us + self._gap_us
        ):
            described = columns.meanings[code]
            shaped.touched.add((described.gpu, minute_us))
            if described.parent_uuid is not None:
                shaped.touched.add((described.parent_uuid, minute_us))


def _see(seen: dict[GpuDescription, tuple[int, int]], samples: SampleColumns) -> None:
    first = np.full(len(samples.meanings), np.iinfo(np.int64).max)
    last = np.zeros(len(samples.meanings), dtype=np.int64)
    np.minimum.at(first, samples.codes, samples.ts_us)
    np.maximum.at(last, samples.codes, samples.ts_us)
    for described, first_us, last_us in zip(
        samples.meanings, first.tolist(), last.tolist(), strict=True
    ):
        minute_us, end_us = minute_of(first_us), minute_of(last_us) + US_PER_MINUTE - 1
        known_first, known_last = seen.get(described, (minute_us, end_us))
        seen[described] = (min(known_first, minute_us), max(known_last, end_us))
