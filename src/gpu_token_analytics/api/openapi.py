"""How OpenAPI describes a route: its answers, its problems, its body, who may call it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gpu_token_analytics.api import errors
from gpu_token_analytics.api.problem import Problem
from gpu_token_analytics.api.route import Access, Route
from gpu_token_analytics.api.schema import model_of
from gpu_token_analytics.wire.json_schemas import prose


def responses_of(route: Route) -> dict[int | str, dict[str, Any]]:
    """What it answers, by status."""
    problem = {"model": Problem, "content": {errors.MEDIA_TYPE: {}}}
    responses: dict[int | str, dict[str, Any]] = {}
    content: dict[str, Any] = {media: {} for media in route.media_types}
    if route.struct is None:
        responses[route.status] = {"description": "As named.", "content": content}
    else:
        responses[route.status] = {"description": "As described.", "model": model_of(route.struct)}
    if route.access is Access.PUBLIC:
        return responses
    statuses = {400, 401, 403, 422, 429, 503}
    if route.names_existing:
        statuses.add(404)
    if route.method == "POST":
        statuses |= {413, 415}
    for status in sorted(statuses):
        responses[status] = {**problem, "description": "A problem (RFC 9457)."}
    return responses


def extra_of(route: Route) -> dict[str, Any]:
    """Who may call it, and the body that its function reads itself."""
    extra: dict[str, Any] = {"x-access": str(route.access), "x-tenant-keys": route.tenant_keys}
    if route.access is not Access.PUBLIC:
        extra["security"] = [{"ApiKey": []}, {"ApiKeyHeader": []}]
    if route.body is not None:
        extra["requestBody"] = {"required": True, "content": route.body}
    return extra


def describe(app: FastAPI) -> None:
    """OpenAPI: the security schemes, and problems under their own media type only."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["securitySchemes"] = {
                "ApiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`Authorization: Bearer gta_...`",
                },
                "ApiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
            status_of_rpc = {"schema": {"type": "object", "description": "A google.rpc.Status."}}
            for path, operations in schema["paths"].items():
                content = (
                    dict.fromkeys(errors.OTLP_TYPES, status_of_rpc)
                    if path in errors.OTLP_PATHS
                    else {errors.MEDIA_TYPE: reference}
                )
                for operation in operations.values():
                    for status, response in operation["responses"].items():
                        if not status.startswith("2"):
                            response["content"] = dict(content)
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
            app.openapi_schema = _in_prose(schema)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _in_prose(value: Any) -> Any:
    """The same with every description as prose: where a docstring wraps is nobody's contract."""
    if isinstance(value, dict):
        return {
            name: prose(one) if name == "description" and isinstance(one, str) else _in_prose(one)
            for name, one in value.items()
        }
    return [_in_prose(one) for one in value] if isinstance(value, list) else value
