"""OTLP/gRPC: the spans that POST /v1/traces takes, on a port of their own (OTLP_GRPC_PORT), in the
same loop and the same way.

What an answer means is OpenTelemetry's word
(https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response):

    OK                  taken; `partial_success` says what of it was refused for good
    UNAVAILABLE         Kafka or MongoDB is away; sent again after RetryInfo
    RESOURCE_EXHAUSTED  with RetryInfo: too fast, sent again; without: too much in one message, for
                        good
    INVALID_ARGUMENT    no export request;   UNAUTHENTICATED, PERMISSION_DENIED   the key

The key comes as metadata `x-api-key` or `authorization: Bearer`. Needs grpcio, which is an extra:
messages are bytes here and are read by what reads them over HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio.to_thread
from starlette.requests import Request

from gpu_token_analytics.api.auth import Principal
from gpu_token_analytics.api.errors import ApiProblem, kafka_problem, store_problem
from gpu_token_analytics.api.handlers.traces import readable, take
from gpu_token_analytics.api.route import Access, Route
from gpu_token_analytics.api.services import Ask, Services
from gpu_token_analytics.errors import KafkaError, SettingsError, StoreError
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.sources.otlp import PROTOBUF, export_answer, read_protobuf, rpc_status

if TYPE_CHECKING:
    import grpc.aio

_log = logging.getLogger(__name__)

SERVICE, METHOD = "opentelemetry.proto.collector.trace.v1.TraceService", "Export"
MAX_CALLS = 64  # at once: each holds a message
STREAMS_PER_CONNECTION = 16
GRACE_SECONDS = 5.0
_STATUS_DETAILS = "grpc-status-details-bin"
_ROUTE = Route(
    "POST", f"/{SERVICE}/{METHOD}", Access.INGEST, take, "Send spans (OTLP)", tenant_keys=True
)


@asynccontextmanager
async def otlp_grpc(services: Services) -> AsyncIterator[None]:
    """Serve for a block where OTLP_GRPC_PORT says so. Raises SettingsError: no grpcio, or the port
    is taken."""
    settings = services.desk.settings
    if not settings.otlp_grpc_port:
        yield
        return
    try:
        import grpc
        import grpc.aio
    except ImportError:
        raise SettingsError(
            f"OTLP_GRPC_PORT={settings.otlp_grpc_port} needs grpcio; install it with `pip install "
            "'gpu-token-analytics[grpc]'`"
        ) from None
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.api_max_body_bytes),
            ("grpc.max_metadata_size", 16_384),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.so_reuseport", 0),  # else a second process takes half of the connections, unseen
        )
    )
    door = _Door(services)
    handler = grpc.unary_unary_rpc_method_handler(door.export)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )
    host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
    try:
        server.add_insecure_port(f"{host}:{settings.otlp_grpc_port}")
    except RuntimeError:
        raise SettingsError(
            f"the API cannot listen on HTTP_HOST={settings.http_host} "
            f"OTLP_GRPC_PORT={settings.otlp_grpc_port}: the port is "
            "taken, or the address is not of this machine; choose another port, or 0 for none"
        ) from None
    await server.start()
    _log.info("OTLP/gRPC on %s:%d", host, settings.otlp_grpc_port)
    try:
        yield
    finally:
        await server.stop(GRACE_SECONDS)


class _Door:
    """Answers calls; one for the server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._calls = 0

    async def export(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """One ExportTraceServiceRequest, answered after Kafka acknowledged."""
        self._calls += 1
        try:
            answer = await self._taken(body, context)
        except ApiProblem as problem:
            await self._refuse(problem, context)
        except StoreError as error:
            _log.warning("OTLP/gRPC: %s", error)
            await self._refuse(store_problem(error), context)
        except KafkaError as error:
            _log.warning("OTLP/gRPC: %s", error)
            await self._refuse(kafka_problem(error), context)
        except Exception:  # noqa: BLE001 - never a stack trace to a caller
            _log.exception("OTLP/gRPC: a call failed")
            await self._refuse(
                ApiProblem(
                    "internal", "The request failed for a reason that is in this process's log."
                ),
                context,
            )
        else:
            self._count(200)
            return answer
        finally:
            self._calls -= 1
        raise AssertionError("a refusal ends the call")

    async def _taken(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self._calls > MAX_CALLS:
            raise ApiProblem(
                "kafka_unavailable",
                f"{MAX_CALLS} calls are being answered",
                headers={"Retry-After": "1"},
            )
        request = _as_request(context.invocation_metadata() or (), context.peer())
        principal = await anyio.to_thread.run_sync(self._admit, request)
        outlet = self._services.outlet
        if self._services.sink is not None:
            outlet.check()
        return await anyio.to_thread.run_sync(
            _take, Ask(self._services, principal), body, limiter=outlet.limiter
        )

    def _admit(self, request: Request) -> Principal:
        with store_errors("look up the API key"):
            return self._services.authority.admit(request, _ROUTE)

    async def _refuse(
        self, problem: ApiProblem, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        import grpc

        self._count(problem.status)
        after = problem.headers.get("Retry-After")
        message = f"{problem.detail} ({problem.code})"
        status = rpc_status(problem.status, message, None if after is None else int(after))
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        await context.abort(
            code, status.message[:1_000], ((_STATUS_DETAILS, status.SerializeToString()),)
        )

    def _count(self, status: int) -> None:
        self._services.metrics.requests.labels("gRPC", "/v1/traces", str(status)).inc()


def _take(ask: Ask, body: bytes) -> bytes:
    with readable():
        spans = read_protobuf(body)
    with store_errors("answer OTLP/gRPC"):
        return export_answer(PROTOBUF, *take(ask, spans))


def _as_request(metadata: Iterable[Any], peer: str) -> Request:
    """A call as a request of HTTP, which is what keys are looked for in. No browser speaks gRPC to
    a loopback address, so what is asked of a browser's Host header holds."""
    kind, _, address = unquote(peer).partition(":")
    host = "127.0.0.1" if kind == "unix" else address.rpartition(":")[0].strip("[]")
    headers = [
        (name.encode(), value.encode()) for name, value in metadata if isinstance(value, str)
    ]
    local = [] if any(name == b"host" for name, _ in headers) else [(b"host", b"localhost")]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": _ROUTE.path,
            "headers": [*headers, *local],
            "client": (host, 0),
        }
    )
