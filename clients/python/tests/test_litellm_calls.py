"""Records as LiteLLM's proxy made them (1.110.2), read without LiteLLM."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_tokens_client.litellm_calls import Call, call_of, is_from_cache, is_hosted


def record(**changes: Any) -> dict[str, Any]:
    """A streamed call of an engine of one's own."""
    return {
        "id": "chatcmpl-1",
        "litellm_call_id": "5f1c0c3e-0f0f-4a4e-9f0a-0d7e2f3c1b11",
        "stream": True,
        "custom_llm_provider": "hosted_vllm",
        "prompt_tokens": 120,
        "completion_tokens": 4,
        "startTime": 1_767_225_600.0,
        "endTime": 1_767_225_602.0,
        "completionStartTime": 1_767_225_600.5,
        "model": "hosted_vllm/org/model",
        "model_group": "chat",
        "api_base": "http://node1:8000/v1/chat/completions",
        "metadata": {
            "user_api_key_team_alias": "search",
            "user_api_key_alias": "key-1",
            "usage_object": {
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
        },
        "cache_hit": None,
        "end_user": "someone",
        "error_information": None,
        "response": {"choices": [{"finish_reason": "stop", "message": {"content": "secret"}}]},
        **changes,
    }


def read(**changes: Any) -> Call:
    call = call_of(record(**changes))
    assert call is not None
    return call


def test_a_call_is_read_in_full() -> None:
    call = read()
    assert call == Call(
        event_id=call.event_id,
        request_id="chatcmpl-1",
        instance="node1:8000",
        model="org/model",
        tenant="search",
        prompt_tokens=120,
        completion_tokens=4,
        cached_tokens=64,
        reasoning_tokens=3,
        ended_at=datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC),
        latency_ms=2000.0,
        ttft_ms=500.0,
        finish_reason="stop",
    )
    assert 0 < len(call.event_id) <= 64
    assert "secret" not in repr(call)


def test_a_call_is_known_again_and_told_from_others() -> None:
    assert read().event_id == read(endTime=1_767_225_603.0).event_id
    assert read().event_id != read(id="chatcmpl-2").event_id, (
        "callers may give one call id to all calls of an agent"
    )
    assert read().event_id != read(litellm_call_id="another").event_id, (
        "engines' ids are not unique: Ollama has 999"
    )
    with pytest.raises(ValueError, match="without id"):
        read(id="", litellm_call_id=None)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"stream": False, "completionStartTime": 1_767_225_602.0}, "ttft_ms", None),
        ({"completionStartTime": 1_767_225_602.0}, "ttft_ms", None),
        ({"error_information": {"error_code": "499"}}, "finish_reason", "abort"),
        ({"error_information": {"error_code": ""}}, "finish_reason", "stop"),
        ({"response": None}, "finish_reason", None),
        ({"response": {"status": "completed"}}, "finish_reason", "completed"),
        ({"metadata": {}}, "cached_tokens", 0),
        ({"metadata": {"usage_object": None}}, "reasoning_tokens", 0),
        (
            {
                "metadata": {
                    "usage_object": {"prompt_tokens_details": None, "cache_read_input_tokens": 100}
                }
            },
            "cached_tokens",
            100,
        ),
        (
            {"metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 500}}}},
            "cached_tokens",
            120,
        ),
        ({"metadata": {}}, "tenant", None),
        (
            {"metadata": {"user_api_key_team_alias": None, "user_api_key_alias": "key-1"}},
            "tenant",
            "key-1",
        ),
        ({"model": "openai/m", "custom_llm_provider": "openai"}, "model", "m"),
        ({"model": "meta/m", "custom_llm_provider": "openai"}, "model", "meta/m"),
        ({"model": ""}, "model", "chat"),
        ({"api_base": "https://llm.internal/v1"}, "instance", "llm.internal:443"),
        ({"api_base": "http://[::1]:8000/v1"}, "instance", "[::1]:8000"),
        ({"api_base": ""}, "instance", "litellm"),
        ({"api_base": "http://node1:port/v1"}, "instance", "litellm"),
        (
            {"metadata": {"kubernetes_pod_routing": {"service_host": "svc", "pod_ip": "10.1.2.3"}}},
            "instance",
            "10.1.2.3:8000",
        ),
        ({"endTime": 1_767_225_599.0}, "latency_ms", 0.0),
    ],
)
def test_what_a_record_says(changes: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(read(**changes), field) == value


def test_the_tenant_stands_where_the_operator_says() -> None:
    call = call_of(record(), tenant=("nowhere", "end_user"))
    assert call is not None
    assert call.tenant == "someone"


def test_calls_that_took_no_gpu_of_ours() -> None:
    assert call_of(record(prompt_tokens=0, completion_tokens=0)) is None
    assert is_from_cache(record(cache_hit=True))
    assert not is_from_cache(record(cache_hit=False))
    assert is_hosted(record(api_base="https://api.openai.com/v1/chat/completions"))
    assert is_hosted(record(api_base="https://us-east-1.bedrock.amazonaws.com"))
    assert not is_hosted(record(api_base="http://openai.com.internal:8000"))
    assert not is_hosted(record(api_base="http://myopenai.com"))
