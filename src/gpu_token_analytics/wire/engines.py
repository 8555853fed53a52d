"""The serving engines whose counters are read, and when each counts a token: what its counters can
be compared with.

Sources: vLLM 0.33 vllm/v1/metrics, SGLang 0.5.23 observability/metrics_collector.py, TensorRT-LLM
1.3, Dynamo 1.6, LMDeploy 0.16, llama.cpp tools/server, text-generation-inference router. What each
counter is called: agent/engines/names.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

Engine: TypeAlias = Literal[
    "vllm", "sglang", "trtllm", "triton", "dynamo", "llamacpp", "lmdeploy", "ray", "tgi"
]


class When(StrEnum):
    """When a counter of tokens takes them, all at once or as they are made."""

    START = "start"  # the request is accepted
    FIRST_TOKEN = "first_token"  # of an answer
    LIVE = "live"
    END = "end"


class Counted(NamedTuple):
    """When an engine counts the tokens of a request."""

    prompt: When
    completion: When


_AT_THE_END = Counted(When.END, When.END)
_LIKE_VLLM = Counted(When.FIRST_TOKEN, When.LIVE)

COUNTED: dict[Engine, Counted] = {
    "vllm": _LIKE_VLLM,
    "sglang": _AT_THE_END,
    "trtllm": _AT_THE_END,
    "triton": _LIKE_VLLM,  # of its vLLM backend: Triton itself counts no tokens
    "dynamo": Counted(When.END, When.LIVE),
    "llamacpp": _AT_THE_END,
    "lmdeploy": _LIKE_VLLM,
    "ray": _LIKE_VLLM,
    "tgi": Counted(When.START, When.END),
}
