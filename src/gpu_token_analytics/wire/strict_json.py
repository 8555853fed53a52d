"""A strict look at a JSON record: what a forgiving reader lets pass anywhere in it, unknown fields
included, is refused.

Slow, so it is for records that are not byte for byte what `events.encode` writes, and for saying
what is wrong with a bad one.
"""

from __future__ import annotations

import json
import math
from typing import Any

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.foreign_text import visible

MAX_DEPTH = 8
MAX_KEYS = 128
MAX_STRING = 1024
MAX_INT = 2**53 - 1  # what every JSON reader keeps exactly (RFC 8259, section 6)


def _nul_refused() -> InvalidRecord:
    """The error for a NUL character, escaped or not: MongoDB refuses it in keys, and C programs end
    strings at it."""
    return InvalidRecord(
        Reason.NUL_CHARACTER, "a NUL character (\\u0000) is in the record; remove it"
    )


def utf8_text(value: bytes) -> str:
    """The record as text. Raises InvalidRecord for a byte-order mark, what is not UTF-8, and NUL
    characters."""
    if value.startswith(b"\xef\xbb\xbf"):
        raise InvalidRecord(
            Reason.NOT_UTF8, "the record starts with a byte-order mark; send plain UTF-8"
        )
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRecord(
            Reason.NOT_UTF8,
            (
                f"byte {error.start} (0x{value[error.start]:02x}) is not UTF-8; send uncompressed "
                "UTF-8 JSON"
            ),
        ) from None
    if "\x00" in text:
        raise _nul_refused()
    return text


def read_strictly(value: bytes) -> Any:
    """The record as plain values. Raises InvalidRecord for what a forgiving JSON reader lets pass:
    not JSON, too deep, too many keys, keys given twice, numbers that are not finite or not exact,
    strings that are too long or no text."""
    text = utf8_text(value)
    _check_depth(text)
    keys = 0

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal keys
        keys += len(pairs)
        if keys > MAX_KEYS:
            raise InvalidRecord(Reason.TOO_MANY_KEYS, f"more than {MAX_KEYS} keys in one record")
        object_read = members_once(pairs)
        for key, item in pairs:
            _check_strings(key)
            _check_strings(item)
        return object_read

    def integer(digits: str) -> int:
        if len(digits) > 17 or abs(int(digits)) > MAX_INT:
            raise InvalidRecord(
                Reason.OUT_OF_RANGE, f"integer {shorten(digits)} is outside +-(2^53-1)"
            )
        return int(digits)

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise InvalidRecord(Reason.OUT_OF_RANGE, f"number {shorten(digits)} is not finite")
        return float(digits)

    def constant(name: str) -> None:
        raise InvalidRecord(
            Reason.NOT_JSON, f"{name} is not JSON; leave an unknown value out or send null"
        )

    try:
        document = json.loads(
            text,
            object_pairs_hook=members,
            parse_int=integer,
            parse_float=number,
            parse_constant=constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidRecord(
            Reason.NOT_JSON, f"not JSON: {error.msg} at character {error.pos}"
        ) from None
    _check_strings(document)
    return document


def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object. Raises InvalidRecord where two have one key: most readers would
    take the last of them."""
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRecord(Reason.DUPLICATE_KEY, f"key {shorten(again)} is given twice", again)
    return members


def _check_strings(value: object) -> None:
    """A text, or the texts in an array; those of an object within were looked at as it was read."""
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)


def _check_string(string: str) -> None:
    if len(string) > MAX_STRING:
        raise InvalidRecord(
            Reason.OUT_OF_RANGE, f"string {shorten(string)} has more than {MAX_STRING} characters"
        )
    if "\x00" in string:
        raise _nul_refused()
    if not string.isascii() and any("\ud800" <= character <= "\udfff" for character in string):
        raise InvalidRecord(
            Reason.NOT_JSON, f"string {shorten(string)} has half of a surrogate pair"
        )


def _check_depth(text: str) -> None:
    """Nesting, counted without recursion: `json` itself would run out of stack on 100,000
    brackets."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidRecord(Reason.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep")
        elif character in "]}":
            depth -= 1


def shorten(value: object) -> str:
    """A value for an error message: at most 80 characters, all of them ASCII, none of them a
    control."""
    shown = visible(value) if isinstance(value, str) else json.dumps(value, default=str)
    shown = shown.encode("ascii", "backslashreplace").decode()
    return shown if len(shown) <= 80 else shown[:77] + "..."
