"""Spans as engines, clients and frameworks make them, written by hand from their source and
conventions."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

from gpu_token_analytics.sources.spans import Span, SpanKind

START_NS = 1_769_860_800_000_000_000  # 2026-01-31T12:00:00Z
SECOND_NS = 1_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
CHAT_ID = "chatcmpl-5e0d9f0cb3f94b0e9a1f0d5c1b2a3948"
_ids = count(1)


def span(attributes: dict[str, Any] | None = None, *, seconds: float = 2.0, **fields: Any) -> Span:
    """A span of two seconds with an id of its own."""
    values: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": f"{next(_ids):016x}",
        "start_ns": START_NS,
        "end_ns": START_NS + round(seconds * SECOND_NS),
        "kind": SpanKind.CLIENT,
        "attributes": attributes or {},
        **fields,
    }
    return Span(**values)


def vllm(
    request_id: str = CHAT_ID, prompt: int = 1000, completion: int = 200, **fields: Any
) -> Span:
    """vLLM 0.33: vllm/v1/engine/output_processor.py, do_tracing: no model, no cached tokens, no
    finish reason."""
    attributes = {
        "gen_ai.latency.time_to_first_token": 0.5,
        "gen_ai.latency.e2e": 1.9,
        "gen_ai.latency.time_in_queue": 0.25,
        "gen_ai.usage.prompt_tokens": prompt,
        "gen_ai.usage.completion_tokens": completion,
        "gen_ai.latency.time_in_model_prefill": 0.25,
        "gen_ai.latency.time_in_model_decode": 1.4,
        "gen_ai.latency.time_in_model_inference": 1.65,
        "gen_ai.request.id": request_id,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.n": 1,
    }
    resource = {"service.name": "vllm-chat", "host.name": "node1"}
    return span(
        **{
            "attributes": attributes,
            "name": "llm_request",
            "kind": SpanKind.SERVER,
            "resource": resource,
            **fields,
        }
    )


def sglang(**fields: Any) -> Span:
    """SGLang 0.5.23: sglang/srt/observability, the root span of a request: kind INTERNAL, the
    finish reasons as JSON."""
    attributes = {
        "rid": "b7d5f4c4a2f04a6f8a8c6a9e7a5d1c3b",
        "module": "sglang::request",
        "gen_ai.usage.completion_tokens": 200,
        "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.cached_tokens": 640,
        "gen_ai.response.model": "qwen3-32b",
        "gen_ai.response.finish_reasons": '["stop"]',
        "gen_ai.request.id": "b7d5f4c4a2f04a6f8a8c6a9e7a5d1c3b",
        "gen_ai.latency.time_to_first_token": 0.4,
        "gen_ai.latency.e2e": 2.0,
        "gen_ai.latency.time_in_model_decode": 1.6,
        "gen_ai.latency.time_in_model_inference": 1.9,
        "gen_ai.latency.time_in_model_prefill": 0.3,
    }
    own = {
        "name": " Req b7d5f4c4",
        "kind": SpanKind.INTERNAL,
        "resource": {"service.name": "sglang"},
    }
    return span(**{"attributes": attributes, **own, **fields})


def current(**fields: Any) -> Span:
    """A client of the GenAI conventions as they are now."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "llama",
        "gen_ai.response.model": "llama-3.3-70b",
        "gen_ai.response.id": CHAT_ID,
        "gen_ai.response.finish_reasons": ["length", "stop"],
        "gen_ai.response.time_to_first_chunk": 0.6,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 640,
        "gen_ai.usage.cache_write.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "gen_ai.usage.text.input_tokens": 1000,  # a part of the total
        "server.address": "node1",
        "server.port": 8000,
    }
    return span(
        **{
            "attributes": attributes,
            "resource": {"service.name": "checkout", "host.name": "web7"},
            **fields,
        }
    )


def openllmetry(**fields: Any) -> Span:
    """OpenLLMetry: names that were deprecated, and its own."""
    attributes = {
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "llama",
        "gen_ai.response.model": "llama-3.3-70b",
        "gen_ai.response.id": CHAT_ID,
        "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.completion_tokens": 200,
        "llm.usage.total_tokens": 1200,
        "gen_ai.usage.cache_read_input_tokens": 640,
        "gen_ai.usage.reasoning_tokens": 50,
        "gen_ai.openai.api_base": "http://node1:8000/v1/",
    }
    return span(**{"attributes": attributes, **fields})


def openinference(**fields: Any) -> Span:
    """OpenInference."""
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "llama-3.3-70b",
        "llm.provider": "openai",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 200,
        "llm.token_count.total": 1200,
        "llm.token_count.prompt_details.cache_read": 640,
        "llm.token_count.prompt_details.audio": 10,
        "llm.token_count.completion_details.reasoning": 50,
    }
    return span(
        **{
            "attributes": attributes,
            "kind": SpanKind.INTERNAL,
            "resource": {"service.name": "agent"},
            **fields,
        }
    )


def langfuse(**fields: Any) -> Span:
    """Langfuse's SDK: usage as JSON whose counts exclude each other."""
    attributes = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "llama-3.3-70b",
        "langfuse.observation.usage_details": json.dumps(
            {"input": 360, "input_cached_tokens": 640, "output": 150, "output_reasoning_tokens": 50}
        ),
        "langfuse.observation.completion_start_time": '"2026-01-31T12:00:00.600Z"',
    }
    return span(
        **{
            "attributes": attributes,
            "kind": SpanKind.INTERNAL,
            "resource": {"service.name": "agent"},
            **fields,
        }
    )


def below(child: Span, parent: Span) -> Span:
    """`child` as made under `parent`."""
    return replace(child, trace_id=parent.trace_id, parent_id=parent.span_id)
