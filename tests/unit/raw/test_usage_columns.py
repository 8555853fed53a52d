"""Documents encoded for a whole batch, against the same documents made plainly, one by one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.raw_documents import usage_document

from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.columns import LabelBook
from gpu_token_analytics.raw.encoding import five_digits
from gpu_token_analytics.raw.usage_columns import UsageColumns, labels_of
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.fields import MAX_LATENCY_MS, MAX_TOKENS
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

STORED = datetime(2026, 2, 1, 12, 0, 0, 123_456, tzinfo=UTC)
LONGEST_ID, LONGEST_LABEL = "\U0001f600" * 64, "\U0001f600" * 256  # 4 bytes a character


def _text(most: int) -> st.SearchStrategy[str]:
    return st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=most
    )


_tokens = st.integers(0, MAX_TOKENS)
_ms = st.none() | st.floats(0, MAX_LATENCY_MS)
_rate = st.none() | st.floats(0, 1e12)
_gpus = st.lists(st.sampled_from(["GPU-a", "GPU-b", "h/0", "\u00e9"]), max_size=3)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Any request; numbers that no client would send together, too."""
    gpus = draw(_gpus)
    return TokenUsage(
        event_id=draw(_text(64)),
        ts=draw(
            st.datetimes(
                datetime(2015, 1, 1),  # noqa: DTZ001  # the zones follow
                datetime(2100, 1, 1),  # noqa: DTZ001
                timezones=st.sampled_from(
                    [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9))]
                ),
            )
        ),
        host=draw(st.sampled_from(["vm1", "\u540d"])),
        model=draw(st.sampled_from(["m", "n"])),
        request_id=draw(_text(256)),
        prompt_tokens=draw(_tokens),
        completion_tokens=draw(_tokens),
        gpu_uuids=gpus,
        gpu_index=draw(st.integers(0, 4095))
        if not gpus
        else draw(st.none() | st.integers(0, 4095)),
        tenant=draw(st.sampled_from(["default", "t"])),
        cached_tokens=draw(_tokens),
        reasoning_tokens=draw(_tokens),
        latency_ms=draw(_ms),
        queue_ms=draw(_ms),
        ttft_ms=draw(_ms),
        finish_reason=draw(st.none() | st.sampled_from(["stop", "length"])),
    )


def encoded(
    events: Sequence[TokenUsage], tps: Sequence[float | None], costs: Sequence[float | None]
) -> list[dict[str, Any]]:
    values = [encode(event) for event in events]
    sources = [f"tokens/0/{index}" for index in range(len(events))]
    known_tps, known_costs = (np.array(numbers, dtype=np.float64) for numbers in (tps, costs))
    documents = EncodedDocuments()
    columns = UsageColumns(events, LabelBook(USAGE, labels_of))
    columns.encode(
        documents, values, sources, STORED, {"tps": known_tps, "cost_per_token": known_costs}
    )
    assert [len(part) for part in (documents.ids, documents.hashes, documents.lengths)] == [
        len(events)
    ] * 3
    return documents.decoded()


@given(st.lists(st.tuples(usages(), _rate, _rate), min_size=1, max_size=12))
def test_each_document_is_what_it_would_be_alone(
    rows: list[tuple[TokenUsage, float | None, float | None]],
) -> None:
    """Of any mixture of what is known and what is not, in any order."""
    events, tps, costs = zip(*rows, strict=True)
    expected = [
        {
            **usage_document(event, encode(event), STORED, f"tokens/0/{index}"),
            "tps": rate,
            "cost_per_token": cost,
        }
        for index, (event, rate, cost) in enumerate(rows)
    ]
    assert encoded(events, tps, costs) == expected


@given(st.lists(usages(), min_size=1, max_size=12))
def test_requests_read_back_are_the_requests_that_are_remembered(events: list[TokenUsage]) -> None:
    """What closing takes from memory and what it reads: the first token, too, which stands in no
    document."""
    remembered = UsageColumns(events, LabelBook(USAGE, labels_of)).rows
    read = UsageRows.of(encoded(events, [None] * len(events), [None] * len(events)))
    for name in (field.name for field in fields(UsageRows) if field.name not in ("ids", "labels")):
        assert getattr(read, name).tolist() == getattr(remembered, name).tolist(), name
    assert [read.labels.at(place) for place in range(len(read))] == [
        remembered.labels.at(at) for at in range(len(events))
    ]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e12))
def test_an_estimate_keeps_five_digits_and_is_short(estimate: float) -> None:
    (kept,) = five_digits(np.array([estimate]))
    assert abs(kept - estimate) <= estimate * 2**-17
    assert struct.pack(">d", kept)[-4:] == b"\0\0\0\0", "four bytes of eight say nothing"


def test_an_estimate_that_is_not_known_stays_so() -> None:
    assert np.isnan(five_digits(np.array([np.nan, np.nan]))).all()
    assert five_digits(np.array([0.0, np.inf])).tolist() == [0.0, np.inf]


def test_the_longest_names_that_the_contract_allows() -> None:
    event = TokenUsage(
        event_id=LONGEST_ID,
        ts=STORED,
        host="h" * 128,
        model=LONGEST_LABEL,
        request_id=LONGEST_LABEL,
        prompt_tokens=1,
        completion_tokens=1,
        gpu_uuids=[f"{number:0128}" for number in range(128)],
        tenant=LONGEST_LABEL,
        finish_reason=LONGEST_LABEL,
    )
    assert decode(encode(event)) == event, "the contract takes it"
    (found,) = encoded([event], [None], [None])
    assert (found["event_id"], found["request_id"], found["gpus"]) == (
        LONGEST_ID,
        LONGEST_LABEL,
        event.gpu_uuids,
    )


@pytest.mark.parametrize("year", [2015, 2026, 2037, 2060, 2100])
def test_times_are_exact_to_the_microsecond(year: int) -> None:
    """They come through a float of seconds."""
    begin = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    events = [
        TokenUsage(
            event_id="e",
            ts=begin.replace(microsecond=us),
            host="h",
            model="m",
            request_id="r",
            prompt_tokens=0,
            completion_tokens=0,
        )
        for us in range(0, 1_000_000, 997)
    ]
    second = int(begin.timestamp()) * 1_000_000
    assert UsageColumns(events, LabelBook(USAGE, labels_of)).ts_us.tolist() == [
        second + us for us in range(0, 1_000_000, 997)
    ]
