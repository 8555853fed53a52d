"""Which series of which engine count which tokens: the one table.

Names are as `exposition.rows` gives them, with `_` for `:`, as Ray and OpenMetrics spell them:
`vllm:prompt_tokens_total` is `vllm_prompt_tokens` here. Whole names are compared, so
`vllm:prompt_tokens_created` (a time) and histograms that are called `..._total` are none of these.

    total = the sum of all series of a choice; of several choices the first one holds of which the
    page has a series

Versions read: vLLM 0.33.0, SGLang 0.5.23, TensorRT-LLM 1.3, Dynamo 1.6.2, llama.cpp 00dc8057,
LMDeploy 0.16.0, Ray 2.60, text-generation-inference db931fcf, Triton 26.09.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from gpu_token_analytics.wire.engines import Engine


class Tokens(StrEnum):
    """What a series counts. `cached` is a part of `prompt`."""

    PROMPT = "prompt"
    CACHED = "cached"
    COMPLETION = "completion"


@dataclass(frozen=True)
class Series:
    """Series of one name; where: label -> the values that count (all where it is not named)."""

    name: str
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of this name is one of them."""
        return all(labels.get(label) in values for label, values in self.where.items())


Choice: TypeAlias = tuple[Series, ...]  # added up
Choices: TypeAlias = tuple[Choice, ...]  # the first one that a page has


@dataclass(frozen=True)
class Names:
    """How one engine calls its counters. `hint`: what to do where none of them is there."""

    tokens: Mapping[Tokens, Choices]
    hint: str
    path: str = "/metrics"
    model: str = "model_name"  # the label; '': it names none
    prefix: str = ""  # of all its series: a page with one is the right page
    # its counters are there from the start, at 0; else each with its first token
    eager: bool = False


def _one(name: str) -> Choices:
    return ((Series(name),),)


def _like_vllm(prefix: str) -> dict[Tokens, Choices]:
    # Not prefix_cache_hits: earlier versions counted a waiting request again in every step.
    reused = frozenset({"local_cache_hit", "external_kv_transfer"})
    by_source = Series(f"{prefix}prompt_tokens_by_source", {"source": reused})
    return {
        Tokens.PROMPT: _one(f"{prefix}prompt_tokens"),
        Tokens.CACHED: ((Series(f"{prefix}prompt_tokens_cached"),), (by_source,)),
        Tokens.COMPLETION: _one(f"{prefix}generation_tokens"),
    }


_SGLANG_CACHES = frozenset({"device", "host", "storage"})

NAMES: dict[Engine, Names] = {
    "vllm": Names(
        _like_vllm("vllm_"),
        (
            "start vLLM without --disable-log-stats, and scrape the engine itself: a router's page "
            "counts the same tokens again"
        ),
        prefix="vllm_",
        eager=True,
    ),
    "sglang": Names(
        {
            Tokens.PROMPT: _one("sglang_prompt_tokens"),
            # `total` is the sum of the others: read it, or them, never all.
            Tokens.CACHED: (
                (Series("sglang_cached_tokens", {"cache_source": frozenset({"total"})}),),
                (Series("sglang_cached_tokens", {"cache_source": _SGLANG_CACHES}),),
            ),
            Tokens.COMPLETION: _one("sglang_generation_tokens"),
        },
        "start SGLang with --enable-metrics",
        prefix="sglang_",
    ),
    "trtllm": Names(
        {
            Tokens.PROMPT: _one("trtllm_prompt_tokens"),
            Tokens.CACHED: _one("trtllm_prompt_cached_tokens"),
            Tokens.COMPLETION: _one("trtllm_generation_tokens"),
        },
        "TensorRT-LLM counts tokens from 1.3 on, with return_perf_metrics: true",
        path="/prometheus/metrics",
        prefix="trtllm_",
    ),
    "triton": Names(
        _like_vllm("vllm_"),
        (
            "Triton itself counts no tokens, its vLLM backend does; of the TensorRT-LLM backend "
            "they are known by requests alone"
        ),
        prefix="vllm_",
        eager=True,
    ),
    "dynamo": Names(
        {
            Tokens.PROMPT: _one("dynamo_frontend_input_sequence_tokens_sum"),
            Tokens.CACHED: _one("dynamo_frontend_cached_tokens_sum"),
            Tokens.COMPLETION: (
                (Series("dynamo_frontend_output_tokens"),),
                (Series("dynamo_frontend_output_sequence_tokens_sum"),),
            ),
        },
        (
            "scrape Dynamo's frontend (port 8000), not its workers or its router: they show the "
            "same tokens again"
        ),
        model="model",
        prefix="dynamo_frontend_",
    ),
    "llamacpp": Names(
        {
            # What was processed and what was reused, which builds before August 2026 do not tell
            # apart.
            Tokens.PROMPT: (
                (Series("llamacpp_prompt_tokens"), Series("llamacpp_prompt_tokens_cached")),
            ),
            Tokens.CACHED: _one("llamacpp_prompt_tokens_cached"),
            Tokens.COMPLETION: _one("llamacpp_tokens_predicted"),
        },
        "start llama-server with --metrics (a router needs ?model=NAME in the URL)",
        model="",
        prefix="llamacpp_",
        eager=True,
    ),
    "lmdeploy": Names(
        {
            Tokens.PROMPT: _one("lmdeploy_prompt_tokens"),
            Tokens.CACHED: _one("lmdeploy_cached_tokens"),
            Tokens.COMPLETION: _one("lmdeploy_generation_tokens"),
        },
        "start LMDeploy without --disable-metrics",
        prefix="lmdeploy_",
    ),
    "ray": Names(
        _like_vllm("ray_vllm_"),
        (
            "Ray Serve LLM exports vLLM's counters on the metrics port of each Ray node, unless "
            "log_engine_metrics is false"
        ),
        prefix="ray_",
    ),
    "tgi": Names(
        {
            Tokens.PROMPT: _one("tgi_request_input_length_sum"),
            Tokens.COMPLETION: _one("tgi_request_generated_tokens_sum"),
        },
        "scrape text-generation-inference's own port",
        model="",
        prefix="tgi_",
    ),
}
