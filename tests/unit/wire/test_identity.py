"""What raw events are stored under: their owner's own, in order of time where the id says it, and
never changed."""

from __future__ import annotations

from uuid import UUID

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.raw_documents import identity

from gpu_token_analytics.wire.identity import ID_BYTES, identify, new_event_id, raw_id

_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=64
)
_ids = st.one_of(_texts, st.uuids().map(str), st.uuids().map(lambda uuid: str(uuid).upper()))
SEVENTH = "019ad0e7-1c00-7abc-8def-0123456789ab"


@given(_texts, _ids)
def test_it_is_what_the_plain_way_says(owner: str, event_id: str) -> None:
    found = raw_id(owner, event_id)
    assert found == identity(owner, event_id)
    assert len(found) == ID_BYTES


def test_many_of_version_7_are_what_each_is_alone() -> None:
    events = [(f"tenant-{number % 3}", new_event_id()) for number in range(100)]
    ids, heads = identify([owner for owner, _ in events], [event_id for _, event_id in events])
    assert ids == [identity(owner, event_id) for owner, event_id in events]
    assert [str(UUID(bytes=bson.decode(_document(head))["event_id"])) for head in heads] == [
        each for _, each in events
    ]


@given(
    st.lists(
        st.tuples(_texts, _ids | st.text("0123456789abcdefg-A", min_size=36, max_size=36)),
        max_size=12,
    )
)
def test_many_together_are_what_each_is_alone(events: list[tuple[str, str]]) -> None:
    ids, heads = identify([owner for owner, _ in events], [event_id for _, event_id in events])
    assert ids == [identity(owner, event_id) for owner, event_id in events]
    assert heads == [identify([owner], [event_id])[1][0] for owner, event_id in events]
    shown = [bson.decode(_document(head))["event_id"] for head in heads]
    assert [found if isinstance(found, str) else str(UUID(bytes=found)) for found in shown] == [
        each for _, each in events
    ]


def _document(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\x00"


@pytest.mark.parametrize(
    ("owner", "event_id", "expected"),
    [
        ("default", "chatcmpl-0001", "d93107cf85c6060ec3f28197af7910e6"),
        ("a", SEVENTH, "019ad0e71c0057ef9c3aed850c4dab24"),
    ],
)
def test_stored_ids_stay_what_they_are(owner: str, event_id: str, expected: str) -> None:
    """Another identity for the same event would store it a second time."""
    assert raw_id(owner, event_id).hex() == expected


@given(_texts, _texts, _ids, _ids)
def test_owner_and_id_both_count(owner: str, other: str, event_id: str, another: str) -> None:
    assert (raw_id(owner, event_id) == raw_id(other, another)) == (
        (owner, event_id) == (other, another)
    )


@pytest.mark.parametrize(
    "pair",
    [(("a", "b/c"), ("a/b", "c")), (("ab", "c"), ("a", "bc")), (("a", SEVENTH), ("b", SEVENTH))],
)
def test_nothing_runs_together(pair: tuple[tuple[str, str], tuple[str, str]]) -> None:
    assert raw_id(*pair[0]) != raw_id(*pair[1])


def test_live_ids_come_in_order_of_time() -> None:
    times = [f"{1_764_418_000_000 + number:012x}" for number in range(50)]
    ids = [f"{time_ms[:8]}-{time_ms[8:]}{SEVENTH[13:]}" for time_ms in times]
    moments = [raw_id(f"tenant-{number % 3}", event_id) for number, event_id in enumerate(ids)]
    assert moments == sorted(moments)
