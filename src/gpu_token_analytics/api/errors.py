"""Every error as RFC 9457 problem+json: ours, FastAPI's and what nobody expected. Never a stack
trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpu_token_analytics.api.problem import FieldProblem, Nearest, Problem
from gpu_token_analytics.errors import (
    DeliveryFailed,
    KafkaError,
    Refused,
    StoreError,
    StoreOutcomeUnknown,
)
from gpu_token_analytics.sources.otlp import JSON, PROTOBUF, status_answer

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
OTLP_PATHS = frozenset({"/v1/traces"})
OTLP_TYPES = (PROTOBUF, JSON)
URN = "urn:gpu-token-analytics:problem:"

# Every code, with its status and title. A closed set: docs/api.md lists it.
CODES: dict[str, tuple[int, str]] = {
    "invalid_parameter": (422, "A parameter cannot be used"),
    "invalid_body": (422, "The body cannot be used"),
    "invalid_range": (422, "The time range cannot be used"),
    "invalid_cursor": (422, "The cursor is not one of this query"),
    "range_too_long": (400, "The range is too long for this bucket and grouping"),
    "all_records_invalid": (422, "No record of the request was accepted"),
    "too_many_records": (413, "Too many records in one request"),
    "body_too_large": (413, "The body is too large"),
    "unauthenticated": (401, "A valid API key is needed"),
    "forbidden": (403, "This key may not do that"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "This path has no such method"),
    "unsupported_media_type": (415, "The body has a media type this route does not read"),
    "too_many_names": (429, "Too many different names with this key"),
    "rate_limited": (429, "Too many requests with this key"),
    "too_many_streams": (503, "Too many live streams are open"),
    "query_timeout": (503, "The database took too long"),
    "store_unavailable": (503, "The database cannot be reached"),
    "kafka_unavailable": (503, "Kafka did not acknowledge"),
    "ingest_disabled": (503, "This process has no connection to Kafka"),
    "bad_request": (400, "The request cannot be understood"),
    "internal": (500, "Something unexpected happened"),
}
_BY_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


class ApiProblem(Exception):
    """An error to answer with. `code` is a key of CODES; `detail` names field, value and fix."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        nearest: Nearest | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title = CODES[code]
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.nearest = nearest
        self.headers = dict(headers or {})


def refusal(error: Refused) -> ApiProblem:
    """What was refused below HTTP, as a problem."""
    errors = [] if error.field is None else [FieldProblem(field=error.field, message=str(error))]
    nearest = None
    if error.nearest is not None:
        start, end, bucket = error.nearest
        nearest = Nearest.model_validate({"from": start, "to": end, "bucket": bucket})
    return ApiProblem(error.code, str(error), errors=errors, nearest=nearest)


def problem_document(problem: ApiProblem, instance: str) -> dict[str, Any]:
    """The body of a problem."""
    return Problem(
        type=URN + problem.code,
        title=problem.title,
        status=problem.status,
        code=problem.code,
        detail=problem.detail,
        instance=instance,
        errors=problem.errors,
        nearest=problem.nearest,
    ).model_dump(mode="json", by_alias=True)


def answer(problem: ApiProblem, scope: Scope) -> Response:
    """The response of a problem: problem+json, and where OTLP is spoken google.rpc.Status in the
    encoding of the request."""
    if scope.get("path") in OTLP_PATHS:
        media_type = otlp_media_type(scope)
        body = status_answer(media_type, problem.status, f"{problem.detail} ({problem.code})")
        return Response(body, problem.status, headers=problem.headers, media_type=media_type)
    document = problem_document(problem, scope.get("request_id", ""))
    return JSONResponse(document, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def otlp_media_type(scope: Scope) -> str:
    """The encoding that a request of OTLP is answered in: its own; JSON where it has none that is
    known."""
    sent = next((value for name, value in scope["headers"] if name == b"content-type"), b"").decode(
        "latin-1"
    )
    return PROTOBUF if sent.partition(";")[0].strip().lower() == PROTOBUF else JSON


def request_id(request: Request) -> str:
    """Id of the request, as the middleware gave it."""
    sent: str = request.scope.get("request_id", "")
    return sent


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""

    @app.exception_handler(ApiProblem)
    async def _ours(request: Request, error: ApiProblem) -> Response:
        return answer(error, request.scope)

    @app.exception_handler(Refused)
    async def _refused(request: Request, error: Refused) -> Response:
        return answer(refusal(error), request.scope)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(_validation(error), request.scope)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and _wants_a_page(request):
            page: Response = request.app.state.not_found_page(request)
            return page
        code = _BY_STATUS.get(
            error.status_code, "bad_request" if error.status_code < 500 else "internal"
        )
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"{request.url.path} does not exist; /v1/openapi.json lists what does"
        problem = ApiProblem(
            code, detail or HTTPStatus(error.status_code).phrase, headers=error.headers
        )
        return answer(problem, request.scope)

    @app.exception_handler(StoreError)
    async def _store(request: Request, error: StoreError) -> Response:
        _log.warning("request %s: %s", request_id(request), error)
        return answer(store_problem(error), request.scope)

    @app.exception_handler(KafkaError)
    async def _kafka(request: Request, error: KafkaError) -> Response:
        _log.warning("request %s: %s", request_id(request), error)
        return answer(kafka_problem(error), request.scope)


def _wants_a_page(request: Request) -> bool:
    """A person's browser that follows a wrong link; programs, and /v1 in any case, get a
    problem."""
    html = "text/html" in request.headers.get("accept", "")
    is_page = request.method in ("GET", "HEAD") and not request.url.path.startswith(
        ("/v1/", "/assets/")
    )
    return html and is_page and hasattr(request.app.state, "not_found_page")


class Unexpected:
    """ASGI layer: what nobody caught is logged and becomes a problem, with the layers around it
    still at work."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            # Nobody is there to be answered, and nothing failed here: as a 500 it would burn the
            # budget of errors.
            _log.info(
                "request %s: the client hung up before all of it was sent",
                scope.get("request_id", ""),
            )
        except Exception as error:
            if scope["type"] != "http" or isinstance(error, BodyTooLarge):
                raise
            identity = scope.get("request_id", "")
            _log.exception("request %s failed", identity)
            if started:
                raise  # cuts the connection: a half answer must not look whole
            detail = (
                "The request failed for a reason that is in this process's log under the id in "
                "`instance`."
            )
            await answer(ApiProblem("internal", detail), scope)(scope, receive, send)


class BodyTooLarge(Exception):
    """Ends the handling of a request that was answered already (limits.BodyLimit)."""


def store_problem(error: StoreError) -> ApiProblem:
    """A database error without its text: that names addresses."""
    retry = {"Retry-After": "5"}
    if isinstance(error, StoreOutcomeUnknown):
        detail = (
            "The database took too long; ask for a shorter range, a coarser bucket or fewer groups."
        )
        return ApiProblem("query_timeout", detail, headers=retry)
    return ApiProblem(
        "store_unavailable", "The database cannot be reached now; try again.", headers=retry
    )


def kafka_problem(error: KafkaError) -> ApiProblem:
    """An error of Kafka without its text: that names addresses."""
    unsure = " Some records may have been stored: send all again, equal event_ids count once."
    detail = "Kafka did not acknowledge in time." + (
        unsure if isinstance(error, DeliveryFailed) else ""
    )
    return ApiProblem("kafka_unavailable", detail, headers={"Retry-After": "5"})


def _validation(error: RequestValidationError) -> ApiProblem:
    problems = []
    body = False
    for item in error.errors():
        area, *path = item["loc"]
        body = body or area == "body"
        name = ".".join(str(part) for part in path) or str(area)
        shown = repr(item.get("input"))
        value = f"={shown[:80]}" if item["type"] != "missing" else ""
        problems.append(FieldProblem(field=name, message=f"{name}{value}: {item['msg']}"))
    detail = "; ".join(problem.message for problem in problems[:5])
    return ApiProblem("invalid_body" if body else "invalid_parameter", detail, errors=problems[:50])
