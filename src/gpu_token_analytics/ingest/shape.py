"""Ingest's pure steps: records in, what has to be written out. No client, no clock, no environment
in here.

step 2   records -> events, and dead letters for what is none
step 3   events -> raw documents with their live rate, cells touched
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from gpu_token_analytics.books.sightings import GpuDescription
from gpu_token_analytics.documents import US_PER_SECOND
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.ingest.bad_share import BadRecordShare
from gpu_token_analytics.ingest.counters import CounterShaper
from gpu_token_analytics.ingest.kinds import KindShaper, Sources
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.reading import ReadRecords, read_many
from gpu_token_analytics.ingest.samples import SampleShaper
from gpu_token_analytics.ingest.shaped import Raws, Shaped, dead_letter
from gpu_token_analytics.ingest.usages import UsageShaper
from gpu_token_analytics.kafka.records import NO_BROKER_TIME, RecordBatch
from gpu_token_analytics.raw.columns import Columns, LabelBook
from gpu_token_analytics.raw.counter_columns import gpus_of
from gpu_token_analytics.raw.sample_columns import description_of
from gpu_token_analytics.raw.usage_columns import labels_of
from gpu_token_analytics.sources.instances import InstanceBook
from gpu_token_analytics.wire.counters import COUNTERS
from gpu_token_analytics.wire.events import (
    KINDS,
    MAX_AHEAD_SECONDS,
    decode_or_error,
    unknown_fields,
)
from gpu_token_analytics.wire.kind import Event, Kind
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.times import EARLIEST_TS, to_us
from gpu_token_analytics.wire.usage import USAGE

_SLICE_RECORDS = 1000
_EARLIEST_US = to_us(EARLIEST_TS)
MAX_KNOWN_GPUS = 50_000


def shaper_of(
    kind: Kind[Any],
    rate: LiveRate,
    gap_us: int,
    limits: Limits,
    placements: Callable[[], InstanceBook] = InstanceBook,
) -> KindShaper[Any, Any]:
    """What ingest does with events of a kind. Of one that is not named here they are stored, and
    nothing follows from them."""
    if kind is USAGE:
        return UsageShaper(LabelBook(USAGE, labels_of), rate, gap_us, limits)
    if kind is SAMPLE:
        return SampleShaper(LabelBook(SAMPLE, description_of), rate, gap_us, limits)
    if kind is COUNTERS:
        return CounterShaper(LabelBook(COUNTERS, gpus_of), rate, gap_us, limits, placements)
    if kind.touches is not None:
        raise TypeError(f"{kind.tag} touches cells: name here who says which")
    return KindShaper(LabelBook(kind, lambda _event: None), rate, gap_us, limits)


class Shaper:
    """Turns events into what is written. Keeps the live rate and what the inventory knows; for one
    thread."""

    def __init__(
        self,
        live_rate: LiveRate,
        sample_gap_seconds: int,
        limits: Limits | None = None,
        placements: Callable[[], InstanceBook] = InstanceBook,
    ) -> None:
        """placements: on which GPUs engines run, as far as it is known now."""
        self._known: dict[GpuDescription, tuple[int, int]] = {}
        self._limits = limits or Limits()
        gap_us = sample_gap_seconds * US_PER_SECOND
        self._shapers = [
            shaper_of(kind, live_rate, gap_us, self._limits, placements) for kind in KINDS
        ]

    def shape(
        self, records: RecordBatch, now: datetime, share: BadRecordShare | None = None
    ) -> Shaped:
        """The batch, ready to be written; `now` becomes `ingested_at`. share: takes note of what is
        bad.

        It goes through in slices: what belongs to one is still in the processor's cache from one
        step to the next.
        """
        shaped = Shaped(records, {kind: Raws() for kind in KINDS})
        prefix = [
            f"{records.topic}/{number}/"
            for number in range(max(records.partitions, default=-1) + 1)
        ]
        sources = [
            f"{prefix[partition]}{offset}"
            for partition, offset in zip(records.partitions, records.offsets, strict=True)
        ]
        for start in range(0, len(records), _SLICE_RECORDS):
            events = self._slice(shaped, start, sources, now)
            if share is not None:
                share.see(events, shaped.letters)
        self._leave_out_known(shaped)
        return shaped

    def _slice(
        self, shaped: Shaped, start: int, sources: Sequence[str], now: datetime
    ) -> list[Event | InvalidRecord]:
        records = shaped.records
        broker_ms = records.broker_ms[start : start + _SLICE_RECORDS]
        if NO_BROKER_TIME in broker_ms:
            now_ms = int(now.timestamp() * 1000)
            broker_ms = [now_ms if at == NO_BROKER_TIME else at for at in broker_ms]
        values = records.values[start : start + _SLICE_RECORDS]
        records_read = read_many(values, broker_ms)
        events = records_read.events
        if self._limits.narrow:
            events[:] = map(self._limits.judge, events)
        unknown: dict[int, int] = {}
        kinds = []
        for shaper in self._shapers:
            columns, places = _columns(shaper, records_read, values, broker_ms, unknown)
            if columns is not None:
                shaper.learn(columns)  # before any document is made
                kinds.append(
                    (shaper, columns, Sources([start + index for index in places], sources))
                )
        shaped.unknown_fields += sum(unknown.values())
        if sum(len(columns) for _, columns, _ in kinds) < len(events):
            bad = [
                (index, event)
                for index, event in enumerate(events, start)
                if isinstance(event, InvalidRecord)
            ]
            shaped.letters += [dead_letter(records, index, error) for index, error in bad]
        for shaper, columns, sources_of_kind in kinds:
            shaper.shape(columns, shaped, sources_of_kind, now)
        return events

    def _leave_out_known(self, shaped: Shaped) -> None:
        """Times are whole minutes, so most batches tell the inventory nothing new. What is left in
        counts as written: the writer writes it before the batch is committed, or this process
        ends."""
        if len(self._known) > MAX_KNOWN_GPUS:
            self._known.clear()  # forgetting costs a write, nothing else
        for described, (first_us, last_us) in list(shaped.seen.items()):
            known_first, known_last = self._known.get(described, (first_us, -1))
            if known_first <= first_us and last_us <= known_last:
                del shaped.seen[described]
            else:
                self._known[described] = (min(first_us, known_first), max(last_us, known_last))


def _columns(
    shaper: KindShaper[Any, Any],
    read: ReadRecords,
    values: Sequence[bytes | None],
    broker_ms: Sequence[int],
    unknown: dict[int, int],
) -> tuple[Columns[Any, Any] | None, list[int]]:
    """The events of one kind, and their places. One that is no good record is replaced by its
    error, one with float noise by the event without. unknown: takes the number of unknown fields of
    the records that have any, by place."""
    events, struct = read.events, shaper.kind.struct
    places = [index for index, event in enumerate(events) if type(event) is struct]
    if not places:
        return None, places
    columns = shaper.columns([events[index] for index in places])
    latest_us = min(broker_ms) * 1000 + MAX_AHEAD_SECONDS * US_PER_SECOND
    untimely = (columns.ts_us < _EARLIEST_US) | (columns.ts_us > latest_us)
    doubtful = read.unlike[places] | columns.doubtful | untimely
    for index in [places[at] for at in np.flatnonzero(read.judged[places]).tolist()]:
        _count_unknown(unknown, index, events[index], values[index])
    again = False
    for index in [places[at] for at in np.flatnonzero(doubtful).tolist()]:
        judged = decode_or_error(values[index], broker_ms[index])
        _count_unknown(unknown, index, judged, values[index])
        # bad, or without float noise: not what the columns were made of
        again = again or judged != events[index]
        events[index] = judged
    return _columns(shaper, read, values, broker_ms, unknown) if again else (columns, places)


def _count_unknown(
    unknown: dict[int, int], index: int, event: Event | InvalidRecord, value: bytes | None
) -> None:
    if (
        not isinstance(event, InvalidRecord)
        and value is not None
        and (names := unknown_fields(event, value))
    ):
        unknown[index] = len(names)
