"""Pages of engines' metrics as each documents them: families with HELP and TYPE, and among them
what is easily taken for a counter of tokens (histograms, gauges, times of creation, the same tokens
under other labels).

A page is made of what each rank, stream or replica of an engine has counted by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MODEL = "llama-3.3-70b"


@dataclass(frozen=True)
class Told:
    """What one rank has counted since it began. `prompt` holds `cached`, as the project counts."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    kind: str = "unified"  # of disaggregated serving


def _family(
    name: str, kind: str, rows: Sequence[tuple[Mapping[str, object], object]], suffix: str = ""
) -> str:
    lines = [f"# HELP {name} As the engine says it.", f"# TYPE {name} {kind}"]
    for labels, value in rows:
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{suffix}{{{shown}}} {value}" if shown else f"{name}{suffix} {value}")
    return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Mapping[str, object], total: int, count: int = 7) -> str:
    shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
    bucket = ",".join([shown, 'le="+Inf"']) if shown else 'le="+Inf"'
    braces = f"{{{shown}}}" if shown else ""
    return (
        f"# HELP {name} As the engine says it.\n# TYPE {name} histogram\n"
        f"{name}_bucket{{{bucket}}} {count}\n{name}_count{braces} {count}\n{name}_sum{braces} "
        f"{float(total)}\n"
    )


def _process(started: float | None) -> str:
    if started is None:
        return ""
    return _family("process_start_time_seconds", "gauge", [({}, started)]) + _family(
        "process_open_fds", "gauge", [({}, 64.0)]
    )


def vllm(
    ranks: Sequence[Told],
    started: float | None = None,
    created: float | None = None,
    prefix: str = "vllm:",
) -> str:
    """One row for each data-parallel rank (`engine`)."""
    each = [({"engine": str(rank), "model_name": MODEL}, told) for rank, told in enumerate(ranks)]
    text = _process(started)
    text += _family(f"{prefix}num_requests_running", "gauge", [(labels, 3.0) for labels, _ in each])
    text += _family(
        f"{prefix}prompt_tokens_total",
        "counter",
        [(labels, float(told.prompt)) for labels, told in each],
    )
    if created is not None:
        text += _family(
            f"{prefix}prompt_tokens_created", "gauge", [(labels, created) for labels, _ in each]
        )
    sources = [
        ({**labels, "source": source}, float(count))
        for labels, told in each
        for source, count in (
            ("local_compute", told.prompt - told.cached),
            ("local_cache_hit", told.cached),
            ("external_kv_transfer", 0),
        )
    ]
    text += _family(f"{prefix}prompt_tokens_by_source_total", "counter", sources)
    text += _family(
        f"{prefix}prompt_tokens_cached_total",
        "counter",
        [(labels, float(told.cached)) for labels, told in each],
    )
    text += _family(
        f"{prefix}generation_tokens_total",
        "counter",
        [(labels, float(told.completion)) for labels, told in each],
    )
    if created is not None:
        text += _family(
            f"{prefix}generation_tokens_created", "gauge", [(labels, created) for labels, _ in each]
        )
    # Counted at every scheduling step of a waiting request: far more than the prompt.
    text += _family(
        f"{prefix}prefix_cache_hits_total",
        "counter",
        [(labels, 30.0 * told.prompt) for labels, told in each],
    )
    return text + "".join(
        _histogram(f"{prefix}iteration_tokens_total", labels, 10**9) for labels, _ in each
    )


def ray(ranks: Sequence[Told], started: float | None = None) -> str:
    """One row for each replica, names with `_` and Ray's own labels."""
    each = [
        (
            {
                "model_name": MODEL,
                "ReplicaId": f"r{rank}",
                "WorkerId": f"w{rank}",
                "SessionName": "s1",
            },
            told,
        )
        for rank, told in enumerate(ranks)
    ]
    text = _family("ray_node_cpu_utilization", "gauge", [({"SessionName": "s1"}, 4.5)]) + _process(
        started
    )
    text += _family(
        "ray_vllm_prompt_tokens_total",
        "counter",
        [(labels, float(told.prompt)) for labels, told in each],
    )
    text += _family(
        "ray_vllm_prompt_tokens_cached_total",
        "counter",
        [(labels, float(told.cached)) for labels, told in each],
    )
    return text + _family(
        "ray_vllm_generation_tokens_total",
        "counter",
        [(labels, float(told.completion)) for labels, told in each],
    )


def sglang(ranks: Sequence[Told], started: float | None = None) -> str:
    """The tokenizer manager's family has no rank: here one row for each `is_streaming`, which began
    to exist later."""
    text = _process(started)
    each = [
        (
            {
                "model_name": MODEL,
                "engine_type": told.kind,
                "is_streaming": str(bool(rank)).lower(),
            },
            told,
        )
        for rank, told in enumerate(ranks)
    ]
    text += _family(
        "sglang:prompt_tokens_total",
        "counter",
        [(labels, float(told.prompt)) for labels, told in each],
    )
    cached = [
        ({**labels, "cache_source": source}, float(count))
        for labels, told in each
        for source, count in (
            ("device", told.cached - told.cached // 3),
            ("host", told.cached // 3),
            ("storage", 0),
            ("total", told.cached),
        )
    ]
    text += _family("sglang:cached_tokens_total", "counter", cached)
    text += _family(
        "sglang:generation_tokens_total",
        "counter",
        [(labels, float(told.completion)) for labels, told in each],
    )
    live = [
        (
            {
                "model_name": MODEL,
                "engine_type": told.kind,
                "tp_rank": "0",
                "pp_rank": "0",
                "mode": mode,
            },
            99.0,
        )
        for told in ranks[:1]
        for mode in ("prefill_compute", "prefill_cache", "decode")
    ]
    return text + _family("sglang:realtime_tokens_total", "counter", live)


def trtllm(ranks: Sequence[Told], started: float | None = None) -> str:
    """One row for each kind of engine."""
    each = [({"model_name": MODEL, "engine_type": told.kind}, told) for told in _by_kind(ranks)]
    text = _process(started) + _family(
        "trtllm_num_requests_running", "gauge", [(labels, 1.0) for labels, _ in each]
    )
    for name, values in (
        ("trtllm_prompt_tokens_total", [told.prompt for _, told in each]),
        ("trtllm_prompt_cached_tokens_total", [told.cached for _, told in each]),
        ("trtllm_generation_tokens_total", [told.completion for _, told in each]),
        ("trtllm_kv_cache_reused_blocks_total", [11 for _ in each]),
    ):
        text += _family(
            name,
            "counter",
            [(labels, float(value)) for (labels, _), value in zip(each, values, strict=True)],
        )
    return text


def dynamo(ranks: Sequence[Told], started: float | None = None) -> str:
    """A frontend: sums of histograms, and one live counter. Of several frontends each has a page of
    its own."""
    told = _together(ranks)
    labels = {"model": MODEL, "dynamo_namespace": "default"}
    text = _process(started) + _histogram(
        "dynamo_frontend_input_sequence_tokens", labels, told.prompt
    )
    text += _histogram("dynamo_frontend_cached_tokens", labels, told.cached)
    text += _histogram("dynamo_frontend_output_sequence_tokens", labels, told.completion // 2)
    text += _family(
        "dynamo_frontend_output_tokens_total", "counter", [(labels, float(told.completion))]
    )
    router = {"dynamo_component": "router"}
    return text + _histogram("dynamo_component_router_input_sequence_tokens", router, told.prompt)


def llamacpp(ranks: Sequence[Told], started: float | None = None) -> str:
    """Prompt tokens are those processed; what was reused stands beside them."""
    told = _together(ranks)
    text = _process(started)
    text += _family("llamacpp:prompt_tokens_total", "counter", [({}, told.prompt - told.cached)])
    text += _family("llamacpp:prompt_tokens_cached_total", "counter", [({}, told.cached)])
    text += _family("llamacpp:prompt_seconds_total", "counter", [({}, 12.5)])
    text += _family("llamacpp:tokens_predicted_total", "counter", [({}, told.completion)])
    return text + _family("llamacpp:predicted_tokens_seconds", "gauge", [({}, 31.7)])


def lmdeploy(ranks: Sequence[Told], started: float | None = None) -> str:
    """One row for each data-parallel rank."""
    each = [({"model_name": MODEL, "engine": str(rank)}, told) for rank, told in enumerate(ranks)]
    text = _process(started)
    text += _family(
        "lmdeploy:prompt_tokens_total",
        "counter",
        [(labels, float(told.prompt)) for labels, told in each],
    )
    text += _family(
        "lmdeploy:cached_tokens_total",
        "counter",
        [(labels, float(told.cached)) for labels, told in each],
    )
    text += _family(
        "lmdeploy:generation_tokens_total",
        "counter",
        [(labels, float(told.completion)) for labels, told in each],
    )
    return text + "".join(
        _histogram("lmdeploy:iteration_tokens_total", labels, 10**9) for labels, _ in each
    )


def tgi(ranks: Sequence[Told], started: float | None = None) -> str:
    """Sums of histograms, without a model."""
    told = _together(ranks)
    text = _process(started) + _histogram("tgi_request_input_length", {}, told.prompt)
    text += _histogram("tgi_request_generated_tokens", {}, told.completion) + _histogram(
        "tgi_request_skipped_tokens", {}, 5
    )
    return text + _family("tgi_queue_size", "gauge", [({}, 0)])


def triton(ranks: Sequence[Told], started: float | None = None) -> str:
    """Triton's own metrics, which count requests, and those of its vLLM backend."""
    text = _family(
        "nv_inference_request_success", "counter", [({"model": MODEL, "version": "1"}, 9)]
    )
    return (
        text
        + _family("nv_gpu_utilization", "gauge", [({"gpu_uuid": "GPU-a"}, 0.5)])
        + vllm(ranks, started)
    )


PAGES: dict[str, Callable[..., str]] = {
    "vllm": vllm,
    "sglang": sglang,
    "trtllm": trtllm,
    "triton": triton,
    "dynamo": dynamo,
    "llamacpp": llamacpp,
    "lmdeploy": lmdeploy,
    "ray": ray,
    "tgi": tgi,
}
NO_CACHED = frozenset({"tgi"})
NO_MODEL = frozenset({"llamacpp", "tgi"})


def _together(ranks: Sequence[Told]) -> Told:
    return Told(
        sum(told.prompt for told in ranks),
        sum(told.cached for told in ranks),
        sum(told.completion for told in ranks),
    )


def _by_kind(ranks: Sequence[Told]) -> list[Told]:
    kinds: dict[str, Told] = {}
    for told in ranks:
        before = kinds.get(told.kind, Told())
        both = _together([before, told])
        kinds[told.kind] = Told(both.prompt, both.cached, both.completion, told.kind)
    return list(kinds.values())
