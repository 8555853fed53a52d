"""The FastAPI application: routes from the table, each with its check; errors as problems; probes and metrics apart."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import StringConvertor, register_url_convertor

from gpu_token_analytics import __version__
from gpu_token_analytics.api import errors
from gpu_token_analytics.api.handlers import HANDLERS
from gpu_token_analytics.api.handlers.live import LiveFigures
from gpu_token_analytics.api.limits import BodyLimit, Envelope
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.api.models.problem import Problem
from gpu_token_analytics.api.names import known_parameters
from gpu_token_analytics.api.routes import OTLP, ROUTES, Access, Route
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.mongo.client import store_errors
from gpu_token_analytics.wire.json_schemas import json_schemas

SMALL_BODY_BYTES = 65_536
LARGE_BODIES = frozenset({"/v1/events", *errors.OTLP_PATHS})
WORKER_THREADS = 16
DESCRIPTION = (
    "What each LLM token really costs on your own GPUs. Money is integer nano-USD and always adds up: "
    "attributed + unmetered work + idle by class = price x owned time."
)


class _Anything(StringConvertor):
    """A part of a path that may hold whatever an engine calls a request: slashes, and line feeds, too."""

    regex = r"[\s\S]+"


register_url_convertor("anything", _Anything())


def create_app(services: Services) -> FastAPI:
    """The application over `services`. It does not own them: who made them closes them."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Bounds memory, not speed: Python runs one of them at a time, and each holds the page it builds.
        anyio.to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
        yield
        services.stopping.set()

    app = _bare(lifespan)
    app.state.services = services
    app.state.live = LiveFigures(services)
    errors.install(app)
    _add_plain(app, services)
    _mount_dashboard(app)
    app.add_middleware(errors.Unexpected)
    app.add_middleware(_Measured, metrics=services.metrics)
    body_limit = services.settings.api_max_body_bytes
    app.add_middleware(BodyLimit, limit_bytes=lambda path: body_limit if path in LARGE_BODIES else SMALL_BODY_BYTES)
    app.add_middleware(Envelope)
    return app


def _bare(lifespan: Any = None) -> FastAPI:
    """The routes of /v1 and their description, without anything behind them."""
    app = FastAPI(
        title="GPU Token Analytics",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # the stock pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    for route in ROUTES:
        _add(app, route)
    _describe(app)
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document, as GET /v1/openapi.json answers it."""
    return _bare().openapi()


def _add(app: FastAPI, route: Route) -> None:
    handler = HANDLERS[route.handler]
    app.router.add_api_route(
        route.path.replace("{request_id}", "{request_id:anything}"),
        _guarded(handler, route),
        methods=[route.method],
        dependencies=[*([] if route.access is Access.PUBLIC else [Depends(_check(route))]), Depends(known_parameters)],
        response_model=None,
        status_code=route.status,
        summary=route.summary,
        operation_id=route.handler,
        responses=_responses(route),
        openapi_extra=_extra(route),
        tags=[route.path.split("/")[2]],
    )


def _check(route: Route) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        services: Services = request.app.state.services
        with store_errors("look up the API key"):
            request.state.principal = services.authority.admit(request, route)

    return check


def _guarded(handler: Callable[..., Any], route: Route) -> Callable[..., Any]:
    """`handler` with the database's errors in our words. Its signature stays: FastAPI reads the parameters from it."""
    if route.handler in ("stream", "openapi", "events", "traces"):
        return handler

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with store_errors(f"answer {route.path}"):
            return handler(*args, **kwargs)

    return guarded


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    problem = {"model": Problem, "content": {errors.MEDIA_TYPE: {}}}
    found: dict[int | str, dict[str, Any]] = {}
    content: dict[str, Any] = {media: {} for media in route.media_types}
    if route.model is None:
        found[route.status] = {"description": "As named.", "content": content}
    else:
        found[route.status] = {"description": "As described.", "model": route.model}
    if route.access is Access.PUBLIC:
        return found
    statuses = {400, 401, 403, 422, 429, 503}
    if route.names_existing:
        statuses.add(404)
    if route.method == "POST":
        statuses |= {413, 415}
    for status in sorted(statuses):
        found[status] = {**problem, "description": "A problem (RFC 9457)."}
    return found


def _extra(route: Route) -> dict[str, Any]:
    extra: dict[str, Any] = {"x-access": str(route.access), "x-tenant-keys": route.tenant_keys}
    if route.access is not Access.PUBLIC:
        extra["security"] = [{"ApiKey": []}, {"ApiKeyHeader": []}]
    if route.handler == "traces":
        described = {"type": "string", "description": "An ExportTraceServiceRequest of OpenTelemetry."}
        content = {media: {"schema": described} for media in route.media_types}
        extra["requestBody"] = {"required": True, "content": content}
    if route.handler == "events":
        event = {"oneOf": list(json_schemas().values())}
        batch = {"type": "array", "minItems": 1, "items": event}
        extra["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [event, batch]}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "One event per line."}},
            },
        }
    return extra


def _describe(app: FastAPI) -> None:
    """OpenAPI: the security schemes, and problems under their own media type only."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["securitySchemes"] = {
                "ApiKey": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer gta_...`"},
                "ApiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
            status_of_rpc = {"schema": {"type": "object", "description": "A google.rpc.Status."}}
            for path, operations in schema["paths"].items():
                content = dict.fromkeys(OTLP, status_of_rpc) if path in errors.OTLP_PATHS else {errors.MEDIA_TYPE: reference}
                for operation in operations.values():
                    for status, response in operation["responses"].items():
                        if not status.startswith("2"):
                            response["content"] = dict(content)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_plain(app: FastAPI, services: Services) -> None:
    def health() -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    def ready() -> Response:
        try:
            with store_errors("ping"):
                services.reads.ping()
        except StoreError:
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    def prometheus() -> Response:
        return PlainTextResponse(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    for path, endpoint in (("/health", health), ("/ready", ready), ("/metrics", prometheus)):
        app.router.add_api_route(path, endpoint, methods=["GET"], include_in_schema=False, response_model=None)


def _mount_dashboard(app: FastAPI) -> None:
    """The dashboard's static files, where the package is installed with them."""
    if find_spec("gpu_token_analytics.web.mount") is not None:
        import_module("gpu_token_analytics.web.mount").mount(app)


class _Measured:
    """Counts requests and their time by route of the table: paths from outside are no label values."""

    def __init__(self, app: Any, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                found = scope.get("route")
                route = found.path if isinstance(found, APIRoute) else "other"
                method = scope["method"] if route != "other" else "any"
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, watched)
