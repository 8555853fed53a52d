"""What one caller does costs the others nothing: bodies, keys that are guessed, streams, and Kafka
being away."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from gpu_token_analytics.api.auth import FAILURE_BURST, Authority
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.handlers.events import MAX_RECORDS, split_records
from gpu_token_analytics.api.keys import ApiKey, KeyScope, KeyStore
from gpu_token_analytics.api.limits import MAX_BUCKETS, MAX_CALLERS, NewNames, RateLimit, Slots
from gpu_token_analytics.api.outlet import SHUT_SECONDS, Outlet
from gpu_token_analytics.api.routes import ROUTES
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.costs.questions import check_cost, cost_query
from gpu_token_analytics.errors import DeliveryFailed, Refused
from gpu_token_analytics.rollups.spans import Span

NOW = datetime(2026, 1, 31, tzinfo=UTC)
EIGHT_MB = 8 * 1024 * 1024
JSON, NDJSON = "application/json", "application/x-ndjson"
RECORD = (
    b'{"schema":"token.usage.v1","gpu_uuids":["GPU-a","GPU-b"],"model":"a, {b} \\" '
    b'[c]","x":{"y":[1,2,{"z":"}"}]}}'
)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        (b"1,", JSON),
        (b"{},", JSON),
        (b'"",', JSON),
        (b"[],", JSON),
        (b'{"a":1},1,', JSON),
        (b'{"a":"\\"},"},', JSON),
        (b"1\n", NDJSON),
    ],
)
def test_a_body_of_millions_of_values_is_refused_before_they_are_held(
    unit: bytes, kind: str
) -> None:
    body = unit * (EIGHT_MB // len(unit))
    if kind == JSON:
        body = b"[" + body + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(ApiProblem) as refused:
            split_records(body, kind)
        assert refused.value.code == "too_many_records"
        assert tracemalloc.get_traced_memory()[1] < 40 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_body_of_line_feeds_is_no_record_and_not_held_as_lines() -> None:
    body = b"\n" * EIGHT_MB
    tracemalloc.start()
    try:
        with pytest.raises(ApiProblem, match="no record"):
            split_records(body, NDJSON)
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1, 2, MAX_RECORDS - 1, MAX_RECORDS])
def test_as_many_records_as_are_allowed_are_taken_whatever_is_in_them(count: int) -> None:
    assert split_records(b"[" + b" ,\n".join([RECORD] * count) + b"]", JSON) == [RECORD] * count
    assert split_records(b"\r\n\n".join([RECORD] * count), NDJSON) == [RECORD] * count
    assert json.loads(RECORD)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b'\\"' * 2_000_000,
        b"[" + b'{"' * 2_000_000,
        b'{"a' * 1_000_000 + b",",
        b"[" * 4_000_000,
        b'[{"\\"' * 1_000_000,
    ],
    ids=["escapes", "open-texts", "open-objects", "brackets", "mixed"],
)
def test_no_body_is_looked_at_again_and_again(body: bytes) -> None:
    body = b"[1," + b"1," * 9_000 + body + b"," * 2_000
    # a look that starts anew at each of a million quotes would take hours
    with pytest.raises(ApiProblem):
        split_records(body, JSON)


@pytest.mark.parametrize("kind", [JSON, NDJSON])
def test_one_more_is_too_many(kind: str) -> None:
    body = (
        b"\n".join([RECORD] * (MAX_RECORDS + 1))
        if kind == NDJSON
        else b"[" + b",".join([RECORD] * (MAX_RECORDS + 1)) + b"]"
    )
    with pytest.raises(ApiProblem) as refused:
        split_records(body, kind)
    assert refused.value.code == "too_many_records"


class Keys:
    """A key store that knows one key and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def find(self, text: str) -> ApiKey | None:
        self.asked += 1
        return (
            ApiKey("good", "n", frozenset(KeyScope), None, NOW, None, None, None)
            if text == "gta_good"
            else None
        )

    def used(self, public: str, now: datetime) -> None:
        """Not looked at."""


def request(key: str) -> Request:
    headers = [(b"authorization", f"Bearer {key}".encode())]
    return Request(
        {
            "type": "http",
            "headers": headers,
            "client": ("10.0.0.1", 1),
            "path": "/",
            "query_string": b"",
        }
    )


def test_only_look_ups_that_fail_are_limited() -> None:
    clock = SimpleNamespace(now=0.0)
    keys = Keys()
    authority = Authority(
        cast("KeyStore", keys),
        lambda: NOW,
        anonymous_loopback=False,
        requests_per_second=1e5,
        burst=100_000,
        clock=lambda: clock.now,
    )
    route = next(route for route in ROUTES if route.name == "me")

    def status(key: str) -> int:
        try:
            authority.admit(request(key), route)
        except ApiProblem as problem:
            return problem.status
        return 200

    assert {status(f"gta_wrong{number}") for number in range(FAILURE_BURST)} == {401}
    assert status("gta_wrong") == 429
    for _ in range(3):
        clock.now += 10  # what was remembered of the key is old: it is looked up again
        for number in range(FAILURE_BURST):
            status(f"gta_other{number}")
        assert status("gta_good") == 200, "the neighbours behind one address are no reason"
    asked = keys.asked
    assert {status("gta_again") for _ in range(100)} <= {401, 429}
    assert keys.asked == asked + 1, "one wrong key costs one query"


def test_streams_are_limited_by_key_and_in_all() -> None:
    slots = Slots(3, 2)
    for caller in ("a", "a", "b"):
        slots.take(caller, ValueError)
    with pytest.raises(ValueError, match="API_MAX_STREAMS_PER_KEY"):
        slots.take("a", ValueError)
    with pytest.raises(ValueError, match=r"API_MAX_STREAMS\)"):
        slots.take("c", ValueError)
    slots.give("a")
    slots.take("c", ValueError)


def test_names_are_counted_by_key_and_hour_and_known_ones_go_on() -> None:
    clock = SimpleNamespace(now=7200.0)
    names = NewNames(3, lambda: clock.now)
    assert names.take("a", ["m1", "m2", "m2"]) == 0
    clock.now += 600
    assert names.take("a", ["m3", "m4"]) == 3000, "none of them counts"
    assert names.take("a", ["m3"]) == 0
    assert names.take("a", ["m1", "m2", "m3"]) == 0
    assert names.take("a", ["m4"]) == 3000
    assert names.take("b", ["m4"]) == 0, "another key has its own"
    clock.now += 3000
    assert names.take("a", ["m4", "m5", "m6"]) == 0


def _rate() -> Callable[[str], float]:
    return RateLimit(1, 1, lambda: 7200.0).take


def _new_names() -> Callable[[str], float]:
    names, numbers = NewNames(1, lambda: 7200.0), count()
    return lambda caller: names.take(caller, [f"model {next(numbers)}"])


@pytest.mark.parametrize(
    ("take", "remembered"), [(_rate(), MAX_BUCKETS), (_new_names(), MAX_CALLERS)]
)
def test_of_more_callers_than_are_remembered_the_one_longest_away_is_forgotten(
    take: Callable[[str], float], remembered: int
) -> None:
    assert take("first") == 0
    for number in range(remembered - 1):
        take(f"caller {number}")
    assert take("first") > 0, "it is one of as many as are remembered"
    for number in range(remembered):
        take(f"later caller {number}")
    assert take("first") == 0


def test_kafka_that_is_away_is_told_at_once_until_it_is_tried_again() -> None:
    clock = SimpleNamespace(now=0.0)
    outlet = Outlet(lambda: clock.now)
    with outlet.open():
        pass
    with pytest.raises(DeliveryFailed), outlet.open():
        raise DeliveryFailed("not acknowledged")
    for attempt in (outlet.check, lambda: outlet.open().__enter__()):
        with pytest.raises(ApiProblem) as refused:
            attempt()
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (
            "kafka_unavailable",
            f"{SHUT_SECONDS:.0f}",
        )
    clock.now += SHUT_SECONDS
    outlet.check()
    with outlet.open():
        pass


@pytest.mark.parametrize("more", [{}, {"group_by": ("gpu",)}])
def test_a_refused_range_is_refused_by_arithmetic(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = 0
    query = cost_query(datetime(2015, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC), **more)
    kind = type(query)
    pieces = kind._pieces

    def counted(one: CostQuery) -> Iterator[Span]:
        nonlocal listed
        for piece in pieces(one):
            listed += 1
            yield piece

    monkeypatch.setattr(kind, "_pieces", counted)
    with pytest.raises(Refused) as refused:
        check_cost(query, 100_000)
    assert refused.value.code == "range_too_long"
    assert listed < 2000


@pytest.mark.parametrize(
    ("body", "kind"), [(b"[" + RECORD + b"]", JSON), (RECORD, JSON), (RECORD + b"\r\n\r\n", NDJSON)]
)
def test_a_file_may_begin_with_a_byte_order_mark(body: bytes, kind: str) -> None:
    assert split_records(b"\xef\xbb\xbf" + body, kind) == [RECORD]
