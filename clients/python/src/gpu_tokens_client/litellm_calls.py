"""What LiteLLM's record of one call says about tokens, times, tenant and engine. Needs no LiteLLM.

The record is `kwargs["standard_logging_object"]` of a callback (LiteLLM 1.110:
litellm/types/utils.py, StandardLoggingPayload). Its counts are inclusive, for Anthropic's answers,
too; every level of the details may be null. Texts of prompts and answers lie in it and are not
looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

CLIENT_CLOSED_REQUEST = "499"
UNKNOWN_INSTANCE = "litellm"
TENANT = (
    "user_api_key_team_alias",
    "user_api_key_team_id",
    "user_api_key_alias",
    "user_api_key_org_id",
)
# Where GPUs are somebody else's: what LiteLLM asks of them is no work of one's own.
HOSTED = (
    "openai.com", "azure.com", "anthropic.com", "amazonaws.com", "googleapis.com", "mistral.ai",
    "groq.com", "cohere.com",
    "cohere.ai", "deepseek.com", "together.xyz", "together.ai", "fireworks.ai", "openrouter.ai",
    "x.ai", "perplexity.ai",
    "databricks.com", "replicate.com", "nvidia.com", "huggingface.co", "cerebras.ai",
    "sambanova.ai", "deepinfra.com",
)  # fmt: skip
_MAX_LABEL = 256
_MAX_HOST = 128


@dataclass(frozen=True)
class Call:
    """One finished call, as `UsageClient.emit` takes it. instance: host:port of the engine that
    answered."""

    event_id: str
    request_id: str
    instance: str
    model: str
    tenant: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    ended_at: datetime
    latency_ms: float | None
    ttft_ms: float | None
    finish_reason: str | None


def is_from_cache(record: Mapping[str, Any]) -> bool:
    """Whether LiteLLM answered from its own response cache: no engine worked."""
    return record.get("cache_hit") is True


def is_hosted(record: Mapping[str, Any], hosted: Sequence[str] = HOSTED) -> bool:
    """Whether the engine that answered is a provider's, by the domain of its address."""
    host = _address(record)[0]
    return any(host == domain or host.endswith(f".{domain}") for domain in hosted)


def call_of(record: Mapping[str, Any], tenant: Sequence[str] = TENANT) -> Call | None:
    """The call in a record; None where it has no tokens (a route without a model, a failure before
    the engine's first word).

    tenant: names in the record's metadata, or of the record itself (`end_user`, `model_group`); the
    first that says anything holds.
    Raises ValueError and TypeError where the record is none.
    """
    prompt, completion = (
        _count(record.get("prompt_tokens")),
        _count(record.get("completion_tokens")),
    )
    if not prompt and not completion:
        return None
    metadata = _part(record, "metadata")
    usage = _part(metadata, "usage_object")
    prompt_details, completion_details = (
        _part(usage, "prompt_tokens_details"),
        _part(usage, "completion_tokens_details"),
    )
    cached = _count(prompt_details.get("cached_tokens")) or _count(
        usage.get("cache_read_input_tokens")
    )
    started, ended = float(record["startTime"]), float(record["endTime"])
    first = record.get("completionStartTime")
    latency = max(0.0, ended - started)
    streamed = (
        record.get("stream") is True and isinstance(first, int | float) and started <= first < ended
    )
    is_cut = str(_part(record, "error_information").get("error_code")) == CLIENT_CLOSED_REQUEST
    return Call(
        event_id=_event_id(record),
        request_id=_text(record.get("id")) or _text(record.get("litellm_call_id")) or "",
        instance=_instance(record),
        model=_model(record),
        tenant=next(
            (
                text
                for name in tenant
                if (text := _text(metadata.get(name)) or _text(record.get(name)))
            ),
            None,
        ),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=min(_count(completion_details.get("reasoning_tokens")), completion),
        ended_at=datetime.fromtimestamp(ended, UTC),
        latency_ms=round(latency * 1000, 3),
        ttft_ms=round((float(first) - started) * 1000, 3)
        if streamed and first is not None
        else None,
        finish_reason="abort" if is_cut else _finish_reason(record),
    )


def _event_id(record: Mapping[str, Any]) -> str:
    """The same for a call that is told twice (a synchronous and an asynchronous callback), another
    one for another call.

    The call id alone would not do: callers may set it (x-litellm-call-id), the same one for all
    calls of an agent.
    """
    parts = ("litellm", record.get("litellm_call_id"), record.get("id"))
    if not parts[1] and not parts[2]:
        raise ValueError("a call without id and litellm_call_id cannot be told from others")
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _address(record: Mapping[str, Any]) -> tuple[str, int | None]:
    base = (
        _text(record.get("api_base")) or _text(_part(record, "hidden_params").get("api_base")) or ""
    )
    try:
        parts = urlsplit(base if "://" in base else f"//{base}")
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        return (parts.hostname or "").rstrip("."), port
    except ValueError:
        return "", None


def _instance(record: Mapping[str, Any]) -> str:
    """The engine's address as placements have it: of the pod, where LiteLLM chose one, else of
    `api_base`."""
    host, port = _address(record)
    pod = _text(_part(_part(record, "metadata"), "kubernetes_pod_routing").get("pod_ip"))
    host = pod or host
    if not host:
        return UNKNOWN_INSTANCE
    shown = f"[{host}]" if ":" in host else host
    return (f"{shown}:{port}" if port is not None else shown)[:_MAX_HOST]


def _model(record: Mapping[str, Any]) -> str:
    """As the engine calls it: without the prefix by which LiteLLM finds the provider
    (`hosted_vllm/`)."""
    model = _text(record.get("model")) or _text(record.get("model_group")) or "unknown"
    prefix, _, rest = model.partition("/")
    return rest if rest and prefix == record.get("custom_llm_provider") else model


def _finish_reason(record: Mapping[str, Any]) -> str | None:
    response = _part(record, "response")
    choices = response.get("choices")
    first = (
        choices[0]
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping)
        else response
    )
    return _text(first.get("finish_reason")) or _text(first.get("status"))


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    return (
        int(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0
    )


def _text(value: Any) -> str | None:
    return value.strip().replace("\0", "")[:_MAX_LABEL] or None if isinstance(value, str) else None
