"""Documents of samples encoded for a whole batch, against the same documents made plainly, one by
one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.raw_documents import sample_document

from gpu_token_analytics.books.sightings import GpuDescription
from gpu_token_analytics.documents import LEDGER_SAMPLE_FIELDS
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.columns import LabelBook
from gpu_token_analytics.raw.sample_columns import SampleColumns, description_of
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.sample import SAMPLE, GpuSample

STORED = datetime(2026, 2, 1, 12, 0, 0, 123_456, tzinfo=UTC)

_reading = st.none() | st.floats(0, 1e5)


@st.composite
def samples(draw: st.DrawFn) -> GpuSample:
    """Any sample; fields that no source would send together, too."""
    return GpuSample(
        event_id=draw(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
                min_size=1,
                max_size=64,
            )
        ),
        ts=draw(
            st.datetimes(
                datetime(2015, 1, 1),  # noqa: DTZ001  # the zones follow
                datetime(2100, 1, 1),  # noqa: DTZ001
                timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
            )
        ),
        host=draw(st.sampled_from(["vm1", "\u540d"])),
        gpu_index=draw(st.integers(0, 4095)),
        source=draw(st.sampled_from(["nvml", "replay"])),
        gpu_uuid=draw(st.none() | st.sampled_from(["GPU-a", "\u00e9"])),
        name=draw(st.none() | st.just("H100")),
        utilization=draw(st.none() | st.floats(0, 1)),
        mem_used_mb=draw(_reading),
        mem_total_mb=draw(_reading),
        power_w=draw(_reading),
        temperature_c=draw(_reading),
        energy_j=draw(_reading),
        price_per_hour_usd=draw(_reading),
        **draw(st.just({}) | st.just({"mig_profile": "3g.40gb", "parent_uuid": "GPU-b"})),
    )


def encoded(
    events: Sequence[GpuSample], book: LabelBook[GpuSample, GpuDescription]
) -> list[dict[str, Any]]:
    values = [encode(event) for event in events]
    columns = SampleColumns(events, book)
    documents = EncodedDocuments()
    columns.encode(
        documents, values, [f"tokens/0/{index}" for index in range(len(events))], STORED, {}
    )
    assert [len(part) for part in (documents.ids, documents.hashes, documents.lengths)] == [
        len(events)
    ] * 3
    found = documents.decoded()
    read = ("_id", *LEDGER_SAMPLE_FIELDS)
    assert columns.ledger_documents == [
        {name: document[name] for name in read} for document in found
    ], "as if read back"
    return found


@given(st.lists(st.lists(samples(), min_size=1, max_size=8), min_size=1, max_size=3))
def test_each_document_is_what_it_would_be_alone(batches: list[list[GpuSample]]) -> None:
    """Of any mixture of what is known and what is not, in any order."""
    book = LabelBook(SAMPLE, description_of)
    for events in batches:
        expected = [
            sample_document(event, encode(event), STORED, f"tokens/0/{index}")
            for index, event in enumerate(events)
        ]
        assert encoded(events, book) == expected


def test_descriptions_are_forgotten_when_they_are_too_many() -> None:
    book = LabelBook(SAMPLE, description_of, most_bytes=200)
    for number in range(6):
        event = GpuSample(event_id="e", ts=STORED, host=f"h{number}", gpu_index=0, source="nvml")
        assert encoded([event], book) == [
            sample_document(event, encode(event), STORED, "tokens/0/0")
        ]
        assert len(book) <= 3
