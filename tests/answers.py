"""Answers for tests, made from the product's own types: a test says what it is about, the rest is
there and says nothing.

answer(m.CostsResponse, {"rows": [{"money": {"total_nusd": 5}}]})      a whole CostsResponse
"""

from __future__ import annotations

import functools
import types
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields

S = TypeVar("S", bound=msgspec.Struct)
BLANKS: dict[Any, Any] = {
    int: 0,
    float: 0.0,
    str: "",
    bool: False,
    datetime: datetime(2026, 1, 31, tzinfo=UTC),
}


def answer(struct: type[S], said: dict[str, Any]) -> S:
    """A struct that says what is said, checked by its types and limits. Raises
    msgspec.ValidationError, also for a name that it does not have."""
    return msgspec.convert(_filled(struct, said), struct)


def _filled(hint: Any, said: Any) -> Any:
    """`said` with blanks where a struct has more fields."""
    kind, item = _kind(hint)
    if kind is list and isinstance(said, list):
        return [_filled(item, value) for value in said]
    if kind is None or not isinstance(said, dict):
        return said
    filled = dict(said)
    for name, of in _fields(kind):
        filled[name] = _filled(of, said[name]) if name in said else _blank(of)
    return filled


@functools.cache
def _kind(hint: Any) -> tuple[Any, Any]:
    """(a struct, nothing), (list, of what), or nothing twice: neither."""
    plain = _plain(hint)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return plain, None
    return (list, get_args(plain)[0]) if get_origin(plain) is list else (None, None)


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    return [(field.encode_name, hints[field.name]) for field in fields(struct)]


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
