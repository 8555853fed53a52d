"""The FastAPI application: routes from the table, each with its check; errors as problems; probes
and metrics apart."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio
import msgspec
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.convertors import StringConvertor, register_url_convertor

from gpu_token_analytics import __version__
from gpu_token_analytics.api import errors
from gpu_token_analytics.api.handlers.stream import LiveFigures
from gpu_token_analytics.api.limits import BodyLimit, Envelope
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.api.names import keys_given_once, known_parameters
from gpu_token_analytics.api.openapi import describe, extra_of, responses_of
from gpu_token_analytics.api.otlp_grpc import otlp_grpc
from gpu_token_analytics.api.route import Access, Route
from gpu_token_analytics.api.routes import PLAIN_PATHS, ROUTES
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.errors import SettingsError, StoreError
from gpu_token_analytics.mongo.errors import store_errors

SMALL_BODY_BYTES = 65_536
LARGE_BODIES = frozenset({"/v1/events", *errors.OTLP_PATHS})
WORKER_THREADS = 16
_encoder = msgspec.json.Encoder(enc_hook=int)  # the driver's 64-bit integers are a subclass of int
DESCRIPTION = (
    "What each LLM token really costs on your own GPUs. Money is integer nano-USD and always adds "
    "up: "
    "attributed + unmetered work + idle by class = price x owned time."
)


class _Anything(StringConvertor):
    """A part of a path that may hold whatever an engine calls a request: slashes, and line feeds,
    too."""

    regex = r"[\s\S]+"


register_url_convertor("anything", _Anything())


def create_app(services: Services) -> FastAPI:
    """The application over `services`. It does not own them: who made them closes them."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Bounds memory, not speed: Python runs one of them at a time, and each holds the page it
        # builds.
        anyio.to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
        try:
            async with otlp_grpc(services):
                yield
        except SettingsError as error:
            services.start_failure = error
            raise
        services.stopping.set()

    app = _bare(lifespan)
    app.state.services = services
    app.state.live = LiveFigures(services.desk)
    errors.install(app)
    _add_plain(app, services)
    _mount_dashboard(app)
    app.add_middleware(errors.Unexpected)
    app.add_middleware(_Measured, metrics=services.metrics)
    body_limit = services.desk.settings.api_max_body_bytes
    app.add_middleware(
        BodyLimit, limit_bytes=lambda path: body_limit if path in LARGE_BODIES else SMALL_BODY_BYTES
    )
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
    describe(app)
    return app


def document() -> dict[str, Any]:
    """The OpenAPI document, as GET /v1/openapi.json answers it."""
    return _bare().openapi()


def _add(app: FastAPI, route: Route) -> None:
    app.router.add_api_route(
        route.path.replace("{request_id}", "{request_id:anything}"),
        _guarded(route),
        methods=[route.method],
        dependencies=_dependencies(route),
        response_model=None,
        status_code=route.status,
        summary=route.summary,
        operation_id=route.name,
        responses=responses_of(route),
        openapi_extra=extra_of(route),
        tags=[route.path.split("/")[2]],
    )


def _dependencies(route: Route) -> list[Any]:
    """What is looked at before the function is asked, in this order."""
    admitted = [] if route.access is Access.PUBLIC else [Depends(_check(route))]
    reads_json = route.method == "POST" and route.body is None
    return [
        *admitted,
        Depends(known_parameters),
        *([Depends(keys_given_once)] if reads_json else []),
    ]


def _check(route: Route) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        services: Services = request.app.state.services
        with store_errors("look up the API key"):
            request.state.principal = services.authority.admit(request, route)

    return check


def _guarded(route: Route) -> Callable[..., Any]:
    """The route's function, with its answer as JSON and the database's errors in our words. Its
    signature stays: FastAPI reads the parameters from it."""
    if inspect.iscoroutinefunction(route.answer):
        return _awaited(route)

    @functools.wraps(route.answer)
    def guarded(*args: Any, **kwargs: Any) -> Response:
        with store_errors(f"answer {route.path}"):
            return sent(route.answer(*args, **kwargs), route.status)

    return guarded


def _awaited(route: Route) -> Callable[..., Any]:
    @functools.wraps(route.answer)
    async def awaited(*args: Any, **kwargs: Any) -> Response:
        return sent(await route.answer(*args, **kwargs), route.status)

    return awaited


def sent(answer: Response | Struct, status: int) -> Response:
    """A struct as JSON; a response as it is."""
    if isinstance(answer, Response):
        return answer
    return Response(_encoder.encode(answer), status, media_type="application/json")


def _add_plain(app: FastAPI, services: Services) -> None:
    def health() -> Response:
        return JSONResponse({"status": "ok", "version": __version__})

    def ready() -> Response:
        try:
            with store_errors("ping"):
                services.desk.reads.ping()
        except StoreError:
            return JSONResponse({"status": "the database does not answer"}, 503)
        return JSONResponse({"status": "ok"})

    def prometheus() -> Response:
        return PlainTextResponse(
            generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST
        )

    for path, endpoint in zip(PLAIN_PATHS, (health, ready, prometheus), strict=True):
        app.router.add_api_route(
            path, endpoint, methods=["GET"], include_in_schema=False, response_model=None
        )


def _mount_dashboard(app: FastAPI) -> None:
    """The dashboard's static files, where the package is installed with them."""
    if find_spec("gpu_token_analytics.web.mount") is not None:
        import_module("gpu_token_analytics.web.mount").mount(app)


class _Measured:
    """Counts requests and their time by route of the table: paths from outside are no label
    values."""

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
                matched = scope.get("route")
                route = matched.path if isinstance(matched, APIRoute) else "other"
                method = scope["method"] if route != "other" else "any"
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, watched)
