"""POST /v1/traces answers as OTLP/HTTP says; and what is taken goes to Kafka as usages, by the
placements of the moment."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.integration.api.conftest import Api
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.errors import DeliveryFailed, KafkaUnreachable
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.sources.otlp import JSON, PROTOBUF
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.sinks import MemorySink
from gpu_token_analytics.wire.usage import TokenUsage

BINARY = {"Content-Type": PROTOBUF}


@pytest.fixture
def door(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    """An API of its own, so that placements and names are too."""
    store, settings = make_store()
    sink = MemorySink()
    services = Services.of(store, settings, sink=sink)
    app = create_app(services)
    with serving(app) as url:
        served = Api(url, app, store, services, settings, [], sink)
        yield served
        served.close()


def export(
    *spans: dict[str, Any], resource: dict[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """A request of these attributes; `_` names fields of the span."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    fill(
        group.resource.attributes,
        {"service.name": "vllm", "host.name": "node1"} if resource is None else resource,
    )
    scope = group.scope_spans.add()
    now = datetime.now(UTC)
    for number, attributes in enumerate(spans, 1):
        span = scope.spans.add(trace_id=bytes(15) + b"\1", span_id=number.to_bytes(8), kind=2)
        span.start_time_unix_nano = round((now - timedelta(seconds=3)).timestamp()) * 10**9
        span.end_time_unix_nano = span.start_time_unix_nano + 2 * 10**9
        span.trace_state = attributes.get("_trace_state", "")
        fill(
            span.attributes,
            {name: value for name, value in attributes.items() if not name.startswith("_")},
        )
    return request


def fill(pairs: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        pair = pairs.add(key=name)
        setattr(
            pair.value,
            {str: "string_value", int: "int_value", float: "double_value"}[type(value)],
            value,
        )


def llm(number: int = 1, **extra: Any) -> dict[str, Any]:
    return {
        "gen_ai.request.id": f"chatcmpl-{number:032x}",
        "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.completion_tokens": 200,
        "gen_ai.latency.e2e": 1.9,
        **extra,
    }


def sent(door: Api) -> list[TokenUsage]:
    """Everything that was handed to Kafka so far, decoded as the consumer does."""
    found = []
    for key, record in door.sink.records:
        usage = decode(record, datetime.now(UTC))
        assert isinstance(usage, TokenUsage)
        assert key == usage.host
        found.append(usage)
    return found


def ingest(door: Api, tenant: str | None = None) -> httpx.Client:
    return door.client(KeyScope.INGEST, tenant=tenant)


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON, f"{JSON}; charset=utf-8"])
def test_what_is_taken_is_answered_in_its_own_encoding(
    door: Api, media_type: str, packed: bool
) -> None:
    if media_type == PROTOBUF:
        body = export(llm(), resource={"gpu_tokens.gpus": "GPU-a"}).SerializeToString()
    else:
        attributes = [{"key": name, "value": value_json(value)} for name, value in llm().items()]
        end = datetime.now(UTC).timestamp()
        span = {
            "traceId": "0" * 31 + "1",
            "spanId": "0" * 15 + "1",
            "endTimeUnixNano": str(int(end * 1e9)),
            "attributes": attributes,
        }
        gpus = {"attributes": [{"key": "gpu_tokens.gpus", "value": {"stringValue": "GPU-a"}}]}
        body = json.dumps(
            {"resourceSpans": [{"resource": gpus, "scopeSpans": [{"spans": [span]}]}]}
        ).encode()
    headers = {"Content-Type": media_type}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    answer = ingest(door).post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media_type.partition(";")[0]
    assert answer.content == (b"" if media_type == PROTOBUF else b"{}"), (
        "all accepted: partial_success is not set"
    )
    (usage,) = sent(door)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.gpus) == (1000, 200, ["GPU-a"])
    assert door.sink.flushes, "answered after Kafka acknowledged"


def value_json(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"doubleValue": value} if isinstance(value, float) else {"intValue": str(value)}


def test_nothing_is_a_success(door: Api) -> None:
    assert ingest(door).post("/v1/traces", content=b"", headers=BINARY).status_code == 200
    answer = ingest(door).post("/v1/traces", content=b"{}", headers={"Content-Type": JSON})
    assert (answer.status_code, answer.json()) == (200, {})
    assert door.sink.records == []


def test_some_refused_is_a_partial_success(door: Api) -> None:
    future = llm(3)
    request = export(
        llm(1),
        llm(2, **{"gen_ai.usage.prompt_tokens": -5}),
        future,
        resource={"gpu_tokens.gpus": "GPU-a"},
    )
    request.resource_spans[0].scope_spans[0].spans[2].end_time_unix_nano += 3600 * 10**9
    answer = ingest(door).post("/v1/traces", content=request.SerializeToString(), headers=BINARY)
    assert answer.status_code == 200
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 2
    assert "span 0000000000000002: gen_ai.usage.prompt_tokens='-5'" in partial.error_message
    assert "set the producer's clock" in partial.error_message
    assert len(sent(door)) == 1


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "said"),
    [
        (b"nonsense", BINARY, 400, 3, "ExportTraceServiceRequest"),
        (b"nonsense", {**BINARY, "Content-Encoding": "gzip"}, 400, 3, "not gzip"),
        (b"", {**BINARY, "Content-Encoding": "br"}, 400, 3, "send gzip"),
        (
            gzip.compress(bytes(9 << 20)),
            {**BINARY, "Content-Encoding": "gzip"},
            413,
            8,
            "when unpacked",
        ),
        (bytes(9 << 20), BINARY, 413, 8, "at most 8,388,608 bytes"),
        (b"nonsense", {"Content-Type": JSON}, 400, 3, "no export request"),
        (b"", {"Content-Type": "text/plain"}, 415, 3, "text/plain"),
        (b"", {}, 415, 3, "(none)"),
    ],
)
def test_errors_are_a_status_in_the_encoding_of_the_request(
    door: Api, content: bytes, headers: dict[str, str], status: int, code: int, said: str
) -> None:
    answer = ingest(door).post("/v1/traces", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    if headers.get("Content-Type") == PROTOBUF:
        assert answer.headers["content-type"] == PROTOBUF
        problem = Status.FromString(answer.content)
        assert (problem.code, said in problem.message) == (code, True), problem
    else:
        assert answer.headers["content-type"] == JSON
        assert answer.json()["code"] == code
        assert said in answer.json()["message"]
    assert door.sink.records == []


def test_without_a_key_or_with_the_wrong_one_it_is_a_status_too(door: Api) -> None:
    body = export(llm()).SerializeToString()
    for client, status, code in ((door.client(), 401, 16), (door.client(KeyScope.READ), 403, 7)):
        answer = client.post("/v1/traces", content=body, headers=BINARY)
        assert answer.status_code == status
        assert Status.FromString(answer.content).code == code
    assert door.sink.records == []


def test_too_many_names_come_back_later(make_store: Callable[[], tuple[Store, Settings]]) -> None:
    store, settings = make_store()
    services = Services.of(
        store, settings.model_copy(update={"api_max_new_names_per_hour": 3}), sink=MemorySink()
    )
    app = create_app(services)
    with serving(app) as url:
        door = Api(url, app, store, services, settings, [], services.sink)  # type: ignore[arg-type]
        spans = [llm(number, **{"gpu_tokens.tenant": f"tenant-{number}"}) for number in range(4)]
        answer = ingest(door).post(
            "/v1/traces", content=export(*spans).SerializeToString(), headers=BINARY
        )
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert Status.FromString(answer.content).code == 8
        assert door.sink.records == []
        door.close()


class AwayKafka(MemorySink):
    """Kafka does not answer, or not in time."""

    def __init__(self, at_flush: bool) -> None:
        super().__init__()
        self._at_flush = at_flush

    def send_raw(self, value: bytes, key: str) -> None:
        if not self._at_flush:
            raise KafkaUnreachable("nobody there")

    def flush(self, timeout_seconds: float) -> None:
        raise DeliveryFailed("not acknowledged")


@pytest.mark.parametrize("at_flush", [False, True])
def test_while_kafka_is_away_it_is_503_and_never_500(
    make_store: Callable[[], tuple[Store, Settings]], at_flush: bool
) -> None:
    store, settings = make_store()
    services = Services.of(store, settings, sink=AwayKafka(at_flush))
    app = create_app(services)
    with serving(app) as url:
        door = Api(url, app, store, services, settings, [], MemorySink())
        for _ in range(2):  # the second one is told at once
            answer = ingest(door).post(
                "/v1/traces", content=export(llm()).SerializeToString(), headers=BINARY
            )
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert Status.FromString(answer.content).code == 14
        door.close()


# -- what is made of it ----------------------------------------------------------------------------


def test_placements_over_the_api_decide_where_it_ran(door: Api) -> None:
    admin = door.client(KeyScope.ADMIN)
    body = export(llm()).SerializeToString()
    warned = ingest(door).post("/v1/traces", content=body, headers=BINARY)
    partial = ExportTraceServiceResponse.FromString(warned.content).partial_success
    assert (partial.rejected_spans, "vllm@node1" in partial.error_message) == (0, True)
    new = [
        {
            "instance": "VLLM",
            "gpus": ["NODE1/00", "node1/1"],
            "model": "llama",
            "valid_from": "2026-01-01T00:00:00Z",
        }
    ]
    answer = admin.post("/v1/placements", json=new)
    assert answer.status_code == 201, answer.text
    assert [row["gpus"] for row in answer.json()["appended"]] == [["node1/0", "node1/1"]]
    assert admin.post("/v1/placements", json=new).json() == {"appended": [], "unchanged": 1}
    ingest(door).post("/v1/traces", content=body, headers=BINARY)
    gone = [{"instance": "vllm", "gpus": [], "valid_from": datetime.now(UTC).isoformat()}]
    assert admin.post("/v1/placements", json=gone).status_code == 201
    ingest(door).post("/v1/traces", content=body, headers=BINARY)
    unplaced, placed, still = sent(door)
    assert (unplaced.gpus, unplaced.model) == (["instance:vllm@node1"], "unknown")
    assert (placed.gpus, placed.host, placed.model) == (["node1/0", "node1/1"], "node1", "llama")
    assert still == placed, "removed now, it ran there when the request ended"
    assert unplaced.event_id == placed.event_id
    rows = door.client(KeyScope.READ).get("/v1/placements").json()
    assert [(row["instance"], row["gpus"]) for row in rows["placements"]] == [
        ("vllm", []),
        ("vllm", ["node1/0", "node1/1"]),
    ]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (
            {"instance": "x", "gpus": ["GPU-a", "node1/0"], "valid_from": "2026-01-01T00:00:00Z"},
            "gpus",
        ),
        ({"instance": "/", "gpus": [], "valid_from": "2026-01-01T00:00:00Z"}, "instance"),
        ({"instance": "x", "gpus": [], "valid_from": "1960-01-01T00:00:00Z"}, "valid_from"),
        (
            {
                "instance": "x",
                "gpus": [],
                "valid_from": "2026-01-01T00:00:00Z",
                "valid_to": "2026-01-01T00:00:00Z",
            },
            "valid_to",
        ),
        (
            {"instance": "x", "gpus": [], "valid_from": "2026-01-01T00:00:00Z", "model": "a\0b"},
            "model",
        ),
        ({"instance": "x", "gpus": []}, "valid_from"),
    ],
)
def test_placements_are_judged_and_appended_all_or_none(
    door: Api, row: dict[str, Any], field: str
) -> None:
    good = {"instance": "vllm", "gpus": ["GPU-a"], "valid_from": "2026-01-01T00:00:00Z"}
    answer = door.client(KeyScope.ADMIN).post("/v1/placements", json=[good, row])
    assert answer.status_code == 422
    assert field in answer.json()["detail"]
    assert door.client(KeyScope.READ).get("/v1/placements").json()["placements"] == []


def test_a_tenants_key_sends_spans_of_its_tenant_only(door: Api) -> None:
    own, other = llm(1), llm(2, **{"gpu_tokens.tenant": "other"})
    request = export(own, other, resource={"gpu_tokens.gpus": "GPU-a"})
    answer = ingest(door, "acme").post(
        "/v1/traces", content=request.SerializeToString(), headers=BINARY
    )
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 1
    assert [usage.tenant for usage in sent(door)] == ["acme"]


def test_sampled_traces_are_warned_about_and_counted(
    door: Api, caplog: pytest.LogCaptureFixture
) -> None:
    request = export(llm(_trace_state="ot=th:c"), resource={"gpu_tokens.gpus": "GPU-a"})
    with caplog.at_level(logging.WARNING, "gpu_token_analytics.api.handlers.traces"):
        answers = [
            ingest(door).post("/v1/traces", content=request.SerializeToString(), headers=BINARY)
            for _ in range(3)
        ]
    partial = ExportTraceServiceResponse.FromString(answers[-1].content).partial_success
    assert (partial.rejected_spans, "sampled" in partial.error_message) == (0, True)
    assert len([record for record in caplog.records if "sampled" in record.getMessage()]) == 1
    page = httpx.get(f"{door.url}/metrics", trust_env=False).text
    assert "gpu_tokens_api_sampled_spans_total 3.0" in page
    assert 'gpu_tokens_api_spans_total{outcome="counted"} 3.0' in page
