"""GPU samples of a batch as columns, and all their documents of `gpu_metrics` encoded at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from gpu_token_analytics.books.inventory import GpuDescription
from gpu_token_analytics.documents import payload_hash
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.columns import (
    DOUBLE,
    HASH,
    INGESTED_AT,
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
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.sample import GpuSample

LIVE_SOURCES = frozenset({"nvml", "nvidia-smi", "seed"})  # not "replay": nobody pays for a GPU of a trace by the clock

_FIELDS = GpuSample.__struct_fields__
_READINGS = ("utilization", "mem_used_mb", "mem_total_mb", "power_w", "temperature_c", "energy_j", "price_per_hour_usd")
_NUMBERS = (TS, TS_US, *(Number(name, DOUBLE, "<f8") for name in _READINGS), HASH, INGESTED_AT)


class DescriptionBook(Book[GpuSample, GpuDescription]):
    """The GPUs seen so far, as samples describe them."""

    def learn(self, event: GpuSample) -> tuple[GpuDescription, bytes]:
        """As in Book."""
        document = {
            "host": canonical_host(event.host),
            "gpu": event.gpu,
            "gpu_uuid": event.gpu_uuid,
            "gpu_index": event.gpu_index,
            "name": event.name,
            "source": event.source,
        }
        if event.parent_uuid is not None:
            document |= {"parent_uuid": canonical_gpu(event.parent_uuid), "mig_profile": event.mig_profile}
        return _described(event), label_elements(document)


def _key(event: GpuSample) -> Hashable:
    return event.gpu_uuid, event.host, event.gpu_index, event.name, event.source, event.mig_profile, event.parent_uuid


def _described(event: GpuSample) -> GpuDescription:
    return GpuDescription(
        gpu=event.gpu,
        has_uuid=event.gpu_uuid is not None,
        host=canonical_host(event.host),
        gpu_index=event.gpu_index,
        name=event.name,
        mig_profile=event.mig_profile,
        parent_uuid=None if event.parent_uuid is None else canonical_gpu(event.parent_uuid),
        source=event.source,
        live=event.source in LIVE_SOURCES,
    )


@dataclass(slots=True)
class SampleColumns:
    """Samples in the order they were read. All of length n, but for `table`."""

    events: Sequence[GpuSample]
    ids: Sequence[bytes]  # see wire/identity.py
    heads: Sequence[bytes]
    table: Sequence[GpuDescription]  # those that occur, each once
    codes: Int64  # which of `table` each sample has
    encoded_labels: list[bytes]
    ts_us: Int64
    readings: dict[str, Float64]  # by name; nan: not known

    @staticmethod
    def of(events: Sequence[GpuSample], book: DescriptionBook) -> SampleColumns:
        """The events' own fields."""
        fields = dict(zip(_FIELDS, zip(*map(astuple, events), strict=True), strict=True))
        codes = book.codes(events, map(_key, events))
        ids, heads = identify(map(canonical_host, fields["host"]), fields["event_id"])
        present, own_codes = np.unique(np.array(codes, dtype=np.int64), return_inverse=True)
        return SampleColumns(
            events=events,
            ids=ids,
            heads=heads,
            table=[book.entries[code] for code in present.tolist()],
            codes=own_codes,
            encoded_labels=[book.encoded[code] for code in codes],
            ts_us=times_us(fields["ts"]),
            readings={name: np.array(fields[name], dtype=np.float64) for name in _READINGS},  # None becomes nan
        )

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Whether each sample may break a rule between its fields: events.decode() knows. All others keep them."""
        whole = [
            (each.mig_profile is None) == (each.parent_uuid is None)
            and (each.mig_profile is None or (each.has_uuid and each.parent_uuid != each.gpu))
            for each in self.table
        ]
        used, total = self.readings["mem_used_mb"], self.readings["mem_total_mb"]
        fine = np.array(whole, dtype=np.bool_)[self.codes]
        fine &= (used <= total) | np.isnan(used) | np.isnan(total)
        doubtful: NDArray[np.bool_] = ~fine
        return doubtful

    @property
    def ledger_documents(self) -> list[dict[str, Any]]:
        """What the ledger reads of them: `_id` and documents.LEDGER_SAMPLE_FIELDS."""
        return [
            {
                "_id": name,
                "gpu": self.table[code].gpu,
                "ts_us": ts_us,
                "host": self.table[code].host,
                "name": event.name,
                "utilization": event.utilization,
                "mem_used_mb": event.mem_used_mb,
                "power_w": event.power_w,
                "energy_j": event.energy_j,
                "price_per_hour_usd": event.price_per_hour_usd,
            }
            for event, name, code, ts_us in zip(self.events, self.ids, self.codes.tolist(), self.ts_us.tolist(), strict=True)
        ]


def encode_samples(
    found: EncodedDocuments, samples: SampleColumns, values: Sequence[bytes], sources: Sequence[str], stored_at: datetime
) -> None:
    """One document of `gpu_metrics` for each sample, added to `found`.

    values: the records themselves (for `h`); sources: where each was read, `topic/partition/offset`. Lengths (n,).
    """
    hashes = list(map(payload_hash, values))
    columns = stored_columns(samples.ts_us, hashes, stored_at) | samples.readings
    encode_together(found, samples.ids, samples.heads, {"src": sources}, samples.encoded_labels, _NUMBERS, columns, hashes)
