"""GPU samples of a batch as columns, and what the ledger and the inventory need of them."""

from __future__ import annotations

from typing import Any, get_args

from gpu_token_analytics.books.sightings import GpuDescription
from gpu_token_analytics.documents import LEDGER_SAMPLE_FIELDS
from gpu_token_analytics.raw.columns import Columns
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.names import canonical_host
from gpu_token_analytics.wire.sample import GpuSample

# nobody pays for a GPU of a trace by the clock
LIVE_SOURCES = frozenset(get_args(Source)) - {"replay"}

# What each sample says itself of what the ledger reads.
_OWN = tuple(name for name in LEDGER_SAMPLE_FIELDS if name not in ("gpu", "ts_us", "host"))


def description_of(event: GpuSample) -> GpuDescription:
    """The GPU as a sample describes it."""
    return GpuDescription(
        gpu=event.gpu,
        has_uuid=event.has_uuid,
        host=canonical_host(event.host),
        gpu_index=event.gpu_index,
        name=event.name,
        mig_profile=event.mig_profile,
        parent_uuid=event.card,
        source=event.source,
        live=event.source in LIVE_SOURCES,
    )


class SampleColumns(Columns[GpuSample, GpuDescription]):
    """Samples in the order they were read."""

    @property
    def ledger_documents(self) -> list[dict[str, Any]]:
        """What the ledger reads of them: `_id` and documents.LEDGER_SAMPLE_FIELDS."""
        gpus = self.meanings
        return [
            {
                "_id": name,
                "gpu": gpus[code].gpu,
                "ts_us": ts_us,
                "host": gpus[code].host,
                **{field: getattr(event, field) for field in _OWN},
            }
            for event, name, code, ts_us in zip(
                self.events, self.ids, self.codes.tolist(), self.ts_us.tolist(), strict=True
            )
        ]
