"""Ingest's pure steps: records in, what has to be written out. No client, no clock, no environment in here.

step 2   records -> events, and dead letters for what is none
step 3   events -> raw documents with their live rate, cells touched
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.books.inventory import GpuDescription, Sighting
from gpu_token_analytics.cells.marks import Cell
from gpu_token_analytics.documents import US_PER_MINUTE, US_PER_SECOND, minute_of
from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.reading import ReadRecords, read_many
from gpu_token_analytics.kafka import DeadLetter, RecordBatch
from gpu_token_analytics.kafka.consumer import NO_BROKER_TIME
from gpu_token_analytics.ledger.arrays import sum_by
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.requests import UsageRows, active_span
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.pending_marks import Reach
from gpu_token_analytics.raw.sample_columns import DescriptionBook, SampleColumns, encode_samples
from gpu_token_analytics.raw.usage_columns import LabelBook, UsageColumns, encode_usages
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.events import EARLIEST_TS, MAX_AHEAD_SECONDS, decode_or_error, unknown_fields
from gpu_token_analytics.wire.fields import MAX_GPUS, MAX_LATENCY_MS
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage, refused_reach

BAD_RECORD_WINDOW = 1000
_SLICE_RECORDS = 1000
_EARLIEST_US = to_us(EARLIEST_TS)
MAX_KNOWN_GPUS = 50_000
MAX_MINUTES = MAX_LATENCY_MS // 60_000


@dataclass(frozen=True)
class Limits:
    """What one record, and one batch, may reach."""

    batch_cells: int = 30_000
    request_minutes: int = MAX_MINUTES
    request_gpus: int = MAX_GPUS

    @staticmethod
    def of(settings: Settings) -> Limits:
        """The limits these settings make."""
        return Limits(settings.batch_max_cells, settings.request_max_minutes, settings.request_max_gpus)

    @property
    def narrow(self) -> bool:
        """Whether any record that the contract allows is refused."""
        return self.request_minutes < MAX_MINUTES or self.request_gpus < MAX_GPUS

    def judge(self, event: Event | InvalidRecord) -> Event | InvalidRecord:
        """The event, or why it is a bad record here."""
        if isinstance(event, InvalidRecord):
            return event
        return refused_reach(event, self.request_minutes, self.request_gpus) or event


@dataclass(slots=True)
class Raws:
    """Documents of one collection, and the index of the record each came from."""

    documents: EncodedDocuments = field(default_factory=EncodedDocuments)
    records: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Shaped:
    """A batch ready to be written."""

    records: RecordBatch
    usages: Raws = field(default_factory=Raws)
    samples: Raws = field(default_factory=Raws)
    rows: list[UsageRows] = field(default_factory=list)  # the usages again, as closing needs them
    sampled: list[dict[str, Any]] = field(default_factory=list)  # and the samples
    touched: set[Cell] = field(default_factory=set)
    # Label, [start_us, end_us) of the cells that a request can change which named it, and when that ended.
    labelled: set[tuple[str, int, int, int]] = field(default_factory=set)
    reached: int = 0  # cells that its requests touch, those of labels included
    pending: set[Reach] = field(default_factory=set)  # of requests that reach further than a batch may: marked later
    named: dict[str, str] = field(default_factory=dict)  # what requests called their GPUs -> a tenant that did
    seen: dict[GpuDescription, tuple[int, int]] = field(default_factory=dict)  # the minutes its samples reach over
    letters: list[DeadLetter] = field(default_factory=list)
    event_us: list[int] = field(default_factory=list)
    unknown_fields: int = 0  # in its records: left out
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    cost_per_token_by_model: dict[str, float] = field(default_factory=dict)

    def shares_ids(self, other: Shaped) -> bool:
        """Whether an event here has the id of one there."""
        of_one_kind = ((self.usages, other.usages), (self.samples, other.samples))
        return not all(set(here.documents.ids).isdisjoint(there.documents.ids) for here, there in of_one_kind)

    def sightings(self) -> list[Sighting]:
        """What the samples say about their GPUs, oldest first."""
        found = [Sighting(described, first_us, last_us) for described, (first_us, last_us) in self.seen.items()]
        return sorted(found, key=lambda sighting: sighting.last_us)


def dead_letter(records: RecordBatch, index: int, error: InvalidRecord) -> DeadLetter:
    """The letter for one record."""
    return DeadLetter(
        topic=records.topic,
        partition=records.partitions[index],
        offset=records.offsets[index],
        reason=error.reason.value,
        message=str(error),
        field=error.field,
        key=records.key(index),
        value=records.values[index],
    )


class BadRecordShare:
    """How many of the last BAD_RECORD_WINDOW records are bad. Past the limit it warns - a broken producer, a wrong topic - and
    stops nobody: bad records are in the dead letters, and the good ones between them are other people's (decision 26)."""

    def __init__(self, limit_ratio: float) -> None:
        self._limit = limit_ratio
        self._last: deque[bool] = deque(maxlen=BAD_RECORD_WINDOW)
        self.warning: str | None = None  # while the share is past the limit; another thread may read it

    @property
    def ratio(self) -> float:
        """Of the last full window; 0 before, so that a few bad records after a start are no alarm."""
        return sum(self._last) / BAD_RECORD_WINDOW if len(self._last) == BAD_RECORD_WINDOW else 0.0

    def see(self, events: Sequence[Event | InvalidRecord], letters: Sequence[DeadLetter]) -> None:
        """Take note of a batch, or a part of it."""
        self._last.extend([isinstance(event, InvalidRecord) for event in events] if letters else [False] * len(events))
        if self.ratio <= self._limit:
            self.warning = None
        elif letters:
            last = letters[-1]
            self.warning = (
                f"{sum(self._last)} of the last {BAD_RECORD_WINDOW:,} records are bad "
                f"(BAD_RECORD_LIMIT_RATIO={self._limit:g}), such as "
                f"{last.topic} {last.at}: {last.reason}: {last.message}. They are in the dead letters; "
                "`gpu-tokens dead-letters list` shows them: repair the producer that sends them"
            )


class Shaper:
    """Turns events into what is written. Keeps the live rate and what the inventory knows; for one thread."""

    def __init__(self, live_rate: LiveRate, sample_gap_seconds: int, limits: Limits | None = None) -> None:
        self._known: dict[GpuDescription, tuple[int, int]] = {}
        self._rate = live_rate
        self._gap_us = sample_gap_seconds * US_PER_SECOND
        self._limits = limits or Limits()
        self._labels = LabelBook()
        self._descriptions = DescriptionBook()

    def shape(self, records: RecordBatch, now: datetime, share: BadRecordShare | None = None) -> Shaped:
        """The batch, ready to be written; `now` becomes `ingested_at`. share: takes note of what is bad.

        It goes through in slices: what belongs to one is still in the processor's cache from one step to the next.
        """
        shaped = Shaped(records)
        prefix = [f"{records.topic}/{number}/" for number in range(max(records.partitions, default=-1) + 1)]
        sources = [
            f"{prefix[partition]}{offset}" for partition, offset in zip(records.partitions, records.offsets, strict=True)
        ]
        for start in range(0, len(records), _SLICE_RECORDS):
            events = self._slice(shaped, start, sources, now)
            if share is not None:
                share.see(events, shaped.letters)
        self._leave_out_known(shaped)
        return shaped

    def _slice(self, shaped: Shaped, start: int, sources: Sequence[str], now: datetime) -> list[Event | InvalidRecord]:
        records = shaped.records
        broker_ms = records.broker_ms[start : start + _SLICE_RECORDS]
        if NO_BROKER_TIME in broker_ms:
            now_ms = int(now.timestamp() * 1000)
            broker_ms = [now_ms if at == NO_BROKER_TIME else at for at in broker_ms]
        values = records.values[start : start + _SLICE_RECORDS]
        found = read_many(values, broker_ms)
        if self._limits.narrow:
            found.events[:] = map(self._limits.judge, found.events)
        unknown: dict[int, int] = {}
        usages, usage_places = _columns(
            found, values, broker_ms, TokenUsage, unknown, lambda events: UsageColumns.of(events, self._labels)
        )
        samples, sample_places = _columns(
            found, values, broker_ms, GpuSample, unknown, lambda events: SampleColumns.of(events, self._descriptions)
        )
        shaped.unknown_fields += sum(unknown.values())
        events = found.events
        if len(usage_places) + len(sample_places) < len(events):
            bad = [(place, event) for place, event in enumerate(events, start) if isinstance(event, InvalidRecord)]
            shaped.letters += [dead_letter(records, place, error) for place, error in bad]
        if samples is not None:  # before requests, whose live cost is by the prices that these name
            self._samples(shaped, samples, [start + place for place in sample_places], sources, now)
        if usages is not None:
            self._usages(shaped, usages, [start + place for place in usage_places], sources, now)
        return events

    def _leave_out_known(self, shaped: Shaped) -> None:
        """Times are whole minutes, so most batches tell the inventory nothing new. What is left in counts as written: the
        writer writes it before the batch is committed, or this process ends."""
        if len(self._known) > MAX_KNOWN_GPUS:
            self._known.clear()  # forgetting costs a write, nothing else
        for described, (first_us, last_us) in list(shaped.seen.items()):
            known_first, known_last = self._known.get(described, (first_us, -1))
            if known_first <= first_us and last_us <= known_last:
                del shaped.seen[described]
            else:
                self._known[described] = (min(first_us, known_first), max(last_us, known_last))

    def _usages(
        self, shaped: Shaped, usages: UsageColumns, where: Sequence[int], sources: Sequence[str], now: datetime
    ) -> None:
        values = [shaped.records.values[index] for index in where]
        tps, cost_per_token_usd = self._rate.see_usages(usages.labels, usages.ts_us, usages.tokens)
        encode_usages(
            shaped.usages.documents,
            usages,
            values,  # type: ignore[arg-type]  # a record that is an event has a value
            [sources[index] for index in where],
            tps,
            cost_per_token_usd,
            now,
        )
        shaped.usages.records += where
        shaped.rows.append(usages.rows)
        shaped.event_us += usages.ts_us.tolist()
        _count(shaped, usages, cost_per_token_usd)
        _touch(shaped, usages, self._gap_us, self._limits.batch_cells)

    def _samples(
        self, shaped: Shaped, samples: SampleColumns, where: Sequence[int], sources: Sequence[str], now: datetime
    ) -> None:
        values = [shaped.records.values[index] for index in where]
        encode_samples(
            shaped.samples.documents,
            samples,
            values,  # type: ignore[arg-type]  # a record that is an event has a value
            [sources[index] for index in where],
            now,
        )
        shaped.samples.records += where
        shaped.sampled += samples.ledger_documents
        shaped.event_us += samples.ts_us.tolist()
        last = {code: place for place, code in enumerate(samples.codes.tolist())}
        for code, place in sorted(last.items(), key=lambda item: item[1]):
            described = samples.table[code]
            self._rate.see_gpu(described.gpu, described.placement)
            self._rate.see_price(described.gpu, samples.events[place].price_per_hour_usd, described.mig_profile)
        _see(shaped.seen, samples)
        # It speaks for the time since the sample before and until the next one, at most the gap limit each.
        for code, minute_us in _minutes(samples.codes, samples.ts_us - self._gap_us, samples.ts_us + self._gap_us):
            described = samples.table[code]
            shaped.touched.add((described.gpu, minute_us))
            if described.parent_uuid is not None:
                shaped.touched.add((described.parent_uuid, minute_us))


class _Columns(Protocol):
    ts_us: Int64

    @property
    def doubtful(self) -> NDArray[np.bool_]: ...


_E = TypeVar("_E", TokenUsage, GpuSample)
_C = TypeVar("_C", bound=_Columns)


def _columns(
    found: ReadRecords,
    values: Sequence[bytes | None],
    broker_ms: Sequence[int],
    kind: type[_E],
    unknown: dict[int, int],
    columns_of: Callable[[Sequence[_E]], _C],
) -> tuple[_C | None, list[int]]:
    """The events of one kind, and their places. One that is no good record is replaced by its error, one with float noise by
    the event without. unknown: takes the number of unknown fields of the records that have any, by place."""
    events = found.events
    places = [place for place, event in enumerate(events) if type(event) is kind]
    if not places:
        return None, places
    columns = columns_of([events[place] for place in places])  # type: ignore[misc]  # each is of that kind
    latest_us = min(broker_ms) * 1000 + MAX_AHEAD_SECONDS * US_PER_SECOND
    untimely = (columns.ts_us < _EARLIEST_US) | (columns.ts_us > latest_us)
    doubtful = found.unlike[places] | columns.doubtful | untimely
    for place in [places[at] for at in np.flatnonzero(found.judged[places]).tolist()]:
        _count_unknown(unknown, place, events[place], values[place])
    again = False
    for place in [places[at] for at in np.flatnonzero(doubtful).tolist()]:
        judged = decode_or_error(values[place], broker_ms[place])
        _count_unknown(unknown, place, judged, values[place])
        again = again or judged != events[place]  # bad, or without float noise: not what the columns were made of
        events[place] = judged
    return _columns(found, values, broker_ms, kind, unknown, columns_of) if again else (columns, places)


def _count_unknown(unknown: dict[int, int], place: int, event: Event | InvalidRecord, value: bytes | None) -> None:
    if not isinstance(event, InvalidRecord) and value is not None and (names := unknown_fields(event, value)):
        unknown[place] = len(names)


def _count(shaped: Shaped, usages: UsageColumns, cost_per_token_usd: Float64) -> None:
    """Tokens by model, and what one costs at the moment."""
    models: dict[str, int] = {}
    model = usages.labels.each(lambda labels: models.setdefault(labels.model, len(models)), np.int64)
    for name, tokens in zip(models, sum_by(model, usages.tokens, len(models)).tolist(), strict=True):
        shaped.tokens_by_model[name] = shaped.tokens_by_model.get(name, 0) + tokens
    names, known = list(models), np.flatnonzero(~np.isnan(cost_per_token_usd))[::-1]
    last, where = np.unique(model[known], return_index=True)
    for code, usd in zip(last.tolist(), cost_per_token_usd[known][where].tolist(), strict=True):
        shaped.cost_per_token_by_model[names[code]] = usd


def _touch(shaped: Shaped, usages: UsageColumns, gap_us: int, most_cells: int) -> None:
    """The cells that requests can change, and the labels they named instead of a GPU."""
    gpus: dict[tuple[str, ...], int] = {}
    code = usages.labels.each(lambda labels: gpus.setdefault(labels.gpus, len(gpus)), np.int64)
    named = list(gpus)
    sizes = np.array([len(names) for names in named], dtype=np.int64)
    for labels in usages.labels.table:
        for gpu in labels.gpus:
            shaped.named.setdefault(gpu, labels.tenant)
    active_from, active_until = active_span(usages.rows, US_PER_MINUTE)
    # What samples say of an interval depends on the requests in all of it, and a cell may hold a part of it (unmetered.py).
    start_us, end_us, ended_us = active_from - gap_us, active_until + gap_us, usages.ts_us
    keys = list(_minutes(code, start_us, end_us))
    if shaped.reached + sum(len(named[each]) for each, _ in keys) > most_cells:
        near = _nearest(code, start_us, end_us, sizes, most_cells - shaped.reached)
        for index in np.flatnonzero(~near).tolist():
            shaped.pending.add(Reach(named[code[index]], int(start_us[index]), int(end_us[index]), int(ended_us[index])))
        code, start_us, end_us, ended_us = code[near], start_us[near], end_us[near], ended_us[near]
        keys = list(_minutes(code, start_us, end_us))
    before = len(shaped.touched)
    for each, minute_us in keys:
        shaped.touched.update((gpu, minute_us) for gpu in named[each] if "/" not in gpu)
    shaped.reached += len(shaped.touched) - before
    by_label = np.array([any("/" in gpu for gpu in names) for names in named], dtype=bool)
    shaped.reached += sum(len(named[each]) for each, _ in keys if by_label[each])
    for index in np.flatnonzero(by_label[code]).tolist():
        span = int(start_us[index]), int(end_us[index]), int(ended_us[index])
        shaped.labelled.update((gpu, *span) for gpu in named[code[index]] if "/" in gpu)


def _nearest(code: Int64, start_us: Int64, end_us: Int64, sizes: Int64, most_cells: int) -> NDArray[np.bool_]:
    """Which requests touch no more cells than that together, those that touch few before those that touch many. sizes: GPUs of
    each code."""
    first = start_us // US_PER_MINUTE
    last = (np.maximum(end_us, start_us + 1) - 1) // US_PER_MINUTE
    reaches, where = np.unique(np.stack([code, first, last]), axis=1, return_inverse=True)
    cells = (reaches[2] - reaches[1] + 1) * sizes[reaches[0]]
    order = np.argsort(cells, kind="stable")
    fits = np.zeros(len(cells), dtype=bool)
    fits[order] = np.cumsum(cells[order]) <= most_cells
    near: NDArray[np.bool_] = fits[where.reshape(-1)]
    return near


def _minutes(codes: Int64, start_us: Int64, end_us: Int64) -> Iterator[tuple[int, int]]:
    """Each (code, start of a minute in microseconds) that one of [start, end) meets, once; as documents.touched_minutes()."""
    first = start_us // US_PER_MINUTE
    last = (np.maximum(end_us, start_us + 1) - 1) // US_PER_MINUTE
    count = last - first + 1
    minute = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
    for key in np.unique(np.repeat(codes, count) << 32 | minute).tolist():  # minutes since 1970 are far below 2^32
        yield key >> 32, (key & 0xFFFF_FFFF) * US_PER_MINUTE


def _see(seen: dict[GpuDescription, tuple[int, int]], samples: SampleColumns) -> None:
    first = np.full(len(samples.table), np.iinfo(np.int64).max)
    last = np.zeros(len(samples.table), dtype=np.int64)
    np.minimum.at(first, samples.codes, samples.ts_us)
    np.maximum.at(last, samples.codes, samples.ts_us)
    for described, first_us, last_us in zip(samples.table, first.tolist(), last.tolist(), strict=True):
        minute_us, end_us = minute_of(first_us), minute_of(last_us) + US_PER_MINUTE - 1
        known_first, known_last = seen.get(described, (minute_us, end_us))
        seen[described] = (min(known_first, minute_us), max(known_last, end_us))


def refused_letters(shaped: Shaped, raws: Raws, reason: Reason, messages: dict[int, str]) -> list[DeadLetter]:
    """Letters for documents (by index into `raws`) that the store would not take."""
    return [
        dead_letter(shaped.records, raws.records[index], InvalidRecord(reason, message, "event_id"))
        for index, message in messages.items()
    ]
