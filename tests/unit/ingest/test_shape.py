"""Ingest's pure steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpu_token_analytics.books.sightings import GpuDescription
from gpu_token_analytics.documents import US_PER_MINUTE, payload_hash
from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.ingest.bad_share import BAD_RECORD_WINDOW, BadRecordShare
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.ingest.shaped import Shaped, refused_letters
from gpu_token_analytics.kafka.records import NO_BROKER_TIME, DeadLetter, RecordBatch
from gpu_token_analytics.wire.identity import raw_id
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

MINUTE = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NOW = MINUTE + timedelta(hours=1)


class _Message:
    def key(self) -> bytes:
        return b"vm1"


def batch(values: Sequence[bytes | None], broker_ms: int = NO_BROKER_TIME) -> RecordBatch:
    count = len(values)
    return RecordBatch(
        "tokens",
        list(values),
        [3] * count,
        list(range(10, 10 + count)),
        [broker_ms] * count,
        {},
        [_Message()] * count,  # type: ignore[list-item]
    )


def usage(number: int = 0, **fields: Any) -> TokenUsage:
    given: dict[str, Any] = {
        "event_id": f"u{number}",
        "ts": MINUTE + timedelta(seconds=30),
        "host": "vm1",
        "model": "m",
        "request_id": f"r{number}",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "gpu_uuids": ["GPU-a"],
    }
    return TokenUsage(**{**given, **fields})


def sample(number: int = 0, **fields: Any) -> GpuSample:
    given: dict[str, Any] = {
        "event_id": f"s{number}",
        "ts": MINUTE + timedelta(seconds=30),
        "host": "vm1",
        "gpu_index": 0,
        "gpu_uuid": "GPU-a",
        "name": "A100",
        "source": "nvml",
    }
    return GpuSample(**{**given, **fields})


def shape(*events: Event, gap: int = 20) -> Shaped:
    records = batch([encode(event) for event in events])
    return Shaper(LiveRate(30, 3.6), gap).shape(records, NOW)


def minutes(shaped: Shaped) -> set[tuple[str, int]]:
    return {(gpu, (at - to_us(MINUTE)) // US_PER_MINUTE) for gpu, at in shaped.touched}


def test_a_document_says_where_it_was_read_and_carries_the_live_rate() -> None:
    shaped = shape(usage(), usage(1))
    assert shaped.raws[USAGE].records == [0, 1]
    first = shaped.raws[USAGE].documents.decoded()[0]
    assert (first["_id"], first["event_id"]) == (raw_id("default", "u0"), "u0")
    assert first["src"] == "tokens/3/10"
    assert first["tokens"] == 120
    assert first["tps"] == 4.0
    assert first["cost_per_token"] == pytest.approx(3.6 / (4 * 3600), rel=1e-5)
    assert first["ts"] == (MINUTE + timedelta(seconds=30)).replace(tzinfo=None), (
        "BSON dates are UTC"
    )
    assert first["ingested_at"] == NOW.replace(tzinfo=None)
    assert first["h"] == payload_hash(encode(usage()))
    assert shaped.tokens_by_model == {"m": 240}


def test_another_zone_is_stored_as_the_same_instant() -> None:
    value = encode(usage()).replace(b"12:00:30Z", b"14:00:30+02:00")
    records = batch([value])
    shaped = Shaper(LiveRate(30, 1.0), 20).shape(records, NOW)
    (document,) = shaped.raws[USAGE].documents.decoded()
    assert document["ts"] == (MINUTE + timedelta(seconds=30)).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("end_seconds", "latency_ms", "touched"),
    [
        (30, 1000.0, {0}),
        (30, 31_000.0, {-1, 0}),
        (30, 150_000.0, {-3, -2, -1, 0}),
        # from the gap limit after the border to the gap limit before the next one
        (40, 20_000.0, {0}),
        (40, 20_001.0, {-1, 0}),
        (41, 20_000.0, {0, 1}),
        (40, 0.0, {0}),
        (41, 0.0, {0, 1}),
        (60, 1000.0, {0, 1}),  # a sample interval over the border is both minutes'
        (30, None, {-1, 0, 1}),  # all of its minute, and what is around that
        (60, None, {0, 1, 2}),
    ],
)
def test_a_request_touches_the_minutes_around_its_time(
    end_seconds: int, latency_ms: float | None, touched: set[int]
) -> None:
    """The gap limit is 20 s here: a sample interval that it is active in can reach as far."""
    shaped = shape(usage(ts=MINUTE + timedelta(seconds=end_seconds), latency_ms=latency_ms))
    assert minutes(shaped) == {("GPU-a", minute) for minute in touched}


def test_waiting_in_a_queue_touches_nothing() -> None:
    shaped = shape(usage(latency_ms=90_000.0, queue_ms=80_000.0))
    assert minutes(shaped) == {("GPU-a", 0)}


def test_all_gpus_of_a_request_are_touched_and_labels_are_left_for_the_inventory() -> None:
    shaped = shape(
        usage(gpu_uuids=["GPU-b", "GPU-a"]), usage(1, gpu_uuids=[], gpu_index=2, latency_ms=1000.0)
    )
    assert minutes(shaped) == {
        (gpu, minute) for gpu in ("GPU-a", "GPU-b") for minute in (-1, 0, 1)
    }, "no latency is known"
    end_us = to_us(MINUTE) + 30_000_000
    assert shaped.labelled == {("vm1/2", end_us - 21_000_000, end_us + 20_000_000, end_us)}


def test_a_sample_touches_the_time_it_speaks_for_on_its_card_too() -> None:
    assert minutes(shape(sample())) == {("GPU-a", 0)}
    assert minutes(shape(sample(ts=MINUTE + timedelta(seconds=5)))) == {("GPU-a", -1), ("GPU-a", 0)}
    assert minutes(shape(sample(ts=MINUTE + timedelta(seconds=40)))) == {("GPU-a", 0)}, (
        "half open: not the next minute"
    )
    assert minutes(shape(sample(ts=MINUTE + timedelta(seconds=41)))) == {("GPU-a", 0), ("GPU-a", 1)}
    slice_ = sample(gpu_uuid="MIG-1", mig_profile="3g.40gb", parent_uuid="GPU-a")
    assert minutes(shape(slice_)) == {("MIG-1", 0), ("GPU-a", 0)}


def test_sightings_are_one_per_description_in_whole_minutes() -> None:
    start, later = to_us(MINUTE), MINUTE + timedelta(seconds=130)
    shaped = shape(
        sample(),
        sample(1, ts=later),
        sample(2, name="H100", ts=later),
        sample(3, source="replay", gpu_uuid=None),
    )
    found = {
        (s.description.gpu, s.description.name, s.description.live): s[1:]
        for s in shaped.sightings()
    }
    assert found == {
        ("GPU-a", "A100", True): (start, start + 3 * US_PER_MINUTE - 1),
        ("GPU-a", "H100", True): (start + 2 * US_PER_MINUTE, start + 3 * US_PER_MINUTE - 1),
        ("vm1/0", "A100", False): (start, start + US_PER_MINUTE - 1),
    }
    assert [s.last_us for s in shaped.sightings()] == sorted(s.last_us for s in shaped.sightings())


def test_only_what_is_new_to_the_inventory_is_written() -> None:
    shaper = Shaper(LiveRate(30, 1.0), 20)

    def seen(*samples: GpuSample) -> list[tuple[int, int]]:
        records = batch([encode(item) for item in samples])
        shaped = shaper.shape(records, NOW)
        zero = to_us(MINUTE)
        return [
            ((s.first_us - zero) // US_PER_MINUTE, (s.last_us - zero) // US_PER_MINUTE)
            for s in shaped.sightings()
        ]

    assert seen(sample()) == [(0, 0)]
    assert seen(sample(1), sample(2, ts=MINUTE)) == [], "the same minute"
    assert seen(sample(3, ts=MINUTE + timedelta(seconds=60))) == [(1, 1)]
    assert seen(sample(4, ts=MINUTE - timedelta(seconds=1))) == [(-1, -1)], "earlier than known"
    assert seen(sample(5), sample(6, ts=MINUTE - timedelta(seconds=30))) == []
    assert seen(sample(7, name="H100")) == [(0, 0)], "described differently"
    assert seen(sample(8, ts=MINUTE + timedelta(minutes=5)), sample(9)) == [(0, 5)]


@pytest.mark.parametrize(
    ("has_uuid", "mig_profile", "placement"),
    [(True, None, "vm1/0"), (False, None, None), (True, "1g.10gb", None)],
)
def test_only_a_whole_gpu_with_a_uuid_takes_a_label(
    has_uuid: bool, mig_profile: str | None, placement: str | None
) -> None:
    described = GpuDescription("g", has_uuid, "vm1", 0, None, mig_profile, None, "nvml", True)
    assert described.placement == placement


def test_bad_records_become_letters_with_their_place_and_bytes() -> None:
    records = batch([encode(usage()), b"not json", None])
    shaped = Shaper(LiveRate(30, 1.0), 20).shape(records, NOW)
    assert [(letter.reason, letter.at, letter.key, letter.value) for letter in shaped.letters] == [
        ("not_json", "3/11", b"vm1", b"not json"),
        ("empty", "3/12", b"vm1", None),
    ]
    assert len(shaped.raws[USAGE].documents) == 1


def test_what_the_store_refuses_becomes_a_letter_of_the_right_record() -> None:
    records = batch([b"not json", encode(usage()), encode(usage(1))])
    shaped = Shaper(LiveRate(30, 1.0), 20).shape(records, NOW)
    (letter,) = refused_letters(shaped, shaped.raws[USAGE], Reason.ID_CONFLICT, {1: "taken"})
    assert (letter.at, letter.reason, letter.message) == ("3/12", "id_conflict", "taken")


def test_ahead_of_time_is_measured_on_the_brokers_clock_where_it_is_known() -> None:
    ahead = encode(usage(ts=NOW + timedelta(minutes=6)))
    shaper = Shaper(LiveRate(30, 1.0), 20)
    (letter,) = shaper.shape(batch([ahead]), NOW).letters
    assert letter.reason == Reason.FUTURE_TS
    broker_ms = int((NOW + timedelta(minutes=2)).timestamp() * 1000)
    assert len(shaper.shape(batch([ahead], broker_ms), NOW).raws[USAGE].documents) == 1


def _see(share: BadRecordShare, good: int, bad: int) -> None:
    events: list[Event | InvalidRecord] = [
        *[usage()] * good,
        *[InvalidRecord(Reason.NOT_JSON, "x")] * bad,
    ]
    letter = DeadLetter("tokens", 1, 2, "not_json", "x", None, None, b"x")
    share.see(events, [letter] * min(bad, 1))


def test_the_share_of_bad_records_is_that_of_full_windows() -> None:
    share = BadRecordShare(0.2)
    _see(share, 0, BAD_RECORD_WINDOW - 1)
    before = share.ratio, share.warning
    _see(share, 0, 1)
    assert (before, share.ratio) == ((0.0, None), 1.0)
    for part in (
        "1000 of the last 1,000 records are bad",
        "tokens 1/2: not_json",
        "dead-letters list",
    ):
        assert part in str(share.warning)


def test_the_share_of_bad_records_forgets_and_is_quiet_at_its_limit() -> None:
    share, quiet = BadRecordShare(0.2), BadRecordShare(1.0)
    warned = []
    for good, bad in ((800, 200), (0, 1), (1000, 0)):
        _see(share, good, bad)
        warned.append(share.warning is not None)
    assert (warned, share.ratio) == ([False, True, False], 0.0)
    _see(quiet, 0, 5000)
    assert quiet.warning is None


def test_what_reaches_too_far_for_its_batch_is_marked_later_and_what_is_near_is_not() -> None:
    """20 requests of an hour on ten GPUs each, and a short one after them."""
    far = [
        usage(n, latency_ms=3_600_000.0, gpu_uuids=[f"GPU-{n}-{part}" for part in range(10)])
        for n in range(20)
    ]
    records = batch([encode(event) for event in [*far, usage(20, latency_ms=1000.0)]])
    shaped = Shaper(LiveRate(30, 3.6), 20, Limits(batch_cells=1300)).shape(records, NOW)
    assert len(shaped.touched) == shaped.reached == 1 + 2 * 610
    assert ("GPU-a", to_us(MINUTE)) in shaped.touched
    assert len(shaped.pending) == 18
    assert {len(reach.names) for reach in shaped.pending} == {10}
    assert len(shaped.raws[USAGE].documents) == 21, "every event is stored"


def test_many_requests_of_the_same_minutes_reach_no_further_than_one() -> None:
    records = batch(
        [encode(usage(n, gpu_uuids=[f"GPU-{part}" for part in range(8)])) for n in range(500)]
    )
    shaped = Shaper(LiveRate(30, 3.6), 20, Limits(batch_cells=30)).shape(records, NOW)
    assert (len(shaped.touched), shaped.pending) == (24, set())


@pytest.mark.parametrize(
    ("fields", "field", "setting"),
    [
        ({"gpu_uuids": ["a", "b", "c"]}, "gpu_uuids", "REQUEST_MAX_GPUS"),
        ({"latency_ms": 600_001.0}, "latency_ms", "REQUEST_MAX_MINUTES"),
    ],
)
def test_an_installation_may_allow_less_than_the_contract(
    fields: dict[str, Any], field: str, setting: str
) -> None:
    good = usage(1, latency_ms=600_000.0, gpu_uuids=["a", "b"])
    shaper = Shaper(LiveRate(30, 3.6), 20, Limits(request_minutes=10, request_gpus=2))
    shaped = shaper.shape(batch([encode(usage(0, **fields)), encode(good)]), NOW)
    (letter,) = shaped.letters
    assert (letter.reason, letter.field) == (Reason.OUT_OF_RANGE, field)
    assert setting in letter.message
    assert len(shaped.raws[USAGE].documents) == 1


@pytest.mark.parametrize("value", [b'"x"', b'"a\\b"', b"1"])
def test_unknown_fields_are_counted_however_their_record_is_read(value: bytes) -> None:
    good, one, two = (encode(usage(n)) for n in range(3))
    one = one[:-1] + b',"tennant":' + value + b"}"
    two = two[:-1] + b',"tennant":' + value + b',"latency":3}'
    shaped = shape_values([good, one, two])
    assert (shaped.unknown_fields, len(shaped.raws[USAGE].documents), shaped.letters) == (3, 3, [])


def shape_values(values: Sequence[bytes]) -> Shaped:
    return Shaper(LiveRate(30, 3.6), 20).shape(batch(values), NOW)
