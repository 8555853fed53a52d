"""The published schemas and the decoder say the same: what one takes the other takes, rules between
fields aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.test_examples import SHARED, refused, shape

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire import usage
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.json_schemas import json_schemas
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

SCHEMAS = json_schemas()
USAGE: dict[str, Any] = {
    "schema": "token.usage.v1",
    "event_id": "e",
    "ts": "2026-01-31T12:00:00Z",
    "host": "h",
    "model": "m",
    "request_id": "r",
    "prompt_tokens": 100,
    "completion_tokens": 100,
    "gpu_uuids": ["GPU-a"],
    "latency_ms": 100.0,
}
SAMPLE: dict[str, Any] = {
    "schema": "gpu.metrics.v1",
    "event_id": "e",
    "ts": "2026-01-31T12:00:00Z",
    "host": "h",
    "gpu_index": 0,
    "source": "nvml",
}
COUNTERS: dict[str, Any] = {
    "schema": "engine.counters.v1",
    "event_id": "e",
    "ts": "2026-01-31T12:00:00Z",
    "host": "h",
    "instance": "node1:8000",
    "engine": "vllm",
    "interval_ms": 15_000.0,
    "prompt_tokens": 100,
    "completion_tokens": 100,
}


def read(record: dict[str, Any]) -> Event:
    return decode(json.dumps(record).encode())


def outcome(record: dict[str, Any]) -> InvalidRecord | None:
    """Why it is refused; None: it is not."""
    try:
        read(record)
    except InvalidRecord as error:
        return error
    return None


def beyond_any_schema(error: InvalidRecord) -> bool:
    """A rule between fields: JSON Schema has no words for it."""
    return error.reason is Reason.INCONSISTENT or "ledger cells" in str(error)


_times = st.builds(
    lambda day, clock, fraction, zone: f"{day}T{clock}{fraction}{zone}",
    st.dates(
        datetime(2015, 1, 1, tzinfo=UTC).date(), datetime(2099, 12, 30, tzinfo=UTC).date()
    ).map(str),
    st.sampled_from(["00:00:00", "23:59:59", "23:59:60", "07:30:30", "12:00:60"]),
    st.sampled_from(["", ".5", ".123456", ".0000000001"]),
    st.sampled_from(["Z", "z", "+00:00", "-11:30", "+14:00", "+0100"]),
)


def _texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    text = st.text(
        st.characters(codec="utf-8"),
        min_size=schema.get("minLength", 0),
        max_size=min(schema["maxLength"], 40),
    )
    if "pattern" in schema:
        text = (
            st.from_regex(schema["pattern"]).map(lambda found: found[: schema["maxLength"]]) | text
        )
    return text.filter(lambda found: jsonschema.Draft202012Validator(schema).is_valid(found))


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that satisfy one property of our schemas, by their keywords."""
    if "anyOf" in schema:
        return st.one_of(*(values_of(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        return _times
    least, most = schema.get("minimum"), schema.get("maximum")
    by_type: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(least, most) | st.integers(least, most).map(float),
        "number": lambda: st.floats(least, most) | st.integers(int(least or 0), int(most or 0)),
        "array": lambda: st.lists(values_of(schema["items"]), max_size=schema["maxItems"] // 16),
        "string": lambda: _texts(schema),
    }
    return by_type[schema["type"]]()


def records_of(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    properties, required = schema["properties"], set(schema["required"])
    return st.fixed_dictionaries(
        {name: values_of(field) for name, field in properties.items() if name in required},
        optional={
            name: values_of(field) for name, field in properties.items() if name not in required
        },
    )


@pytest.mark.parametrize("tag", SCHEMAS)
def test_what_the_schema_takes_the_decoder_takes(tag: str) -> None:
    @settings(max_examples=200, deadline=None)
    @given(records_of(SCHEMAS[tag]))
    def check(record: dict[str, Any]) -> None:
        jsonschema.validate(record, SCHEMAS[tag])  # the generator is right
        error = outcome(record)
        assert error is None or beyond_any_schema(error), f"{record}: {error}"
        assert refused([json.dumps(record).encode()]) in (
            {},
            {0: error and error.reason},
            {0: Reason.FUTURE_TS},
        )

    check()


_odd: list[Any] = [
    *[
        None,
        True,
        False,
        0,
        1,
        -1,
        0.0,
        -0.0,
        0.5,
        1.0,
        1e3,
        128.0,
        1e8,
        1e8 + 1,
        100_000_001,
        21_600_000,
        21_600_001,
        1e300,
    ],
    *[
        "",
        "x",
        "a\nb",
        "a\0b",
        "x" * 64,
        "x" * 65,
        "x" * 256,
        "x" * 257,
        "h/0",
        "\u001b[2J",
        "[/b]",
        "é" * 128,
    ],
    *[
        [],
        ["GPU-a"],
        [None],
        ["a\0"],
        ["x"] * 129,
        {},
        {"a": 1},
        "1g.10gb",
        "8g.80gb",
        "nvml",
        "NVML",
        "2026-01-31",
    ],
    *[
        "2026-02-30T00:00:00Z",
        "2024-02-29T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2026-01-31T24:00:00Z",
    ],
    *[
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:60:60Z",
        "2014-12-31T00:00:00Z",
        "2100-01-01T00:00:00Z",
    ],
    *[
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.5+01:00",
        "2026-01-31 12:00:00Z",
    ],
    *["2026-01-31T12:00:00+24:00", "2026-01-31T12:00:00+0100", "2026-01-31T12:00Z"],
]


@pytest.mark.parametrize("base", [USAGE, SAMPLE, COUNTERS], ids=["usage", "sample", "counters"])
def test_each_value_in_each_field_is_taken_by_both_or_by_none(base: dict[str, Any]) -> None:
    tag = base["schema"]
    validator = jsonschema.Draft202012Validator(SCHEMAS[tag])
    for name in SCHEMAS[tag]["properties"]:
        for value in _odd:
            record = base | {name: value}
            error = outcome(record)
            taken = error is None or beyond_any_schema(error)
            assert taken == validator.is_valid(record), f"{name}={value!r}: {error}"
        record = {key: value for key, value in base.items() if key != name}
        error = outcome(record)
        assert (error is None or beyond_any_schema(error)) == validator.is_valid(record), (
            f"without {name}: {error}"
        )


def cases(name: str) -> list[bytes]:
    path = SHARED / "cases" / name
    if not path.exists():
        pytest.skip(f"{name} is not here (GPU_TOKENS_SHARED_DATA)")
    return path.read_bytes().splitlines()


def test_the_cases_of_null_are_as_if_absent() -> None:
    lines = cases("usage-null-optional-fields.ndjson")
    assert len(lines) == 4
    for line in lines:
        record = json.loads(line)
        assert decode(line) == read(
            {name: value for name, value in record.items() if value is not None}
        )


def test_the_cases_of_integral_numbers() -> None:
    lines = cases("usage-integral-floats.ndjson")
    events = [decode(line) for line in lines]
    assert [event.prompt_tokens for event in events if isinstance(event, TokenUsage)] == [
        128,
        1000,
        1000,
        1000,
    ]
    for event in events:
        assert decode(encode(event)) == event
    assert refused(lines, [int(datetime(2026, 11, 29, 8, tzinfo=UTC).timestamp() * 1000)] * 4) == {}


@pytest.mark.parametrize("base", [USAGE, SAMPLE, COUNTERS], ids=["usage", "sample", "counters"])
def test_null_is_as_if_absent_in_every_optional_field(base: dict[str, Any]) -> None:
    schema = SCHEMAS[base["schema"]]
    optional = [name for name in schema["properties"] if name not in schema["required"]]
    # by rules between fields
    needed: dict[str, Any] = {"completion_tokens": 1} if base is COUNTERS else {"gpu_index": 0}
    plain = {name: value for name, value in base.items() if name not in optional} | needed
    assert read(plain | dict.fromkeys([name for name in optional if name not in needed])) == read(
        plain
    )
    for name in schema["required"]:
        assert outcome(base | {name: None}) is not None


@pytest.mark.parametrize(
    ("ts", "meant"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.25Z"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00Z"),
        ("2016-12-31t15:59:60-08:00", "2017-01-01T00:00:00Z"),
    ],
)
@pytest.mark.parametrize("base", [USAGE, SAMPLE, COUNTERS], ids=["usage", "sample", "counters"])
def test_a_leap_second_is_the_second_after_it(base: dict[str, Any], ts: str, meant: str) -> None:
    assert read(base | {"ts": ts}).ts == read(base | {"ts": meant}).ts


@pytest.mark.parametrize(
    ("noisy", "meant"),
    [
        ({"latency_ms": 100, "ttft_ms": 100.0000001}, {"latency_ms": 100, "ttft_ms": 100}),
        ({"latency_ms": 100, "queue_ms": 100.0005}, {"latency_ms": 100, "queue_ms": 100}),
        (
            {"latency_ms": 12345.67, "ttft_ms": 12345.67 + 0.00048828125},
            {"latency_ms": 12345.67, "ttft_ms": 12345.67},
        ),
        ({"latency_ms": 0, "ttft_ms": 1e-9}, {"latency_ms": 0, "ttft_ms": 0}),
        ({"queue_ms": -1e-9}, {"queue_ms": 0}),
        ({"latency_ms": 21_600_000.0001}, {"latency_ms": 21_600_000}),
    ],
)
def test_float_noise_loses_no_request(noisy: dict[str, Any], meant: dict[str, Any]) -> None:
    assert read(USAGE | noisy) == read(USAGE | meant)
    # A batch takes it, too, among others, in our own byte form and in another.
    values = [
        json.dumps(USAGE | noisy).encode(),
        json.dumps(USAGE | noisy, separators=(",", ":")).encode(),
    ]
    assert refused([*values, json.dumps(USAGE).encode()]) == {}


@pytest.mark.parametrize(
    ("noisy", "meant"),
    [
        (
            {"mem_used_mb": 46068.00001, "mem_total_mb": 46068},
            {"mem_used_mb": 46068, "mem_total_mb": 46068},
        ),
        ({"utilization": 1.0000000001}, {"utilization": 1}),
        ({"utilization": -1e-17, "power_w": -1e-12}, {"utilization": 0, "power_w": 0}),
    ],
)
def test_float_noise_loses_no_sample(noisy: dict[str, Any], meant: dict[str, Any]) -> None:
    event = read(SAMPLE | noisy)
    assert isinstance(event, GpuSample)
    assert event == read(SAMPLE | meant)
    assert refused([json.dumps(SAMPLE | noisy).encode()]) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_ms": 100, "ttft_ms": 100.01},
        {"latency_ms": 1e6, "queue_ms": 1_000_010},
        {"queue_ms": -0.01},
        {"prompt_tokens": 100.0000001},
        {"cached_tokens": 101},
    ],
)
def test_what_is_more_than_noise_is_refused(wrong: dict[str, Any]) -> None:
    assert outcome(USAGE | wrong) is not None


def test_noise_is_left_out_of_what_is_stored() -> None:
    event = read(USAGE | {"ttft_ms": 100.0000001})
    assert isinstance(event, TokenUsage)
    assert event.ttft_ms == event.latency_ms == 100.0


def test_a_batch_stores_the_event_without_noise_too() -> None:
    values = [
        json.dumps(USAGE | {"ttft_ms": 100.0000001, "event_id": name}).encode()
        for name in ("a", "b")
    ]
    assert [
        document["ttft_ms"] for document in shape(values).raws[usage.USAGE].documents.decoded()
    ] == [100.0, 100.0]
