"""Every example record is read, or refused for the reason it names, alone and among others."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from tests.contract.example_records import Example, load

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.events import decode, decode_many, encode, json_schemas

GOOD, BAD = load("good"), load("bad")
NOW = datetime(2026, 2, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


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
    assert 10 < len(str(refused.value)) < 600, "the message names the rule, and is short enough for a log"
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


def test_a_batch_refuses_what_a_record_does() -> None:
    """Whatever stands next to it: the fast reader must not let a record hide among its neighbours."""
    good = encode(decode(GOOD[0].value, NOW))
    for example in BAD:
        values = [good, example.value, good, good]
        found = decode_many(values, [NOW_MS] * len(values))
        assert [isinstance(event, InvalidRecord) for event in found] == [False, True, False, False], example.name
        assert found[0] == found[2] == found[3] == decode(good)
        assert isinstance(found[1], InvalidRecord)
        assert found[1].reason == example.case["reason"]


def test_neighbours_cannot_share_a_record() -> None:
    """Two messages that are no records alone, but would be if they were read as one text."""
    good = encode(decode(GOOD[0].value, NOW))
    for cut in range(1, len(good), 7):
        values = [good, good[:cut], good[cut:], good + b"\n" + good, good]
        found = decode_many(values, [NOW_MS] * len(values))
        assert [isinstance(event, InvalidRecord) for event in found] == [False, True, True, True, False], cut


def test_only_an_event_ahead_of_the_broker_is_refused() -> None:
    record = json.loads(GOOD[0].value or b"") | {"ts": "2026-02-01T00:04:00Z"}
    ahead = json.loads(GOOD[0].value or b"") | {"ts": "2026-02-01T00:06:00Z"}
    values: list[bytes | None] = [encode(decode(json.dumps(item).encode())) for item in (record, ahead)]
    first, second = decode_many(values, [NOW_MS, NOW_MS])
    assert not isinstance(first, InvalidRecord)
    assert isinstance(second, InvalidRecord)
    assert second.reason is Reason.FUTURE_TS
    assert not isinstance(decode_many(values, [NOW_MS, NOW_MS + 120_000])[1], InvalidRecord), "each by its own broker time"


@pytest.mark.parametrize("example", [item for item in GOOD if "record" in item.case], ids=by_name)
def test_good_records_satisfy_the_schema(example: Example) -> None:
    record = example.case["record"]
    jsonschema.validate(record, json_schemas()[record["schema"]])


def _beyond_the_schema(example: Example) -> bool:
    """Rules between fields, time formats, the tag itself, and numbers in fields that no schema names."""
    case = example.case
    return (
        "record" not in case
        or case["record"].get("schema") not in json_schemas()
        or case["reason"] in {"inconsistent", "future_ts", "too_many_keys", "nul_character", "not_json"}
        or (case["field"] == "ts" and case["reason"] == "out_of_range")
        or example.name in {"2^64 in an unknown field", "2^53 in an unknown field", "a request over too many cells"}
    )


@pytest.mark.parametrize("example", [item for item in BAD if not _beyond_the_schema(item)], ids=by_name)
def test_the_schema_refuses_bad_records_too(example: Example) -> None:
    record = example.case["record"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json_schemas()[record["schema"]])
