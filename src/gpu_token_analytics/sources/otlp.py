"""OTLP 1.x, traces: an export request as spans, and the answers, in protobuf and in JSON.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. JSON is protobuf's own mapping with OTLP's
exceptions: ids are hexadecimal, enums are integers, unknown fields are ignored; 64-bit integers are
numbers or texts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from gpu_token_analytics.sources.spans import Attributes, Span, Value

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MAX_SPANS = 20_000
# spans, attributes and their values: each is held as an object of its own
MAX_JSON_OBJECTS = 400_000
MAX_TEXT = 4096  # characters of an attribute that are looked at; prompts and answers are not
_ERROR = 2  # STATUS_CODE_ERROR
_GZIP = 16 + zlib.MAX_WBITS
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 422: 3, 429: 8, 503: 14}
_INTERNAL = 13


class BadExport(Exception):
    """The bytes are no export request; the message says what is wrong."""


class TooLarge(Exception):
    """More than is taken in one request; the message names the limit."""


def unpacked(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The body without its Content-Encoding. Raises BadExport, TooLarge; what would be larger is
    never held."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise BadExport(f"Content-Encoding {encoding[:40]!r}: send gzip, or none")
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadExport(f"the body is not gzip: {error}") from None
    if len(plain) > limit_bytes:
        raise TooLarge(f"more than {limit_bytes:,} bytes when unpacked; send smaller batches")
    if not unpacker.eof or unpacker.unused_data:
        raise BadExport(
            "the body is not one gzip stream: its end is missing, or something follows it"
        )
    return plain


def read_protobuf(body: bytes) -> list[Span]:
    """The spans of an ExportTraceServiceRequest. Raises BadExport, TooLarge."""
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise BadExport(f"the body is no ExportTraceServiceRequest in protobuf: {error}") from None
    _check_count(
        len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans
    )
    spans = []
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                spans.append(
                    Span(
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        name=span.name[:MAX_TEXT],
                        kind=span.kind,
                        start_ns=span.start_time_unix_nano,
                        end_ns=span.end_time_unix_nano,
                        attributes=_attributes(span.attributes),
                        resource=resource,
                        trace_state=span.trace_state[:MAX_TEXT],
                        is_error=span.status.code == _ERROR,
                    )
                )
    return spans


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value[:MAX_TEXT]
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "array_value":
            return [
                _value(one) if one.WhichOneof("value") != "array_value" else None
                for one in value.array_value.values
            ]
        case _:
            return None


class _Json(msgspec.Struct, rename="camel", gc=False):
    """An object of OTLP in JSON: null is the default, as in protobuf's mapping."""


class _Values(_Json):
    values: list[_AnyValue] | None = None


class _AnyValue(_Json):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: _Values | None = None


class _KeyValue(_Json):
    key: str | None = None
    value: _AnyValue | None = None


class _Status(_Json):
    code: int | None = None


class _Span(_Json):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    trace_state: str | None = None
    name: str | None = None
    kind: int | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_KeyValue] | None = None
    status: _Status | None = None


class _ScopeSpans(_Json):
    spans: list[_Span] | None = None


class _Resource(_Json):
    attributes: list[_KeyValue] | None = None


class _ResourceSpans(_Json):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(_Json):
    resource_spans: list[_ResourceSpans] | None = None


_decoder = msgspec.json.Decoder(_Request)


def read_json(body: bytes) -> list[Span]:
    """The spans of an export request in JSON. Raises BadExport, TooLarge."""
    if body.count(b"{") > MAX_JSON_OBJECTS:
        raise TooLarge(
            f"more than {MAX_JSON_OBJECTS:,} JSON objects in one request; send smaller batches"
        )
    try:
        request = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        said = "".join(character if " " <= character <= "~" else "?" for character in str(error))[
            :200
        ]
        raise BadExport(f"the body is no export request in OTLP's JSON: {said}") from None
    groups = request.resource_spans or ()
    _check_count(len(scope.spans or ()) for group in groups for scope in group.scope_spans or ())
    spans = []
    for group in groups:
        resource = _json_attributes(group.resource.attributes if group.resource else None)
        for scope in group.scope_spans or ():
            spans += [_json_span(span, resource) for span in scope.spans or ()]
    return spans


def _json_span(span: _Span, resource: Attributes) -> Span:
    return Span(
        trace_id=_hexadecimal("traceId", span.trace_id, 16),
        span_id=_hexadecimal("spanId", span.span_id, 8),
        parent_id=_hexadecimal("parentSpanId", span.parent_span_id, 8),
        name=(span.name or "")[:MAX_TEXT],
        kind=span.kind or 0,
        start_ns=_integer("startTimeUnixNano", span.start_time_unix_nano),
        end_ns=_integer("endTimeUnixNano", span.end_time_unix_nano),
        attributes=_json_attributes(span.attributes),
        resource=resource,
        trace_state=(span.trace_state or "")[:MAX_TEXT],
        is_error=span.status is not None and span.status.code == _ERROR,
    )


def _json_attributes(pairs: list[_KeyValue] | None) -> Attributes:
    return {pair.key or "": _json_value(pair.value) for pair in pairs or ()}


def _json_value(value: _AnyValue | None, within: bool = False) -> Value:
    read: Value = None
    if value is None:
        pass
    elif value.string_value is not None:
        read = value.string_value[:MAX_TEXT]
    elif value.bool_value is not None:
        read = value.bool_value
    elif value.int_value is not None:
        read = _integer("intValue", value.int_value)
    elif value.double_value is not None:
        read = _number(value.double_value)
    elif value.array_value is not None and not within:
        read = [_json_value(one, within=True) for one in value.array_value.values or ()]
    return read


def _integer(field: str, value: int | str | None) -> int:
    if isinstance(value, str):
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
            raise BadExport(f"{field}={value[:40]!r} is no integer")
        return int(value)
    return value or 0


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        raise BadExport(f"doubleValue={str(value)[:40]!r} is no number") from None


def _hexadecimal(field: str, text: str | None, size: int) -> str:
    if not text:
        return ""
    if len(text) != 2 * size or text.strip("0123456789abcdefABCDEF"):
        raise BadExport(
            f"{field}={text[:40]!r}: OTLP's JSON has ids of {2 * size} hexadecimal digits, not "
            "base64"
        )
    return text.lower()


def _check_count(counts: Iterator[int]) -> None:
    if sum(counts) > MAX_SPANS:
        raise TooLarge(f"more than {MAX_SPANS:,} spans in one request; send smaller batches")


def export_answer(media_type: str, rejected: int, message: str) -> bytes:
    """The answer to what was taken. Without a message all is well; with one and nothing rejected it
    is a warning."""
    response = ExportTraceServiceResponse()
    if message:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    return _encoded(response, media_type)


def status_answer(media_type: str, http_status: int, message: str) -> bytes:
    """The body of an error: a google.rpc.Status."""
    return _encoded(rpc_status(http_status, message), media_type)


def rpc_status(http_status: int, message: str, retry_seconds: int | None = None) -> Status:
    """An error as gRPC says it; retry_seconds: the sender should try again after them
    (RetryInfo)."""
    status = Status(code=_RPC_CODES.get(http_status, _INTERNAL), message=message[:MAX_TEXT])
    if retry_seconds is not None:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=retry_seconds)))
    return status


def _encoded(message: Message, media_type: str) -> bytes:
    encoded: bytes = (
        message.SerializeToString()
        if media_type == PROTOBUF
        else MessageToJson(message, indent=None).encode()
    )
    return encoded
