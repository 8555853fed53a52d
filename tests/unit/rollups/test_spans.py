"""Buckets and spans: DST, odd offsets, and no minute lost or read twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.rollups.spans import (
    LENGTH,
    Grain,
    Step,
    bucket_start,
    buckets,
    runs,
    spans,
    zone,
)

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_a_day_of_the_clock_change_has_23_or_25_hours() -> None:
    spring = list(buckets(at("2026-03-28T23:00Z"), at("2026-03-30T22:00Z"), Step.DAY, BERLIN))
    assert [(end - start) // timedelta(hours=1) for start, end in spring] == [23, 24]
    autumn = list(buckets(at("2026-10-24T22:00Z"), at("2026-10-25T23:00Z"), Step.DAY, BERLIN))
    assert [(end - start) // timedelta(hours=1) for start, end in autumn] == [25]


def test_the_repeated_hour_is_two_buckets_with_different_offsets() -> None:
    found = list(buckets(at("2026-10-25T00:00Z"), at("2026-10-25T02:00Z"), Step.HOUR, BERLIN))
    labels = [bucket_start(start, Step.HOUR, BERLIN).isoformat() for start, _ in found]
    assert labels == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("Europe/Berlin", "2026-10-25T01:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00Z"),  # half an hour back, within an hour
        ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
        ("Pacific/Chatham", "2026-04-04T14:00Z"),  # an hour back, at a quarter to
        ("Pacific/Chatham", "2026-09-26T14:00Z"),
        ("Antarctica/Casey", "2022-10-01T16:01Z"),  # three hours on, a minute past
        ("Asia/Pyongyang", "2015-08-14T15:00Z"),
    ],
)
@pytest.mark.parametrize("step", [Step.HOUR, Step.DAY])
def test_a_bucket_is_named_by_its_own_start_and_no_two_alike(
    name: str, around: str, step: Step
) -> None:
    """Where a clock change begins an hour, too."""
    tz, middle = ZoneInfo(name), at(around)
    found = list(buckets(middle - timedelta(hours=60), middle + timedelta(hours=60), step, tz))
    for start, end in found[1:]:
        for inside in (start, end - timedelta(minutes=1)):
            assert bucket_start(inside, step, tz).astimezone(UTC) == start
    labels = [bucket_start(start, step, tz).isoformat() for start, _ in found]
    assert len(set(labels)) == len(labels)


def test_hours_of_a_half_hour_zone_start_within_utc_hours() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    found = list(buckets(at("2026-01-31T12:00Z"), at("2026-01-31T14:00Z"), Step.HOUR, kolkata))
    assert [start.minute for start, _ in found] == [0, 30, 30]
    assert bucket_start(found[0][0], Step.HOUR, kolkata).isoformat() == "2026-01-31T17:00:00+05:30"
    pieces = [piece for start, end in found for piece in spans(start, end)]
    assert [(piece.grain, piece.units) for piece in runs(iter(pieces))] == [(Grain.HALF_HOURS, 4)]


def test_a_range_is_cut_into_the_coarsest_grains() -> None:
    found = list(spans(at("2026-01-30T22:58Z"), at("2026-02-02T01:01Z")))
    assert [(piece.grain, piece.units) for piece in found] == [
        (Grain.MINUTES, 2),
        (Grain.HOURS, 1),
        (Grain.DAYS, 2),
        (Grain.HOURS, 1),
        (Grain.MINUTES, 1),
    ]


def test_ranges_on_any_minute_read_half_an_hour_of_cells_at_most() -> None:
    found = list(spans(at("2026-01-30T10:17Z"), at("2026-01-30T12:47Z")))
    assert [(piece.grain, piece.units) for piece in found] == [
        (Grain.MINUTES, 13),
        (Grain.HALF_HOURS, 1),
        (Grain.HOURS, 1),
        (Grain.HALF_HOURS, 1),
        (Grain.MINUTES, 17),
    ]


def test_neighbouring_spans_are_one_query() -> None:
    start, end = at("2026-01-01T23:00Z"), at("2026-01-31T23:00Z")
    found = list(
        runs(
            piece
            for low, high in buckets(start, end, Step.DAY, BERLIN)
            for piece in spans(low, high)
        )
    )
    assert [(piece.grain, piece.units) for piece in found] == [(Grain.HOURS, 720)]


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../etc/passwd", "", "UTC\0"])
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="time_zone="):
        zone(name)


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
]
FIRST = datetime(2017, 1, 1, tzinfo=UTC)


@given(
    st.integers(0, 10 * 365 * 1440).map(lambda minutes: FIRST + timedelta(minutes=minutes)),
    st.integers(1, 5 * 1440),
    st.sampled_from([Step.NONE, Step.HOUR, Step.DAY]),
    st.sampled_from(ZONES),
)
def test_buckets_and_spans_cover_every_minute_once(
    start: datetime, minutes: int, step: Step, name: str
) -> None:
    end = start + timedelta(minutes=minutes)
    tz = ZoneInfo(name)
    reached = start
    for low, high in buckets(start, end, step, tz):
        assert low == reached < high
        for piece in spans(low, high):
            assert piece.start == reached
            assert piece.start + piece.units * LENGTH[piece.grain] == piece.end
            reached = piece.end
        if step is Step.DAY:
            assert low.astimezone(tz).date() == (high - timedelta(minutes=1)).astimezone(tz).date()
    assert reached == end
