"""Answers for tests, made from the product's own types: a test says what it is about, the rest is there and says nothing.

answer(m.CostsResponse, {"rows": [{"money": {"total_nusd": 5}}]})      a whole CostsResponse
"""

from __future__ import annotations

import types
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields

S = TypeVar("S", bound=msgspec.Struct)
BLANKS: dict[Any, Any] = {int: 0, float: 0.0, str: "", bool: False, datetime: datetime(2026, 1, 31, tzinfo=UTC)}


def answer(struct: type[S], said: dict[str, Any]) -> S:
    """A struct that says what is said, checked by its types and limits. Raises msgspec.ValidationError, also for a name that it
    does not have."""
    return msgspec.convert(_filled(struct, said), struct)


def _filled(hint: Any, said: Any) -> Any:
    """`said` with blanks where a struct has more fields."""
    hint = _plain(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(said, dict):
        hints = get_type_hints(hint, include_extras=True)
        filled = {
            field.encode_name: _filled(hints[field.name], said[field.encode_name])
            if field.encode_name in said
            else _blank(hints[field.name])
            for field in fields(hint)
        }
        return {**said, **filled}
    if get_origin(hint) is list and isinstance(said, list):
        (item,) = get_args(hint)
        return [_filled(item, value) for value in said]
    return said


def _blank(hint: Any) -> Any:
    """Null where that is allowed, else the least there is."""
    while get_origin(hint) is Annotated:
        hint = hint.__origin__
    if get_origin(hint) in (Union, types.UnionType):
        return None
    if get_origin(hint) in (list, dict):
        return get_origin(hint)()
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _filled(hint, {})
    return BLANKS[hint] if hint in BLANKS else next(iter(hint))


def _plain(hint: Any) -> Any:
    """A type without its words, and without null."""
    while get_origin(hint) is Annotated:
        hint = hint.__origin__
    if get_origin(hint) in (Union, types.UnionType):
        return _plain(next(part for part in get_args(hint) if part is not types.NoneType))
    return hint
