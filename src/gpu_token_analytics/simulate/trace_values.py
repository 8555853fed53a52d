"""The values of a trace's rows: texts of a CSV file or of JSON, read strictly.

A value that cannot be read raises ValueError with the column's name, the value and what would be
right: it names a bad row.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from gpu_token_analytics.wire.fields import MAX_GPUS, MAX_LATENCY_MS, MAX_TOKENS
from gpu_token_analytics.wire.times import EARLIEST_TS, to_us

SHOWN = 40  # characters of a value that an error repeats
_LATEST_YEAR = 2100
_EARLIEST_US = to_us(EARLIEST_TS)
_LATEST_US = to_us(datetime(_LATEST_YEAR + 1, 1, 1, tzinfo=UTC))
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
# No leading zero: `0,024` is a decimal comma, and `024` what one leaves of `1,024`.
_COUNT = re.compile(r"(?:0|[1-9]\d{0,8}|[1-9]\d{0,2}(?:,\d{3}){1,2})(?:\.0+)?", re.ASCII)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_BETWEEN_GPUS = re.compile(r"[\s,;|]+")
_MAX_LABEL, _MAX_ID = 256, 128


def time_us(column: str, text: str, unit_us: Decimal | None, start_us: int | None) -> int:
    """Microseconds since 1970 UTC of a time: a text without a zone is UTC.

    unit_us: microseconds in one of what numbers count, None: numbers are no times here. A number
    from 2015 on is counted since 1970, a smaller one since `start_us`. Finer than a microsecond is
    cut: rounded, a second could overflow.
    """
    if unit_us is not None and _NUMBER.fullmatch(text):
        return _counted_us(column, text, unit_us, start_us)
    match = _TIME.fullmatch(text)
    if not match:
        also = "" if unit_us is None else ", nor a number"
        raise ValueError(
            f"{column}={text[:SHOWN]!r} is not a time such as 2023-11-16 18:15:46.6805900{also}"
        )
    base, fraction, zone = match.groups()
    micros = (fraction or "").ljust(6, "0")[:6]
    try:
        at = datetime.fromisoformat(f"{base.replace(' ', 'T')}.{micros}{zone or '+00:00'}")
    except ValueError as error:
        raise ValueError(f"{column}={text[:SHOWN]!r}: {error}") from None
    if at < EARLIEST_TS or at.year > _LATEST_YEAR:
        raise ValueError(f"{column}={text[:SHOWN]!r} is outside {EARLIEST_TS:%Y}..{_LATEST_YEAR}")
    return to_us(at.astimezone(UTC))


def _counted_us(column: str, text: str, unit_us: Decimal, start_us: int | None) -> int:
    us = int(Decimal(text) * unit_us)
    if us >= _EARLIEST_US:
        if us >= _LATEST_US:
            raise ValueError(
                f"{column}={text[:SHOWN]!r} is outside {EARLIEST_TS:%Y}..{_LATEST_YEAR}: is "
                "--time-unit right?"
            )
        return us
    if start_us is None:
        raise ValueError(
            f"{column}={text[:SHOWN]!r} counts from the start of the file: say when that was "
            "(--start)"
        )
    if start_us + us >= _LATEST_US:
        raise ValueError(
            f"{column}={text[:SHOWN]!r} is after {_LATEST_YEAR}: is --time-unit right?"
        )
    return start_us + us


def tokens(column: str, text: str) -> int:
    """A whole number of tokens; thousands may be separated by commas."""
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{column}={text[:SHOWN]!r} is not a whole number of tokens")
    count = int(text.split(".", maxsplit=1)[0].replace(",", ""))
    if count > MAX_TOKENS:
        raise ValueError(f"{column}={count} is more than {MAX_TOKENS:,}")
    return count


def optional_tokens(column: str, text: str) -> int:
    """As `tokens`; nothing is 0."""
    return tokens(column, text) if text else 0


def milliseconds(column: str, text: str, ms_per_unit: int) -> float | None:
    """A length of time; nothing is unknown."""
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        unit = "milliseconds" if ms_per_unit == 1 else "seconds"
        raise ValueError(
            f"{column}={text[:SHOWN]!r} is not a number of {unit}, 0 or more, such as 1.25"
        )
    ms = float(Decimal(text) * ms_per_unit)
    if ms > MAX_LATENCY_MS:
        raise ValueError(
            f"{column}={text[:SHOWN]!r} is more than {MAX_LATENCY_MS // 3_600_000} hours: is its "
            "unit right?"
        )
    return round(ms, 3)  # the ledger's resolution is a microsecond


def label(column: str, text: str) -> str:
    """A name of a model, tenant, host or the like."""
    if not text:
        raise ValueError(f"{column} is empty: give a name")
    if len(text) > _MAX_LABEL:
        raise ValueError(
            f"{column}={text[:SHOWN]!r}... has {len(text)} characters; a name has at most "
            f"{_MAX_LABEL}"
        )
    if "\ufffd" in text or not text.isprintable():
        raise ValueError(
            f"{column}={text[:SHOWN]!r} has characters that are no text: save the file as UTF-8"
        )
    return text


def optional_label(column: str, text: str) -> str | None:
    """As `label`; nothing is unknown."""
    return label(column, text) if text else None


def gpus(column: str, text: str) -> tuple[str, ...]:
    """GPUs by UUID or host/index, separated by spaces, semicolons or commas."""
    names = tuple(dict.fromkeys(name for name in _BETWEEN_GPUS.split(text) if name))
    if not names:
        raise ValueError(
            f"{column} is empty: name the GPUs of the request, by UUID or host/index, separated by "
            "spaces"
        )
    if len(names) > MAX_GPUS:
        raise ValueError(f"{column} names {len(names)} GPUs; one request may name {MAX_GPUS}")
    for name in names:
        if len(name) > _MAX_ID:
            raise ValueError(
                f"{column}={name[:SHOWN]!r}... has {len(name)} characters; a GPU's name has at "
                f"most {_MAX_ID}"
            )
        label(column, name)
    return names
