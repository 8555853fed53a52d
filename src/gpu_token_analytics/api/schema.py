"""Answers as OpenAPI knows them: from each struct of costs/answers a model of the same fields,
types, limits and words.

FastAPI describes models of pydantic only. These are made for the description alone: no answer
passes through them.
"""

from __future__ import annotations

import functools
import operator
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields
from pydantic import BaseModel, ConfigDict, Field, create_model

_CLOSED = ConfigDict(extra="forbid")


@functools.cache
def model_of(struct: type[msgspec.Struct]) -> type[BaseModel]:
    """The model that describes a struct."""
    hints = get_type_hints(struct, include_extras=True)
    described: dict[str, Any] = {
        field.encode_name: _field(hints[field.name]) for field in fields(struct)
    }
    return create_model(struct.__name__, __doc__=struct.__doc__, __config__=_CLOSED, **described)


def _field(hint: Any) -> Any:
    """The type of a field, with the default that readers may rely on (`Meta.extra`) where it has
    one."""
    described = _described(hint)
    for meta in getattr(hint, "__metadata__", ()):
        if meta.extra and "default" in meta.extra:
            return described, meta.extra["default"]
    return described


def _described(hint: Any) -> Any:
    """`hint` with models for structs and pydantic's words for msgspec's."""
    origin = get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return model_of(hint)
    if origin is Annotated:
        return Annotated[(_described(hint.__origin__), *map(_words, hint.__metadata__))]
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(_described, get_args(hint)))
    if origin in (list, dict):
        return origin[tuple(map(_described, get_args(hint)))]
    return hint


def _words(meta: msgspec.Meta) -> Any:
    said = {name: getattr(meta, name) for name in ("ge", "le", "description", "examples")}
    return Field(
        **{name: value for name, value in said.items() if value is not None},
        json_schema_extra=meta.extra_json_schema,
    )
