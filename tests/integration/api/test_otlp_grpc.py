"""OTLP/gRPC answers as the specification says, to the real OpenTelemetry exporter and to calls that
no exporter would make."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind
from tests.integration.api.conftest import Api
from tests.integration.api.test_traces import AwayKafka, export, llm, sent
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.sinks import MemorySink

stub: Any = TraceServiceStub
MakeStore = Callable[[], tuple[Store, Settings]]
GPU = {"gpu_tokens.gpus": "GPU-a"}


@contextmanager
def serving_spans(
    make_store: MakeStore, sink: MemorySink, **settings: Any
) -> Iterator[tuple[Api, str]]:
    """The API with OTLP/gRPC, and where that listens."""
    store, made = make_store()
    port = free_port()
    used = made.model_copy(update={"otlp_grpc_port": port, "http_host": "127.0.0.1", **settings})
    services = Services.of(store, used, sink=sink)
    app = create_app(services)
    with serving(app) as url:
        door = Api(url, app, store, services, used, [], sink)
        yield door, f"127.0.0.1:{port}"
        door.close()


@pytest.fixture
def served(make_store: MakeStore) -> Iterator[tuple[Api, str]]:
    with serving_spans(make_store, MemorySink()) as made:
        yield made


def call(
    target: str, request: ExportTraceServiceRequest | bytes, key: str | None, **options: Any
) -> tuple[grpc.StatusCode, Status | None, ExportTraceServiceResponse | None]:
    """(code, details, answer) of one call."""
    metadata = [] if key is None else [("x-api-key", key)]
    with grpc.insecure_channel(target) as channel:
        unary = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=None,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        body = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            answer = unary(body, metadata=metadata, timeout=30, wait_for_ready=True, **options)
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
            return error.code(), None if details is None else Status.FromString(details), None
        return grpc.StatusCode.OK, None, answer


def retry_seconds(status: Status | None) -> int | None:
    assert status is not None
    for detail in status.details:
        info = RetryInfo()
        if detail.Unpack(info):
            return int(info.retry_delay.seconds)
    return None


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip], ids=["plain", "gzip"])
@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_the_real_exporter(
    served: tuple[Api, str], compression: grpc.Compression | None, header: str
) -> None:
    door, target = served
    key = door.key(KeyScope.INGEST)
    value = key if header == "x-api-key" else f"Bearer {key}"
    exporter = OTLPSpanExporter(
        endpoint=f"http://{target}", headers=((header, value),), compression=compression
    )
    provider = TracerProvider(
        resource=Resource.create({"service.name": "vllm", "host.name": "node1", **GPU})
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end_ns = time.time_ns()
    span = provider.get_tracer("vllm.llm_engine").start_span(
        "llm_request", kind=SpanKind.SERVER, start_time=end_ns - 2 * 10**9
    )
    span.set_attributes(llm())
    span.end(end_ns)
    provider.shutdown()
    (usage,) = sent(door)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.gpus, usage.host) == (
        1000,
        200,
        ["GPU-a"],
        "node1",
    )
    assert usage.latency_ms == 1900
    assert door.sink.flushes, "answered after Kafka acknowledged"


def test_both_doors_make_the_same_event(served: tuple[Api, str]) -> None:
    door, target = served
    request = export(llm(), resource=GPU)
    code, _, answer = call(target, request, door.key(KeyScope.INGEST))
    assert (code, answer) == (grpc.StatusCode.OK, ExportTraceServiceResponse()), (
        "all accepted: partial_success is not set"
    )
    http = door.client(KeyScope.INGEST).post(
        "/v1/traces",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    assert http.status_code == 200
    over_grpc, over_http = door.sink.records
    assert over_grpc == over_http, "byte for byte, the id too: sent by both it counts once"


def test_generated_stubs_reach_it(served: tuple[Api, str]) -> None:
    door, target = served
    with grpc.insecure_channel(target) as channel:
        answer = stub(channel).Export(
            ExportTraceServiceRequest(), metadata=[("x-api-key", door.key(KeyScope.INGEST))]
        )
    assert answer == ExportTraceServiceResponse(), "nothing is a success"
    assert door.sink.records == []


def test_some_refused_is_a_partial_success(served: tuple[Api, str]) -> None:
    door, target = served
    request = export(llm(1), llm(2, **{"gen_ai.usage.prompt_tokens": -5}), resource=GPU)
    code, _, answer = call(target, request, door.key(KeyScope.INGEST))
    assert code is grpc.StatusCode.OK
    assert answer is not None
    assert answer.partial_success.rejected_spans == 1
    assert (
        "span 0000000000000002: gen_ai.usage.prompt_tokens='-5'"
        in answer.partial_success.error_message
    )
    assert len(sent(door)) == 1


def test_the_key_decides(served: tuple[Api, str]) -> None:
    door, target = served
    request = export(llm(), resource=GPU)
    assert call(target, request, None)[0] is grpc.StatusCode.UNAUTHENTICATED
    assert call(target, request, "gta_wrong")[0] is grpc.StatusCode.UNAUTHENTICATED
    code, status, _ = call(target, request, door.key(KeyScope.READ))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert retry_seconds(status) is None
    assert door.sink.records == []
    code, _, answer = call(
        target,
        export(llm(1, **{"gpu_tokens.tenant": "other"}), resource=GPU),
        door.key(KeyScope.INGEST, tenant="acme"),
    )
    assert answer is not None
    assert (code, answer.partial_success.rejected_spans) == (grpc.StatusCode.OK, 1)


def test_what_is_no_export_request_is_for_good(served: tuple[Api, str]) -> None:
    door, target = served
    code, status, _ = call(target, b"nonsense", door.key(KeyScope.INGEST))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status is not None
    assert "ExportTraceServiceRequest" in status.message
    assert retry_seconds(status) is None


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_is_bounded_packed_and_unpacked(
    make_store: MakeStore, compression: grpc.Compression
) -> None:
    with serving_spans(make_store, MemorySink(), api_max_body_bytes=100_000) as (door, target):
        request = export(llm(prompt="a" * 200_000), resource=GPU)
        assert len(gzip.compress(request.SerializeToString())) < 10_000
        code, _, _ = call(target, request, door.key(KeyScope.INGEST), compression=compression)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert door.sink.records == []
        assert (
            call(
                target,
                export(llm(), resource=GPU),
                door.key(KeyScope.INGEST),
                compression=compression,
            )[0]
            is grpc.StatusCode.OK
        )


def test_too_many_spans_are_for_good(served: tuple[Api, str]) -> None:
    door, target = served
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(20_001):
        scope.spans.add()
    code, status, _ = call(target, request, door.key(KeyScope.INGEST))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert retry_seconds(status) is None, "without RetryInfo it is not sent again"


@pytest.mark.parametrize("at_flush", [False, True])
def test_while_kafka_is_away_it_is_unavailable_with_retry_info(
    make_store: MakeStore, at_flush: bool
) -> None:
    with serving_spans(make_store, AwayKafka(at_flush)) as (door, target):
        for _ in range(2):  # the second one is told at once
            code, status, _ = call(target, export(llm(), resource=GPU), door.key(KeyScope.INGEST))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert retry_seconds(status) == 5


def test_too_fast_is_told_when_to_come_back(make_store: MakeStore) -> None:
    with serving_spans(
        make_store, MemorySink(), api_requests_per_second=0.1, api_request_burst=1
    ) as (door, target):
        request, key = export(llm(), resource=GPU), door.key(KeyScope.INGEST)
        assert call(target, request, key)[0] is grpc.StatusCode.OK
        code, status, _ = call(target, request, key)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 1 <= (retry_seconds(status) or 0) <= 12
        assert len(door.sink.records) == 1


def test_the_real_exporter_sends_again_what_kafka_did_not_take(make_store: MakeStore) -> None:
    class Coming(MemorySink):
        def flush(self, timeout_seconds: float) -> None:
            super().flush(timeout_seconds)
            if len(self.flushes) == 1:
                self.records.clear()
                AwayKafka(True).flush(0)

    with serving_spans(make_store, Coming()) as (door, target):
        exporter = OTLPSpanExporter(
            endpoint=f"http://{target}",
            headers=(("x-api-key", door.key(KeyScope.INGEST)),),
            timeout=30,
        )
        provider = TracerProvider(resource=Resource.create(GPU))
        outcomes: list[SpanExportResult] = []

        class Kept(SimpleSpanProcessor):
            def on_end(self, span: Any) -> None:
                outcomes.append(exporter.export([span]))

        provider.add_span_processor(Kept(exporter))
        span = provider.get_tracer("x").start_span("llm_request", kind=SpanKind.SERVER)
        span.set_attributes(llm())
        span.end()
        provider.shutdown()
        assert outcomes == [SpanExportResult.SUCCESS]
        assert len(sent(door)) == 1


def test_calls_are_counted_with_those_over_http(served: tuple[Api, str]) -> None:
    door, target = served
    call(target, export(llm(), resource=GPU), door.key(KeyScope.INGEST))
    call(target, b"nonsense", door.key(KeyScope.INGEST))
    page = httpx.get(f"{door.url}/metrics", trust_env=False).text
    for status in ("200", "400"):
        assert (
            f'gpu_tokens_api_requests_total{{method="gRPC",route="/v1/traces",status="{status}"}} '
            "1.0" in page
        )


def test_a_key_may_be_left_out_on_a_loopback_address_that_says_so(make_store: MakeStore) -> None:
    store, made = make_store()
    port = free_port()
    used = made.model_copy(
        update={
            "otlp_grpc_port": port,
            "http_host": "127.0.0.1",
            "api_allow_anonymous_loopback": True,
        }
    )
    sink = MemorySink()
    with serving(create_app(Services.of(store, used, sink=sink, loopback_only=True))):
        assert call(f"127.0.0.1:{port}", export(llm(), resource=GPU), None)[0] is grpc.StatusCode.OK
        assert len(sink.records) == 1
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
            stub(channel).Export(
                ExportTraceServiceRequest(), metadata=[("x-forwarded-for", "10.0.0.1")]
            )


ABSENT = """
import sys
sys.modules["grpc"] = None
from gpu_token_analytics.cli import main
sys.argv = ["gpu-tokens", "api"]
main()
"""


@pytest.mark.parametrize(
    ("start", "said"),
    [(ABSENT, "pip install 'gpu-token-analytics[grpc]'"), ("", "the port is taken")],
)
def test_what_keeps_it_from_starting_is_one_sentence(
    make_store: MakeStore, start: str, said: str
) -> None:
    store, settings = make_store()
    code = start or ABSENT.replace('sys.modules["grpc"] = None\n', "")
    with serving(create_app(Services.of(store, settings))) as url:
        taken = url.rpartition(":")[2]
        environment = {
            "MONGODB_URI": settings.mongodb_uri.get_secret_value()
            if hasattr(settings.mongodb_uri, "get_secret_value")
            else str(settings.mongodb_uri),
            "MONGODB_DATABASE": settings.mongodb_database,
            "OTLP_GRPC_PORT": taken,
            "HTTP_PORT": str(free_port()),
            "HTTP_HOST": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert said in last, done.stderr[-2000:]
    assert f"OTLP_GRPC_PORT={taken}" in last
