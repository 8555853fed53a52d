"""A batch on its way through ingest: what is to be written of it, and the letters for what is no
event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpu_token_analytics.books.sightings import GpuDescription, Sighting
from gpu_token_analytics.documents import GpuMinute
from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.kafka.records import DeadLetter, RecordBatch
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.reach import Reach
from gpu_token_analytics.wire.kind import Kind


@dataclass(slots=True)
class Raws:
    """Documents of one collection, and the index of the record each came from."""

    documents: EncodedDocuments = field(default_factory=EncodedDocuments)
    records: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Shaped:
    """A batch ready to be written."""

    records: RecordBatch
    raws: Mapping[Kind[Any], Raws]  # by every kind there is
    rows: list[UsageRows] = field(default_factory=list)  # the requests again, as closing needs them
    sampled: list[dict[str, Any]] = field(default_factory=list)  # and the samples
    touched: set[GpuMinute] = field(default_factory=set)
    # Label, [start_us, end_us) of the cells that a request can change which named it, and when that
    # ended.
    labelled: set[tuple[str, int, int, int]] = field(default_factory=set)
    reached: int = 0  # cells that its requests touch, those of labels included
    # of requests that reach further than a batch may: marked later
    pending: set[Reach] = field(default_factory=set)
    # what requests called their GPUs -> a tenant that did
    named: dict[str, str] = field(default_factory=dict)
    # the minutes its samples reach over
    seen: dict[GpuDescription, tuple[int, int]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    event_us: list[int] = field(default_factory=list)
    unknown_fields: int = 0  # in its records: left out
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    cost_per_token_by_model: dict[str, float] = field(default_factory=dict)

    def shares_ids(self, other: Shaped) -> bool:
        """Whether an event here has the id of one there."""
        return not all(
            set(raws.documents.ids).isdisjoint(other.raws[kind].documents.ids)
            for kind, raws in self.raws.items()
        )

    def sightings(self) -> list[Sighting]:
        """What the samples say about their GPUs, oldest first."""
        sightings = [
            Sighting(described, first_us, last_us)
            for described, (first_us, last_us) in self.seen.items()
        ]
        return sorted(sightings, key=lambda sighting: sighting.last_us)


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


def refused_letters(
    shaped: Shaped, raws: Raws, reason: Reason, messages: dict[int, str]
) -> list[DeadLetter]:
    """Letters for documents (by index into `raws`) that the store would not take."""
    return [
        dead_letter(shaped.records, raws.records[index], InvalidRecord(reason, message, "event_id"))
        for index, message in messages.items()
    ]
