"""Usage objects as each API writes them, in the contract's inclusive counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpu_tokens_client.answers import Answer, Tokens

CHAT = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}],
}


def read(*documents: Any) -> Answer:
    answer = Answer()
    for document in documents:
        answer.read(json.dumps(document).encode())
    return answer


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({**CHAT, "usage": {"prompt_tokens": 9, "completion_tokens": 4}}, Tokens(9, 4)),
        (
            {**CHAT, "usage": {"prompt_tokens": 9, "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 6},
                               "completion_tokens_details": {"reasoning_tokens": 3},
                               "total_tokens": 13}},
            Tokens(9, 4, 6, 3),
        ),
        ({**CHAT, "usage": {"prompt_tokens": 9, "completion_tokens": 4,
        "prompt_tokens_details": None}}, Tokens(9, 4)),
        ({**CHAT, "usage": {"prompt_tokens": 9, "completion_tokens": 4, "reasoning_tokens": 2}},
        Tokens(9, 4, 0, 2)),
        ({"object": "list", "data": [], "model": "e", "usage": {"prompt_tokens": 8,
        "total_tokens": 8}}, Tokens(8, 0)),
        (
            {"id": "resp_1", "status": "completed", "usage": {"input_tokens": 20,
            "output_tokens": 5,
             "input_tokens_details": {"cached_tokens": 16},
             "output_tokens_details": {"reasoning_tokens": 4}}},
            Tokens(20, 5, 16, 4),
        ),
        # Anthropic leaves both cache fields out of input_tokens.
        (
            {"id": "msg_1", "stop_reason": "end_turn", "usage": {"input_tokens": 10,
            "output_tokens": 7,
             "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30}},
            Tokens(140, 7, 100),
        ),
        ({"model": "o", "done": True, "done_reason": "stop", "prompt_eval_count": 11,
        "eval_count": 6}, Tokens(11, 6)),
        ({"model": "o", "done": True, "done_reason": "stop", "message": {"content": ""},
        "eval_count": 6}, Tokens(0, 6)),
        ({"content": "x", "timings": {"prompt_n": 5, "cache_n": 40, "predicted_n": 3}}, Tokens(45,
        3, 40)),
        ({"choices": [], "usage": None}, None),
        ({"status": "ok"}, None),
        ([1, 2], None),
    ],
)  # fmt: skip
def test_usage_of_a_whole_answer(document: Any, tokens: Tokens | None) -> None:
    assert read(document).tokens == tokens


def test_counts_of_a_stream_are_cumulative_and_never_added() -> None:
    answer = read(
        {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {
            "input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 0,
            "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 12}},
    )  # fmt: skip
    assert answer == Answer("msg_1", "claude", Tokens(100, 12, 90), "end_turn")
    continuous = [
        {**CHAT, "usage": {"prompt_tokens": 5, "completion_tokens": count}} for count in (1, 2, 3)
    ]
    assert read(*continuous).tokens == Tokens(5, 3)


def test_streamed_responses_keep_their_usage_inside() -> None:
    usage = {"input_tokens": 7, "output_tokens": 2}
    answer = read(
        {
            "type": "response.created",
            "response": {"id": "resp_1", "model": "m", "status": "in_progress", "usage": None},
        },
        {
            "type": "response.completed",
            "response": {"id": "resp_1", "model": "m", "status": "completed", "usage": usage},
        },
    )
    assert answer == Answer("resp_1", "m", Tokens(7, 2), "completed")


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"\xff", b"null", b'"usage"', b"[" * 5000, b'{"usage": {"prompt_tokens": "9"}}'],
)
def test_what_cannot_be_read_says_nothing(document: bytes) -> None:
    answer = Answer()
    assert answer.read(document) is False
    assert answer == Answer()


def test_only_a_chunk_without_choices_is_usage_alone() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    assert Answer().read(json.dumps({"choices": [], "usage": usage}).encode())
    assert not Answer().read(json.dumps({**CHAT, "usage": usage}).encode())
    assert not Answer().read(json.dumps({"data": [], "usage": usage}).encode())
