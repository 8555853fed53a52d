"""Engines' tracing without the engines: OpenTelemetry's SDK set up as their source does, fed with
requests on standard input.

    python -m tests.integration.sources.engines vllm|sglang ENDPOINT    one JSON object per request
    and line

Written after vllm/tracing/otel.py and vllm/v1/engine/output_processor.py (0.33),
sglang/srt/observability/trace.py (0.5.23).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SECOND_NS = 1_000_000_000


def provider(endpoint: str, own: dict[str, Any]) -> TracerProvider:
    """Both engines: the resource from the environment and their own attributes, a batch processor,
    gRPC by default."""
    is_http = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc") == "http/protobuf"
    exporter = HttpExporter(endpoint=endpoint) if is_http else GrpcExporter(endpoint=endpoint)
    made = TracerProvider(resource=Resource.create(own))
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def vllm(endpoint: str, requests: list[dict[str, Any]]) -> None:
    """vLLM: one SERVER span per finished request, made when it has finished."""
    made = provider(
        endpoint,
        {"vllm.instrumenting_module_name": "vllm.llm_engine", "vllm.process_id": str(os.getpid())},
    )
    tracer = made.get_tracer("vllm.llm_engine")
    for request in requests:
        context = TraceContextTextMapPropagator().extract(request["headers"])
        span = tracer.start_span(
            "llm_request", context=context, kind=SpanKind.SERVER, start_time=request["arrival_ns"]
        )
        span.set_attributes(
            {
                "gen_ai.latency.time_to_first_token": request["ttft"],
                "gen_ai.latency.e2e": request["e2e"],
                "gen_ai.latency.time_in_queue": request["queue"],
                "gen_ai.usage.prompt_tokens": request["prompt"],
                "gen_ai.usage.completion_tokens": request["completion"],
                "gen_ai.latency.time_in_model_prefill": request["ttft"] - request["queue"],
                "gen_ai.latency.time_in_model_decode": request["e2e"] - request["ttft"],
                "gen_ai.latency.time_in_model_inference": request["e2e"] - request["queue"],
                "gen_ai.request.id": request["id"],
                "gen_ai.request.max_tokens": 256,
                "gen_ai.request.temperature": 0.7,
                "gen_ai.request.n": 1,
            }
        )
        span.end(request["arrival_ns"] + round(request["e2e"] * SECOND_NS))
    made.shutdown()


def sglang(endpoint: str, requests: list[dict[str, Any]]) -> None:
    """SGLang: a root span per request, with a thread's span and the stages' below it."""
    made = provider(endpoint, {SERVICE_NAME: "sglang"})
    tracer = made.get_tracer("sglang server")
    for request in requests:
        end_ns = request["arrival_ns"] + round(request["e2e"] * SECOND_NS)
        root = tracer.start_span(
            f" Req {request['id'][:8]}",
            context=TraceContextTextMapPropagator().extract(request["headers"]),
            start_time=request["arrival_ns"],
            attributes={"rid": request["id"], "module": "sglang::request"},
        )
        thread = tracer.start_span(
            "tokenizer", context=trace.set_span_in_context(root), start_time=request["arrival_ns"]
        )
        for stage in ("tokenize", "prefill_forward", "decode_forward"):
            slice_span = tracer.start_span(
                stage, context=trace.set_span_in_context(thread), start_time=request["arrival_ns"]
            )
            slice_span.end(end_ns)
        thread.end(end_ns)
        root.set_attributes(
            {
                "gen_ai.usage.completion_tokens": request["completion"],
                "gen_ai.usage.prompt_tokens": request["prompt"],
                "gen_ai.usage.cached_tokens": request["cached"],
                "gen_ai.response.model": request["model"],
                "gen_ai.response.finish_reasons": json.dumps(["stop"]),
                "gen_ai.request.id": request["id"],
                "gen_ai.latency.time_to_first_token": request["ttft"],
                "gen_ai.latency.e2e": request["e2e"],
            }
        )
        root.end(end_ns)
    made.shutdown()


if __name__ == "__main__":
    {"vllm": vllm, "sglang": sglang}[sys.argv[1]](
        sys.argv[2], [json.loads(line) for line in sys.stdin]
    )
