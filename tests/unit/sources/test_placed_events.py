"""Events that name an instance get its GPUs; everything else of them stays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement
from gpu_token_analytics.sources.placed_events import instances_of, placed
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage

TS = datetime(2026, 1, 31, 12, tzinfo=UTC)
AT_US = to_us(TS)
USAGE = TokenUsage(
    event_id="e", ts=TS, host="gateway", model="m", request_id="r", prompt_tokens=3,
    completion_tokens=2,
    gpu_uuids=["instance:node1:8000"], tenant="t", cached_tokens=1, latency_ms=5.0,
)  # fmt: skip


def book(*rows: dict[str, Any]) -> InstanceBook:
    plain: dict[str, Any] = {
        "instance": "node1:8000",
        "gpus": ("node1/0", "node1/1"),
        "host": None,
        "model": None,
    }
    return InstanceBook(InstancePlacement(**{**plain, **row}) for row in rows)


def naming(*gpus: str) -> TokenUsage:
    return msgspec.structs.replace(USAGE, gpu_uuids=list(gpus))


def test_an_instance_gets_the_gpus_and_host_of_its_placement() -> None:
    expected = msgspec.structs.replace(USAGE, gpu_uuids=["node1/0", "node1/1"], host="node1")
    assert placed(USAGE, book({})) == expected
    assert placed(naming("instance:http://Node1:8000/v1/chat/completions"), book({})) == expected
    assert placed(USAGE, book({"host": "other"})) == msgspec.structs.replace(expected, host="other")
    by_uuid = placed(USAGE, book({"gpus": ("GPU-1",)}))
    assert by_uuid == msgspec.structs.replace(USAGE, gpu_uuids=["GPU-1"]), (
        "no host is told: the sender's stays"
    )


def test_the_row_in_force_at_the_end_of_the_request_holds() -> None:
    found = placed(
        USAGE,
        book({"to_us": AT_US}, {"gpus": ("node1/7",), "from_us": AT_US}, {"from_us": AT_US + 1}),
    )
    assert found is not None
    assert found.gpu_uuids == ["node1/7"]


def test_what_is_not_placed_keeps_its_tokens_under_its_own_name() -> None:
    assert placed(naming("instance:HTTP://Node9/v1"), book({})) == naming("instance:node9:80")
    assert placed(USAGE, book({"gpus": ()})) == USAGE, "a row without GPUs: not known from then on"


def test_several_instances_and_gpus_by_name() -> None:
    rows = book({}, {"instance": "node2:8000", "gpus": ("node2/0", "node1/1")})
    found = placed(naming("instance:node1:8000", "instance:node2:8000"), rows)
    assert found is not None
    assert found.gpu_uuids == ["node1/0", "node1/1", "node2/0"]
    assert found.host == "gateway", "two hosts: the sender's stays"
    assert instances_of(naming("GPU-1", "node1/0")) == []
    assert instances_of(naming("instance:")) == []


def test_an_engine_that_tells_itself_is_not_told_of_twice() -> None:
    assert placed(USAGE, book({"counted_by": CountedBy.ENGINE})) is None
    assert placed(USAGE, book({"counted_by": CountedBy.ENGINE, "to_us": AT_US})) == USAGE
