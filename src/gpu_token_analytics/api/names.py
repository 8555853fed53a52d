"""Names that nobody knows - a misspelt parameter or field, and what was meant - and names that are
given twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, cast, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.problem import FieldProblem
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.wire.strict_json import members_once, shorten

_MOST_NAMED = 20


def meant(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)`, or the names there are."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"known are {', '.join(names)}" if names else "this route takes none"


def parameters_of(dependant: Dependant) -> dict[str, bool]:
    """The query parameters a route reads, the fields of its one model, and whether each may be
    given more than once."""
    return {
        field.alias or name: get_origin(field.annotation) is list
        for parameter in dependant.query_params
        for name, field in _model(parameter.field_info.annotation).model_fields.items()
    }


def _model(annotation: Any) -> type[BaseModel]:
    assert issubclass(annotation, BaseModel), "query parameters are one model (params.py)"
    return cast("type[BaseModel]", annotation)


async def known_parameters(request: Request) -> None:  # async: it waits for nothing
    """What the route does not read is refused: without `groupby=tenant`, another question would be
    answered. So is a second value where one is read: `limit=5&limit=6`."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    repeatable = parameters_of(route.dependant)
    problems = [
        FieldProblem(
            field=shorten(name),
            message=(
                f"{shorten(name)} is not a parameter of {route.path_format}: "
                f"{meant(name, repeatable)}"
            ),
        )
        for name in dict.fromkeys(request.query_params.keys())
        if name not in repeatable
    ]
    problems += [
        FieldProblem(
            field=name,
            message=f"{name} is given {len(values)} times; {route.path_format} takes it once",
        )
        for name, several in repeatable.items()
        if not several and len(values := request.query_params.getlist(name)) > 1
    ]
    if problems:
        raise ApiProblem("invalid_parameter", problems[0].message, errors=problems[:_MOST_NAMED])


async def keys_given_once(request: Request) -> None:
    """A key that is given twice in a JSON body is refused: `{"scope": "gpu", "scope": "host"}`
    would be a row for a host."""
    body = await request.body()
    try:
        if body:
            json.loads(body, object_pairs_hook=members_once)
    except InvalidRecord as error:
        problem = FieldProblem(field=shorten(error.field), message=str(error))
        raise ApiProblem("invalid_body", str(error), errors=[problem]) from None
    except (ValueError, RecursionError):
        return  # no JSON: FastAPI says so
