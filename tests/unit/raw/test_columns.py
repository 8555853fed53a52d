"""Events of any kind as columns: a rule is the same for one and for many, and a kind that is new
needs nothing of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.raw.test_sample_columns import samples
from tests.unit.raw.test_usage_columns import usages

from gpu_token_analytics.documents import payload_hash
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shape import shaper_of
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.raw.columns import Columns, LabelBook
from gpu_token_analytics.wire.events import kind_of
from gpu_token_analytics.wire.fields import GpuUuid, Label, Ratio, TokenCount
from gpu_token_analytics.wire.kind import Event, Kind, PartOf, Touches
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

STORED = datetime(2026, 2, 1, 12, tzinfo=UTC)


class Counters(
    Event,
    tag_field="schema",
    tag="engine.metrics.v1",
    kw_only=True,
    frozen=True,
    omit_defaults=True,
    gc=False,
):
    """Counters of an engine: no kind of the product, as one would be added."""

    engine: Label
    note: Label
    running: TokenCount
    waiting: TokenCount | None = None
    cache_used: Ratio | None = None


COUNTERS = Kind(
    Counters,
    collection="engine_metrics",
    labels=("host", "engine"),
    document=lambda event: {"host": event.host, "engine": event.engine},
    texts=("note",),
    rules=(PartOf("waiting", "running"),),
)


def breaks_a_rule(event: Event) -> bool:
    try:
        kind_of(event).check(event)
    except InvalidRecord:
        return True
    return False


def doubtful(events: list[Any]) -> list[bool]:
    found: list[bool] = Columns(
        events, LabelBook(kind_of(events[0]), lambda _event: None)
    ).doubtful.tolist()
    return found


@given(st.lists(usages(), min_size=1, max_size=8))
def test_a_rule_of_requests_is_the_same_for_one_and_for_many(events: list[TokenUsage]) -> None:
    assert doubtful(events) == [breaks_a_rule(event) for event in events]


@given(st.lists(samples(), min_size=1, max_size=8))
def test_a_rule_of_samples_is_the_same_for_one_and_for_many(events: list[GpuSample]) -> None:
    assert doubtful(events) == [breaks_a_rule(event) for event in events]


def test_a_new_kind_is_stored_without_a_line_of_its_own() -> None:
    events = [
        Counters(
            event_id="a",
            ts=STORED,
            host="h",
            engine="vllm",
            note="x",
            running=3,
            waiting=2,
            cache_used=0.5,
        ),
        Counters(event_id="b", ts=STORED, host="h", engine="vllm", note="y", running=3),
        Counters(
            event_id="c", ts=STORED, host="h", engine="sglang", note="z", running=3, waiting=4
        ),
    ]
    columns = Columns(events, LabelBook(COUNTERS, lambda _event: None))
    documents = EncodedDocuments()
    columns.encode(documents, [b"1", b"2", b"3"], ["t/0/1", "t/0/2", "t/0/3"], STORED, {})
    at = STORED.replace(tzinfo=None)
    common = {
        "ts": at,
        "ts_us": 1_769_947_200_000_000,
        "ingested_at": at,
        "host": "h",
        "running": 3,
    }
    first, second, third = documents.decoded()
    assert first == common | {
        "_id": COUNTERS.raw_id(events[0]),
        "event_id": "a",
        "note": "x",
        "src": "t/0/1",
        "engine": "vllm",
        "waiting": 2,
        "cache_used": 0.5,
        "h": payload_hash(b"1"),
    }
    assert (second["waiting"], second["cache_used"], third["engine"]) == (None, None, "sglang")
    assert columns.doubtful.tolist() == [False, False, True], "more wait than run"


def test_a_kind_that_touches_cells_has_to_say_which() -> None:
    class Touching(Event, tag_field="schema", tag="x.v1", kw_only=True, frozen=True):
        gpu: GpuUuid

    kind = Kind(Touching, collection="x", labels=("host", "gpu"), touches=Touches("gpu"))
    with pytest.raises(TypeError, match=r"x\.v1 touches cells"):
        shaper_of(kind, LiveRate(30, 1.0), 1, Limits())
