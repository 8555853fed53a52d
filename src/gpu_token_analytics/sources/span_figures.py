"""What one span tells of a request to a model: under which names, and what of it is known. Read in
the sources named at NAMES in November 2026."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gpu_token_analytics.errors import GpuTokensError
from gpu_token_analytics.sources.spans import Attributes, Span, Value
from gpu_token_analytics.wire.fields import MAX_TOKENS

# What a request's figures are called, best name first. In this order:
#   OpenTelemetry, now        github.com/open-telemetry/semantic-conventions-genai (32c328e8)
#   OpenTelemetry, earlier    deprecated names; vLLM 0.33, SGLang 0.5.23 and OpenLLMetry send them
#   OpenLLMetry               github.com/traceloop/openllmetry; Sentry's variants
#   OpenInference             github.com/Arize-ai/openinference
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
    ),
    "completion_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",  # OpenLLMetry
        "gen_ai.usage.cached_tokens",  # SGLang
        "gen_ai.usage.input_tokens.cached",  # Sentry
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",  # Sentry
        "llm.token_count.completion_details.reasoning",
    ),
    "model": (
        "gen_ai.response.model",
        "llm.response.model_name",
        "gen_ai.request.model",
        "llm.model_name",
        "langfuse.observation.model.name",
    ),
    # the second: vLLM, SGLang; it is the id of the response
    "request_id": ("gen_ai.response.id", "gen_ai.request.id"),
    "finish_reason": ("gen_ai.response.finish_reasons", "error.type"),
    # the second: vLLM, SGLang
    "ttft_seconds": ("gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token"),
    "queue_seconds": ("gen_ai.latency.time_in_queue",),  # vLLM
    "latency_seconds": ("gen_ai.latency.e2e",),  # vLLM, SGLang
    # Ours, for what no convention has; as attributes of the span, or of the resource
    # (OTEL_RESOURCE_ATTRIBUTES).
    "tenant": ("gpu_tokens.tenant", "tenant.id", "tenant"),
    "gpus": ("gpu_tokens.gpus",),
    "configured_model": ("gpu_tokens.model",),
}
# tracestate: gpu-tokens=acme; engines hand it on to their spans
TENANT_IN_TRACE_STATE = "gpu-tokens"
LANGFUSE_USAGE = "langfuse.observation.usage_details"  # JSON; its counts exclude each other
LANGFUSE_FIRST_TOKEN = "langfuse.observation.completion_start_time"  # ISO 8601
# What says which work a span is of, and the values that are one request to a model: the first name
# that is there decides.
_GENERATES, _EMBEDS = "generates", "embeds"
COUNTED: Mapping[str, Mapping[str, str]] = {
    "gen_ai.operation.name": {
        "chat": _GENERATES,
        "text_completion": _GENERATES,
        "generate_content": _GENERATES,
        "embeddings": _EMBEDS,
    },
    "openinference.span.kind": {"LLM": _GENERATES, "EMBEDDING": _EMBEDS},
    "langfuse.observation.type": {"generation": _GENERATES, "embedding": _EMBEDS},
    "llm.request.type": {"chat": _GENERATES, "completion": _GENERATES, "embedding": _EMBEDS},
}
_ENGINE = ("gen_ai.latency.", "gen_ai.request.id")  # names that engines alone have: vLLM, SGLang
# characters; a shorter response id (Ollama: chatcmpl-417) is only told apart within its trace
LONG_ID = 24
# vLLM numbers the prompts of a completion request; its response has no number
_FIRST_PROMPT = re.compile(r"(cmpl-.+)-0")
MAX_LABEL = 256


class LeftOut(StrEnum):
    """Why a span that tells of a request is not counted. A closed set: a metric label."""

    TOLD_BELOW = "told_below"  # a span below it tells of the same work
    TOLD_TWICE = "told_twice"  # another span of this export tells of the same request
    # a client's word of an instance that tells of its requests itself (counted_by=engine)
    TOLD_BY_ENGINE = "told_by_engine"
    WITHOUT_TOKENS = "without_tokens"  # a request to a model, without any figure


class RefusedSpan(GpuTokensError):
    """A span tells of a request and cannot be counted; the message names attribute, value and what
    is wrong."""


@dataclass(frozen=True)
class Told:
    """What one span says of a request."""

    span: Span
    work: str
    is_engine: bool
    request_id: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int

    @property
    def same_request(self) -> tuple[str, ...]:
        """What spans of one request have in common."""
        if self.request_id is None:
            return self.span.address
        return (
            (self.request_id,)
            if len(self.request_id) >= LONG_ID
            else (self.span.trace_id, "", self.request_id)
        )


def is_sampled(span: Span) -> bool:
    """Whether a span says that it stands for others, too, that were not sent.

    By OpenTelemetry's probability sampling (tracestate `ot=th:...`, earlier `p:`), or by the
    attributes of samplers of Jaeger and Honeycomb. A plain ratio sampler of an SDK leaves no mark.
    """
    for member in trace_state_of(span).get("ot", "").split(";"):
        name, _, value = member.partition(":")
        if (name == "th" and value.strip("0")) or (name == "p" and value not in ("", "0")):
            return True
    rate = span.attributes.get("SampleRate")
    if isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 1:
        return True
    sampler, parameter = span.attributes.get("sampler.type"), span.attributes.get("sampler.param")
    return sampler in ("probabilistic", "ratelimiting") and parameter != 1


def read_span(span: Span) -> Told | LeftOut | None:
    """What a span says of a request; why it says nothing of one; None: it is about something else.
    Raises Refused."""
    attributes = span.attributes
    is_engine = any(name.startswith(_ENGINE) for name in attributes)
    said = next(
        ((name, attributes[name]) for name in COUNTED if attributes.get(name) is not None), None
    )
    work: str | None = _GENERATES
    if said is not None:
        name, value = said
        kinds = COUNTED[name]
        work = kinds.get(str(value)) or kinds.get(str(value).upper())
    if work is None:
        return None
    counts = {name: _count(span, name) for name in NAMES if name.endswith("_tokens")}
    if LANGFUSE_USAGE in attributes:
        counts = {
            **_langfuse_counts(span),
            **{name: value for name, value in counts.items() if value is not None},
        }
    prompt, completion = counts["prompt_tokens"], counts["completion_tokens"]
    if prompt is None and completion is None:
        return LeftOut.WITHOUT_TOKENS if said is not None else None
    if work == _EMBEDS or text_of(attributes, "error.type") or span.is_error:
        # an embedding has no answer, and an error may have come before one
        prompt, completion = prompt or 0, completion or 0
    for name, value in (("prompt_tokens", prompt), ("completion_tokens", completion)):
        if value is None:
            raise RefusedSpan(
                f"{NAMES[name][0]} is missing beside {_given(span)}: instrument the engine or "
                "client to send both"
            )
    assert prompt is not None
    assert completion is not None
    cached, reasoning = counts["cached_tokens"] or 0, counts["reasoning_tokens"] or 0
    # the sender counts like Anthropic's API, where input leaves out what the cache had a part in
    if cached > prompt:
        prompt += cached + (counts["cache_write_tokens"] or 0)
    if reasoning > completion:  # like Gemini's, where the answer leaves out the thoughts
        completion += reasoning
    return Told(span, work, is_engine, _request_id(span), prompt, completion, cached, reasoning)


def _count(span: Span, name: str) -> int | None:
    for attribute in NAMES[name]:
        value = span.attributes.get(attribute)
        if value is not None:
            return _tokens(attribute, value)
    return None


def _tokens(attribute: str, value: Value) -> int:
    is_text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 12
    is_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    )
    number = int(value) if is_text or is_number else -1  # type: ignore[arg-type]
    if not 0 <= number <= MAX_TOKENS:
        raise RefusedSpan(
            f"{attribute}={str(value)[:40]!r} is no number of tokens (0 to {MAX_TOKENS:,})"
        )
    return number


def _langfuse_counts(span: Span) -> dict[str, int | None]:
    """Counts of Langfuse's JSON. Keys that begin with `input` are parts of the prompt, with
    `output` of the answer."""
    try:
        details = json.loads(str(span.attributes[LANGFUSE_USAGE]))
    except (ValueError, RecursionError):
        raise RefusedSpan(f"{LANGFUSE_USAGE} is no JSON object") from None
    if not isinstance(details, dict):
        raise RefusedSpan(f"{LANGFUSE_USAGE} is no JSON object")
    counts = {
        str(key): _tokens(
            f"{LANGFUSE_USAGE}.{str(key)[:40]}",
            value if isinstance(value, int | float | str) else None,
        )
        for key, value in details.items()
        if value is not None
    }
    prompt = [
        count for key, count in counts.items() if key.startswith(("input", "prompt", "cache"))
    ]
    completion = [
        count for key, count in counts.items() if key.startswith(("output", "completion"))
    ]
    return {
        "prompt_tokens": sum(prompt) if prompt else None,
        "completion_tokens": sum(completion) if completion else None,
        "cached_tokens": sum(
            count
            for key, count in counts.items()
            if "cached" in key or ("cache" in key and "read" in key)
        ),
        "reasoning_tokens": sum(count for key, count in counts.items() if "reasoning" in key),
        "cache_write_tokens": 0,
    }


def _request_id(span: Span) -> str | None:
    text = text_of(span.attributes, *NAMES["request_id"])
    if text is None:
        return None
    first = _FIRST_PROMPT.fullmatch(text)
    return (first[1] if first else text)[:MAX_LABEL]


def part_ms_of(told: Told, name: str, latency_ms: float | None) -> float | None:
    seconds = seconds_of(told.span, name)
    return (
        None
        if seconds is None or latency_ms is None
        else min(rounded_ms(seconds * 1000), latency_ms)
    )


def ttft_ms_of(told: Told, latency_ms: float | None) -> float | None:
    ttft_ms = part_ms_of(told, "ttft_seconds", latency_ms)
    if ttft_ms is not None or latency_ms is None:
        return ttft_ms
    text = text_of(told.span.attributes, LANGFUSE_FIRST_TOKEN)
    try:
        at = datetime.fromisoformat((text or "").strip('"')) if text else None
    except ValueError:
        return None
    if at is None or at.tzinfo is None:
        return None
    after_ms = at.timestamp() * 1000 - told.span.start_ns / 1e6
    return min(rounded_ms(after_ms), latency_ms) if after_ms >= 0 else None


def rounded_ms(value: float) -> float:
    return round(value, 3)  # the ledger's resolution


def seconds_of(span: Span, name: str) -> float | None:
    """A known time; what is no time is not known."""
    for attribute in NAMES[name]:
        value = span.attributes.get(attribute)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value >= 0
        ):
            return float(value)
    return None


def finish_reason_of(span: Span) -> str | None:
    for name in NAMES["finish_reason"]:
        value = span.attributes.get(name)
        if isinstance(value, str) and value.startswith("["):  # SGLang sends the list as JSON
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, list):
            value = next((one for one in value if isinstance(one, str)), None)
        if isinstance(value, str) and value:
            return value[:MAX_LABEL]
    return None


def text_of(attributes: Attributes, *names: str) -> str | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip().replace("\0", "")
    return None


def trace_state_of(span: Span) -> dict[str, str]:
    members = (member.strip().partition("=") for member in span.trace_state.split(","))
    return {name: value.strip() for name, _, value in members if name}


def _given(span: Span) -> str:
    names = (name for field in ("prompt_tokens", "completion_tokens") for name in NAMES[field])
    return next(
        (f"{name}={str(span.attributes[name])[:40]}" for name in names if name in span.attributes),
        LANGFUSE_USAGE,
    )
