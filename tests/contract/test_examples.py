"""Every example record is read, or refused for the reason it names, alone and among others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import example as with_example
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.example_records import Example, load

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.events import MAX_AHEAD_SECONDS, MAX_RECORD_BYTES, decode
from gpu_token_analytics.wire.fields import MAX_GPUS
from gpu_token_analytics.wire.json_schemas import json_schemas
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import EARLIEST_TS
from gpu_token_analytics.wire.usage import TokenUsage

SHARED = Path(
    os.environ.get("GPU_TOKENS_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
)
GOOD, BAD = load("good"), load("bad")
NOW = datetime(2026, 2, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)

_US, _AHEAD = timedelta(microseconds=1), timedelta(seconds=MAX_AHEAD_SECONDS)
_PLAIN: dict[str, Any] = {
    "host": "h",
    "model": "m",
    "request_id": "r",
    "prompt_tokens": 100,
    "completion_tokens": 100,
    "gpu_uuids": ["GPU-a"],
    "latency_ms": 100.0,
    "ts": NOW,
}


_NO_KEY: Any = SimpleNamespace(key=lambda: None)  # a message, as far as a dead letter asks it


def by_name(example: Example) -> str:
    return example.name


@pytest.mark.parametrize("example", GOOD, ids=by_name)
def test_good_records_are_read(example: Example) -> None:
    event = decode(example.value, NOW)
    found: dict[str, Any] = {name: getattr(event, name) for name in example.case["expect"]}
    if "ts" in found:
        found["ts"] = found["ts"].astimezone(UTC).isoformat()
    assert found == example.case["expect"]


@pytest.mark.parametrize("example", GOOD, ids=by_name)
def test_our_own_byte_form_says_the_same(example: Example) -> None:
    event = decode(example.value, NOW)
    assert decode(encode(event), NOW) == event


@pytest.mark.parametrize("example", BAD, ids=by_name)
def test_bad_records_are_refused_with_their_reason(example: Example) -> None:
    with pytest.raises(InvalidRecord) as refused:
        decode(example.value, NOW)
    assert refused.value.reason == example.case["reason"], str(refused.value)
    if example.case["field"] is not None:
        assert refused.value.field == example.case["field"], str(refused.value)
    assert 10 < len(str(refused.value)) < 600, (
        "the message names the rule, and is short enough for a log"
    )
    assert str(refused.value).isprintable(), "and cannot drive a terminal"


def test_every_reason_has_an_example() -> None:
    ours = {Reason.ID_CONFLICT, Reason.REFUSED_BY_STORE}  # not about one record alone
    assert {example.case["reason"] for example in BAD} == set(Reason) - ours


def test_bad_records_are_refused_quickly() -> None:
    begun = time.perf_counter()
    for example in BAD:
        with pytest.raises(InvalidRecord):
            decode(example.value, NOW)
    assert (time.perf_counter() - begun) / len(BAD) < 0.05, "on average; the slowest look at 64 KiB"


def shape(values: Sequence[bytes | None], broker_ms: Sequence[int] | None = None) -> Shaped:
    """What ingest makes of a batch."""
    count = len(values)
    clock = list(broker_ms or [NOW_MS] * count)
    records = RecordBatch(
        "tokens", list(values), [0] * count, list(range(count)), clock, {}, [_NO_KEY] * count
    )
    return Shaper(LiveRate(30, 1.0), 30).shape(records, NOW)


def refused(
    values: Sequence[bytes | None], broker_ms: Sequence[int] | None = None
) -> dict[int, str]:
    """What ingest refuses of a batch: reasons by place."""
    shaped = shape(values, broker_ms)
    assert sum(len(raws.documents) for raws in shaped.raws.values()) + len(shaped.letters) == len(
        values
    )
    return {int(letter.at.rsplit("/", 1)[1]): letter.reason for letter in shaped.letters}


def test_a_batch_refuses_what_a_record_does() -> None:
    """Whatever stands next to it: the fast reader must not let a record hide among its
    neighbours."""
    good = encode(decode(GOOD[0].value, NOW))
    for example in BAD:
        assert refused([good, example.value, good, good]) == {1: example.case["reason"]}, (
            example.name
        )


def test_a_batch_refuses_bad_events_in_our_own_byte_form() -> None:
    """Where nothing but a rule between fields can be wrong."""
    ours = [
        value
        for example in BAD
        if (event := readable(example.value)) and broken(value := encode(event))
    ]
    assert len(ours) > 10
    for value in ours:
        with pytest.raises(InvalidRecord) as alone:
            decode(value, NOW)
        assert refused([value]) == {0: alone.value.reason}, value
    assert len(refused([*ours, encode(decode(GOOD[0].value, NOW)), *ours])) == 2 * len(ours)


def readable(value: bytes | None) -> Event | None:
    """An event that may break rules between its fields."""
    try:
        return msgspec.json.decode(value or b"", type=TokenUsage | GpuSample | EngineCounters)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def broken(value: bytes) -> InvalidRecord | None:
    """Why it is refused alone."""
    try:
        decode(value, NOW)
    except InvalidRecord as error:
        return error
    return None


_odd = st.sampled_from([0, 1, 2, 100, 60_000, 3_600_000, 3_600_001, 20_000_000])
_MANY_GPUS = [f"GPU-{number}" for number in range(MAX_GPUS)]
_few_gpus = st.lists(st.sampled_from(["GPU-a", "GPU-b", "h/0", "h/1"]), max_size=3)
_values = {
    "ts": st.sampled_from([EARLIEST_TS, EARLIEST_TS - _US, NOW + _AHEAD, NOW + _AHEAD + _US]),
    "gpu_uuids": _few_gpus | st.just(_MANY_GPUS),
    "gpu_index": st.sampled_from([0, 1]),
    "latency_ms": _odd.map(float) | st.none(),  # integers would not be our own byte form
    **dict.fromkeys(("queue_ms", "ttft_ms"), _odd.map(float)),
    **dict.fromkeys(
        ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"), _odd
    ),
}
# Few fields at a time: what breaks two rules hides that one of them is not looked at.
_row = st.sets(st.sampled_from(sorted(_values)), max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: _values[name] for name in names})
)


@settings(max_examples=300)
@given(st.lists(_row, min_size=1, max_size=8))
@with_example([{"gpu_uuids": ["GPU-a", "h/0"], "gpu_index": 0}])
@with_example([{"gpu_uuids": _MANY_GPUS, "latency_ms": 63 * 60_000.0}])
def test_a_batch_refuses_what_breaks_a_rule_between_fields(rows: list[dict[str, Any]]) -> None:
    events = [
        TokenUsage(**{**_PLAIN, "event_id": f"e{number}", **row}) for number, row in enumerate(rows)
    ]
    values = [encode(event) for event in events]
    assert refused(values) == {
        place: error.reason for place, value in enumerate(values) if (error := broken(value))
    }


_sample_values = {
    "ts": _values["ts"],
    **dict.fromkeys(("mem_used_mb", "mem_total_mb"), st.sampled_from([None, 1.0, 2.0])),
    "gpu_uuid": st.sampled_from([None, "GPU-a"]),
    "mig_profile": st.sampled_from([None, "3g.40gb"]),
    "parent_uuid": st.sampled_from([None, "GPU-b", "GPU-a"]),
}
_sample_row = st.sets(st.sampled_from(sorted(_sample_values)), max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: _sample_values[name] for name in names})
)


@settings(max_examples=300)
@given(st.lists(_sample_row, min_size=1, max_size=8))
@with_example([{"mig_profile": "3g.40gb", "parent_uuid": "GPU-b"}])
@with_example([{"mig_profile": "3g.40gb", "gpu_uuid": "GPU-a", "parent_uuid": "GPU-a"}])
def test_a_batch_refuses_samples_that_break_a_rule_between_fields(
    rows: list[dict[str, Any]],
) -> None:
    events = [
        GpuSample(
            **{
                "ts": NOW,
                "host": "h",
                "gpu_index": 0,
                "source": "nvml",
                "event_id": f"e{number}",
                **row,
            }
        )
        for number, row in enumerate(rows)
    ]
    values = [encode(event) for event in events]
    assert refused(values) == {
        place: error.reason for place, value in enumerate(values) if (error := broken(value))
    }


# A record as it may be written: keys with their values as JSON text, in any order and spacing.
_required = {
    "schema": '"token.usage.v1"',
    "ts": '"2026-01-31T12:00:00Z"',
    "host": '"h"',
    "model": '"m"',
    "request_id": '"r"',
    "prompt_tokens": "10",
    "completion_tokens": "10",
    "gpu_uuids": '["GPU-a"]',
}
_optional = {
    "gpu_index": ["1", "null"],
    "tenant": ['"t"', '"default"', r'"\u0041"', "null"],
    "cached_tokens": ["1", "0"],
    "reasoning_tokens": ["1", "0", "0.0"],
    "latency_ms": ["100.5", "1e2", "null", "1e999", "0." + 5000 * "1"],
    "queue_ms": ["1.0", "null"],
    "ttft_ms": ["1.0"],
    "finish_reason": ['"stop"', '"\t"', "null"],
    "gpu_uuids": ["[]", '["GPU-a","GPU-a"]', '["h/0"]', '["GPU-a"'],
    "extra": [
        "1",
        '"x"',
        "null",
        "1e999",
        "18446744073709551616",
        9 * "[" + 9 * "]",
        '{"a":1,"a":2}',
        r'"\u0000"',
    ],
    '","': ['","'],
    r"tenan\u0074": ['"t"'],
    "prompt_tokens": ["20", "-1"],
    "": ['""'],
}
_required_of_sample = {
    "schema": '"gpu.metrics.v1"',
    "ts": '"2026-01-31T12:00:00Z"',
    "host": '"h"',
    "gpu_index": "0",
    "source": '"nvml"',
}
_optional_of_sample = {
    "gpu_uuid": ['"GPU-a"', "null", r'"GPU\u002da"'],
    "name": ['"H100"', "null", '"\t"'],
    "utilization": ["0.5", "null", "1", "1.5", "0." + 5000 * "1"],
    "mem_used_mb": ["10.0", "1e999", "null"],
    "mem_total_mb": ["5.0", "20"],
    "power_w": ["100.0"],
    "mig_profile": ['"3g.40gb"'],
    "parent_uuid": ['"GPU-b"', '"GPU-a"'],
    "source": ['"replay"', '"me"'],
    "gpu_index": ["1", "-1"],
    **{key: _optional[key] for key in ("extra", '","', "")},
}


@st.composite
def _written(draw: st.DrawFn) -> bytes:
    required, optional = draw(
        st.sampled_from([(_required, _optional), (_required_of_sample, _optional_of_sample)])
    )
    pair = st.sampled_from(sorted(optional)).flatmap(
        lambda key: st.tuples(st.just(key), st.sampled_from(optional[key]))
    )
    added = draw(st.lists(pair, max_size=4))
    # those are replaced, not given twice
    named = {key for key, _ in added} if draw(st.booleans()) else set()
    pairs = draw(
        st.permutations([pair for pair in required.items() if pair[0] not in named] + added)
    )
    space, end = (
        draw(st.sampled_from(["", "", " ", "\n", "\t"])),
        draw(st.sampled_from(["}", "}", "}", "} ", "", "}}", "},"])),
    )
    members = [
        f'"event_id":{space}"e{draw(st.integers(0, 10**6))}"',
        *(f'"{key}":{space}{text}' for key, text in pairs),
    ]
    return ("{" + f",{space}".join(members) + end).encode()


@settings(max_examples=500)
@given(st.lists(_written(), min_size=1, max_size=6))
def test_a_batch_reads_any_way_of_writing_as_a_record_is_read(values: list[bytes]) -> None:
    """Also what the fast reader passes over: fields that are not known, or given twice, whatever is
    left out for them."""
    assert refused(values) == {
        place: error.reason for place, value in enumerate(values) if (error := broken(value))
    }


def test_neighbours_cannot_share_a_record() -> None:
    """Two messages that are no records alone, but would be if they were read as one text."""
    good = encode(decode(GOOD[0].value, NOW))
    for cut in range(1, len(good), 7):
        for between in (b"", b"\n"):
            assert list(refused([good, good[:cut], good[cut:], good + between + good, good])) == [
                1,
                2,
                3,
            ], cut


def test_a_record_that_is_too_long_is_refused_among_others() -> None:
    """Even if nothing but spaces makes it so."""
    good = encode(decode(GOOD[0].value, NOW))
    assert refused([good, b"{" + MAX_RECORD_BYTES * b" " + good[1:], good]) == {1: Reason.TOO_LARGE}


def test_only_an_event_ahead_of_the_broker_is_refused() -> None:
    record = json.loads(GOOD[0].value or b"") | {"ts": "2026-02-01T00:04:00Z"}
    ahead = json.loads(GOOD[0].value or b"") | {"ts": "2026-02-01T00:06:00Z"}
    values = [encode(decode(json.dumps(item).encode())) for item in (record, ahead)]
    assert refused(values) == {1: Reason.FUTURE_TS}
    assert refused(values, [NOW_MS, NOW_MS + 120_000]) == {}, "each by its own broker time"


@pytest.mark.parametrize("example", [item for item in GOOD if "record" in item.case], ids=by_name)
def test_good_records_satisfy_the_schema(example: Example) -> None:
    record = example.case["record"]
    jsonschema.validate(record, json_schemas()[record["schema"]])


def _beyond_the_schema(example: Example) -> bool:
    """Rules between fields, time formats, the tag itself, and numbers in fields that no schema
    names."""
    case = example.case
    return (
        "record" not in case
        or case["record"].get("schema") not in json_schemas()
        or case["reason"]
        in {"inconsistent", "future_ts", "too_many_keys", "nul_character", "not_json"}
        or (case["field"] == "ts" and case["reason"] == "out_of_range")
        or example.name
        in {"2^64 in an unknown field", "2^53 in an unknown field", "a request over too many cells"}
    )


@pytest.mark.parametrize(
    "example", [item for item in BAD if not _beyond_the_schema(item)], ids=by_name
)
def test_the_schema_refuses_bad_records_too(example: Example) -> None:
    record = example.case["record"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json_schemas()[record["schema"]])
