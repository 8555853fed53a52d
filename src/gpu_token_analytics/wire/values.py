"""Values of a record that say in other words what the contract says: read, not refused.

    null in an optional field     as if the field were left out: unknown is null (or absent)
    128.0, 1e3 for an integer     the integer, as in JSON Schema ("any number with a zero fractional
                                  part")
    23:59:60                      a leap second (RFC 3339, section 5.6) is the first second after
                                  it, as in POSIX time
    1.0000000001 of at most 1     float noise: the bound

Slow, so it is for records that the fast reader refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

# Days that exist, an offset, seconds up to 60; the fraction has as many digits as it likes. As
# `pattern` in JSON Schema: the keyword `format` asserts nothing by default.
_YEAR = r"(?:201[5-9]|20[2-9]\d)"
_LEAP_DAY = r"20(?:[2468][048]|[13579][26])-02-29"
TIMESTAMP_PATTERN = (
    rf"^(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|"
    r"30)|02-(?:0[1-9]|1\d|2[0-8]))"
    rf"|{_LEAP_DAY})[Tt ](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|"
    r"2[0-3]):?[0-5]\d)$"
).replace(r"\d", "[0-9]")

_LEAP_SECOND = re.compile(
    r"(?P<minute>\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):60(?P<rest>(?:\.\d+)?(?:[Zz]|[+-].*))", re.ASCII
)
_NOISE = 1e-6  # of a bound, or of one: single precision carries seven digits
NOISE_MS = 0.001  # the ledger's resolution


def is_noise(value: float, bound: float, least: float = _NOISE) -> bool:
    """Whether a value is outside a bound by no more than a float loses on its way, or than
    `least`."""
    return abs(value - bound) <= max(least, _NOISE * abs(bound))


@dataclass(frozen=True)
class Forms:
    """What is known of the fields of one event type."""

    optional: frozenset[str]
    integers: dict[str, int | None]  # and the most each may be
    nullable: frozenset[str]
    times: frozenset[str]
    lists: frozenset[str]
    bounds: dict[str, tuple[float | None, float | None]]  # of floats: least, most

    @staticmethod
    def of(kind: type[msgspec.Struct]) -> Forms:
        """From the type itself."""
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        optional, nullable, times, lists = set(), set(), set(), set()
        integers: dict[str, int | None] = {}
        bounds: dict[str, tuple[float | None, float | None]] = {}
        for field in info.fields:
            if not field.required:
                optional.add(field.encode_name)
            types = (
                field.type.types
                if isinstance(field.type, msgspec.inspect.UnionType)
                else (field.type,)
            )
            for one in types:
                if isinstance(one, msgspec.inspect.IntType):
                    integers[field.encode_name] = one.le
                elif isinstance(one, msgspec.inspect.NoneType):
                    nullable.add(field.encode_name)
                elif isinstance(one, msgspec.inspect.DateTimeType):
                    times.add(field.encode_name)
                elif isinstance(one, msgspec.inspect.ListType):
                    lists.add(field.encode_name)
                elif isinstance(one, msgspec.inspect.FloatType):
                    bounds[field.encode_name] = (one.ge, one.le)
        return Forms(
            frozenset(optional),
            integers,
            frozenset(nullable),
            frozenset(times),
            frozenset(lists),
            bounds,
        )

    def plain(self, document: dict[str, Any]) -> dict[str, Any]:
        """The record in the contract's own words. Values that mean nothing stay as they are."""
        plain: dict[str, Any] = {}
        for name, value in document.items():
            if value is None and name in self.optional:
                continue
            if isinstance(value, float) and name in self.integers and value.is_integer():
                plain[name] = int(value)
            elif isinstance(value, str) and name in self.times:
                plain[name] = _without_leap_second(value)
            elif isinstance(value, float) and name in self.bounds:
                plain[name] = _within(value, *self.bounds[name])
            else:
                plain[name] = value
        return plain


def _without_leap_second(text: str) -> str:
    leap = _LEAP_SECOND.fullmatch(text)
    if leap is None:
        return text
    try:
        after = datetime.fromisoformat(leap["minute"].upper()) + timedelta(minutes=1)
    except (ValueError, OverflowError):
        return text
    return f"{after:%Y-%m-%dT%H:%M}:00{leap['rest']}"


def _within(value: float, least: float | None, most: float | None) -> float:
    if least is not None and value < least and is_noise(value, least):
        return least
    if most is not None and value > most and is_noise(value, most):
        return most
    return value
