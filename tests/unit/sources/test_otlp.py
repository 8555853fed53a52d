"""OTLP's two encodings say the same; what is none of them is refused before it is held."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, Parse
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind as Kind
from opentelemetry.trace import StatusCode, set_span_in_context

from gpu_token_analytics.sources import otlp
from gpu_token_analytics.sources.otlp import (
    JSON,
    PROTOBUF,
    BadExport,
    TooLarge,
    read_json,
    read_protobuf,
    unpacked,
)

ATTRIBUTES: dict[str, Any] = {
    "text": "prompt",
    "truth": True,
    "zero": 0,
    "count": 2**53 + 1,
    "part": 0.25,
    "reasons": ["stop", "length"],
    "counts": [1, 2],
}


def request_of_an_sdk() -> ExportTraceServiceRequest:
    """Two spans as OpenTelemetry's own SDK makes and encodes them."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "vllm", "host.name": "node1"}))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("vllm.llm_engine")
    parent = tracer.start_span("parent", start_time=1_769_860_800_000_000_000)
    child = tracer.start_span(
        "llm_request", set_span_in_context(parent), kind=Kind.SERVER, attributes=ATTRIBUTES
    )
    child.set_status(StatusCode.ERROR)
    child.end()
    parent.end(end_time=1_769_860_802_500_000_001)
    return encode_spans(memory.get_finished_spans())


def as_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """As OTLP has it: protobuf's JSON, but ids in hexadecimal digits and enums as numbers."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = b64decode(span[name]).hex()
    return document


def test_what_an_sdk_sends_is_read() -> None:
    child, parent = read_protobuf(request_of_an_sdk().SerializeToString())
    assert child.attributes == ATTRIBUTES
    assert child.resource["service.name"] == "vllm"
    assert (child.name, child.kind, child.is_error) == ("llm_request", 2, True)
    assert (child.trace_id, child.parent_id) == parent.address
    assert (len(child.trace_id), len(child.span_id)) == (32, 16)
    assert (parent.start_ns, parent.end_ns) == (
        1_769_860_800_000_000_000,
        1_769_860_802_500_000_001,
    )


def test_both_encodings_say_the_same() -> None:
    request = request_of_an_sdk()
    document = as_json(request)
    assert read_json(json.dumps(document).encode()) == read_protobuf(request.SerializeToString())
    for span in (
        span for r in document["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]
    ):
        # numbers are allowed, too
        span |= {name: int(span[name]) for name in ("startTimeUnixNano", "endTimeUnixNano")}
        span |= {
            "traceId": span["traceId"].upper(),
            "unknownField": {"deep": [{}]},
            "status": None,
            "links": [{"x": 1}],
        }
    again = read_json(json.dumps(document).encode())
    assert [(span.address, span.attributes, span.start_ns) for span in again] == [
        (span.address, span.attributes, span.start_ns)
        for span in read_protobuf(request.SerializeToString())
    ]


def test_an_empty_request_is_one() -> None:
    assert read_protobuf(b"") == read_json(b"{}") == read_json(b'{"resourceSpans":null}') == []
    assert read_json(b'{"resourceSpans":[{"scopeSpans":[{"spans":[]}]}]}') == []


def span_json(**fields: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no export request"),
        (b"nonsense", "no export request"),
        (b"[]", "no export request"),
        (b"\xff\xfe", "no export request"),
        (b'{"resourceSpans":' + b"[" * 100_000, "no export request"),
        (b'{"resourceSpans":{}}', "no export request"),
        (span_json(traceId="CvdlGRbNQ91ESOshHIAxnA=="), "traceId='CvdlGRbNQ91ESOshHIAxnA=='"),
        (span_json(spanId="xyz"), "16 hexadecimal digits"),
        (span_json(spanId="abcdef"), "16 hexadecimal digits"),
        (span_json(startTimeUnixNano="soon"), "startTimeUnixNano='soon' is no integer"),
        (span_json(startTimeUnixNano="9" * 5000), "is no integer"),
        (span_json(attributes=[{"key": "a", "value": {"intValue": "1.5"}}]), "intValue='1.5'"),
        (
            span_json(attributes=[{"key": "a", "value": {"doubleValue": "much"}}]),
            "doubleValue='much'",
        ),
        (span_json(kind="SPAN_KIND_SERVER"), "no export request"),
    ],
)
def test_what_is_no_json_export_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadExport) as refused:
        read_json(body)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("body", [b"nonsense", b"\x0a\xff", b"{}", gzip.compress(b"", mtime=0)])
def test_what_is_no_protobuf_export_is_refused(body: bytes) -> None:
    with pytest.raises(BadExport, match="no ExportTraceServiceRequest"):
        read_protobuf(body)


@pytest.mark.parametrize("value", ["NaN", "Infinity", 0.5, "0.5"])
def test_numbers_that_json_lacks_are_texts(value: Any) -> None:
    (span,) = read_json(span_json(attributes=[{"key": "a", "value": {"doubleValue": value}}]))
    assert isinstance(span.attributes["a"], float)


def test_texts_are_cut_and_what_is_no_plain_value_is_none() -> None:
    values: list[Any] = [
        {"stringValue": "x" * 10_000},
        {"bytesValue": "AAAA"},
        {"kvlistValue": {"values": []}},
        {},
        None,
    ]
    values.append(
        {"arrayValue": {"values": [{"stringValue": "a"}, {"arrayValue": {"values": [{}]}}, {}]}}
    )
    (span,) = read_json(
        span_json(attributes=[{"key": str(n), "value": value} for n, value in enumerate(values)])
    )
    assert [span.attributes[str(n)] for n in range(1, 6)] == [
        None,
        None,
        None,
        None,
        ["a", None, None],
    ]
    assert span.attributes["0"] == "x" * otlp.MAX_TEXT


# -- bounds ----------------------------------------------------------------------------------------


def test_gzip_is_unpacked_no_further_than_the_limit() -> None:
    body = gzip.compress(b"x" * 10_000)
    assert unpacked(body, "gzip", 10_000) == b"x" * 10_000
    assert unpacked(b"plain", "", 3) == unpacked(b"plain", "identity", 3) == b"plain"
    with pytest.raises(TooLarge, match="9,999 bytes"):
        unpacked(body, "gzip", 9_999)
    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(TooLarge):
        unpacked(bomb, "gzip", 1 << 20)


@pytest.mark.parametrize(
    "body",
    [b"plain", gzip.compress(b"x", mtime=0)[:-4], gzip.compress(b"x", mtime=0) + b"more", b""],
)
def test_what_is_no_whole_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(BadExport):
        unpacked(body, "gzip", 1000)


def test_other_encodings_are_refused() -> None:
    with pytest.raises(BadExport, match="send gzip"):
        unpacked(b"", "zstd", 1000)


def test_too_many_spans_or_objects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "MAX_SPANS", 1)
    request = request_of_an_sdk()
    with pytest.raises(TooLarge, match="more than 1 spans"):
        read_protobuf(request.SerializeToString())
    with pytest.raises(TooLarge, match="more than 1 spans"):
        read_json(json.dumps(as_json(request)).encode())
    with pytest.raises(TooLarge, match="JSON objects"):
        read_json(b'{"resourceSpans":[' + b"{}," * otlp.MAX_JSON_OBJECTS + b"{}]}")


# -- answers ---------------------------------------------------------------------------------------


def test_answers_in_both_encodings() -> None:
    assert otlp.export_answer(PROTOBUF, 0, "") == b""
    assert json.loads(otlp.export_answer(JSON, 0, "")) == {}
    binary = ExportTraceServiceResponse.FromString(otlp.export_answer(PROTOBUF, 3, "why"))
    text = Parse(otlp.export_answer(JSON, 3, "why"), ExportTraceServiceResponse())
    assert binary == text
    assert (binary.partial_success.rejected_spans, binary.partial_success.error_message) == (
        3,
        "why",
    )
    warning = ExportTraceServiceResponse.FromString(otlp.export_answer(PROTOBUF, 0, "sampled"))
    assert (warning.partial_success.rejected_spans, warning.partial_success.error_message) == (
        0,
        "sampled",
    )


@pytest.mark.parametrize(
    ("http", "code"), [(400, 3), (401, 16), (403, 7), (413, 8), (429, 8), (503, 14), (500, 13)]
)
def test_errors_are_a_status(http: int, code: int) -> None:
    assert Status.FromString(otlp.status_answer(PROTOBUF, http, "why")) == Status(
        code=code, message="why"
    )
    assert json.loads(otlp.status_answer(JSON, http, "why")) == {"code": code, "message": "why"}
