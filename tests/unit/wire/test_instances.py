"""An instance has one name, however its sources write it; and one that is nowhere is no GPU."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.instances import (
    MAX_INSTANCE,
    canonical_instance,
    instance_of,
    unplaced_gpu,
)
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.names import canonical_gpu
from gpu_token_analytics.wire.usage import TokenUsage

LOOPBACK = "[0000:0000:0000:0000:0000:0000:0000:0001]"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("http://Node1:8000/v1", "node1:8000"),
        ("node1:8000/v1/chat/completions", "node1:8000"),
        ("HTTP://user:secret@node1.:8000", "node1:8000"),
        ("https://api.example.com/v1", "api.example.com:443"),
        ("http://node1/v1", "node1:80"),
        ("http://[::1]:8000/v1", f"{LOOPBACK}:8000"),
        ("[::1]:8000", f"{LOOPBACK}:8000"),
        ("http://node1:99999/", "node1:99999"),
        ("chat/vllm-0", "chat.vllm-0"),
        (" vllm@Node1 ", "vllm@node1"),
        ("instance:chat.vllm-0", "chat.vllm-0"),
        ("a::b", "a:b"),
        ("\t/\n", ""),
    ],
)
def test_one_spelling(written: str, name: str) -> None:
    assert canonical_instance(written) == name
    assert canonical_instance(name) == name


def test_long_names_stay_distinct_and_short_enough_for_a_gpu() -> None:
    names = {canonical_instance("x" * 300 + str(number)) for number in range(3)}
    assert len(names) == 3
    assert {len(name) for name in names} == {MAX_INSTANCE}


@pytest.mark.parametrize(
    "written", ["node1:8000", "chat/vllm-0", "[::1]:8000", "GPU-1f2e3d4c", "8f4c2a1b", "y" * 200]
)
def test_the_gpu_of_an_unplaced_instance_is_named_like_no_gpu(written: str) -> None:
    instance = canonical_instance(written)
    gpu = unplaced_gpu(instance)
    assert canonical_gpu(gpu) == gpu
    assert instance_of(gpu) == instance
    usage = TokenUsage(
        event_id="e",
        ts=datetime(2026, 1, 31, tzinfo=UTC),
        host="h",
        model="m",
        request_id="r",
        prompt_tokens=1,
        completion_tokens=1,
        gpu_uuids=[gpu],
    )
    assert decode(encode(usage)) == usage


def test_a_gpu_is_no_instance() -> None:
    assert instance_of("GPU-1f") is None
