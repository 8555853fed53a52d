"""Reading a trace of LLM requests: `TIMESTAMP,ContextTokens,GeneratedTokens`, one request per row.

The format is that of the Azure LLM inference traces (Azure/AzurePublicDataset, CC-BY 4.0; Patel et al., "Splitwise",
ISCA 2024): UTC times with seven fractional digits, no zone, CRLF, no newline at the end. Columns are found by name, in
any order and case; a time may carry a zone; blank lines are skipped. A row has as many values as the header has columns, or
it is a bad row, named by its line: a comma that is no separator (`18:17:03,97`) must not shift it. A quoted count may have
thousands separators (`"1,024"`).
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gpu_token_analytics.errors import TraceUnreadable
from gpu_token_analytics.wire.events import EARLIEST_TS
from gpu_token_analytics.wire.fields import MAX_TOKENS
from gpu_token_analytics.wire.times import to_us

_BAD_ROWS_NAMED = 10
_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_COLUMNS = ("timestamp", "contexttokens", "generatedtokens")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII)
# No leading zero: `0,024` is a decimal comma, and `024` what one leaves of `1,024`.
_COUNT = re.compile(r"(?:0|[1-9]\d{0,8}|[1-9]\d{0,2}(?:,\d{3}){1,2})(?:\.0+)?", re.ASCII)


class TraceRow(NamedTuple):
    """One request. `number` counts the readable rows from 1; `line` is its line in the file."""

    number: int
    line: int
    arrival_us: int
    context_tokens: int
    generated_tokens: int


class BadRow(NamedTuple):
    """A row that cannot be read, and why."""

    line: int
    problem: str


class TraceFacts(NamedTuple):
    """What is known of a trace before it is replayed."""

    sha256: str
    rows: int
    bad_rows: int
    first_bad_rows: tuple[BadRow, ...]  # at most ten: enough to see what is wrong with the file


def read_trace(path: Path, on_bad_row: Callable[[BadRow], None]) -> Iterator[TraceRow]:
    """The requests of `path` in the order of the file. Raises TraceUnreadable when there is no such file or header."""
    number = 0
    places: list[int] | None = None
    width = 0
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                if places is None:
                    header = _split(text, strict=False)
                    places, width = _find_columns(path, header), len(header)
                    continue
                try:
                    values = _read_row(_split(text, strict=True), places, width)
                except ValueError as problem:
                    on_bad_row(BadRow(line, str(problem)))
                    continue
                number += 1
                yield TraceRow(number, line, *values)
    except OSError as error:
        raise TraceUnreadable(f"{path} cannot be read ({error.strerror}); give a CSV file of {_HEADER}") from None
    if places is None:
        raise TraceUnreadable(f"{path} is empty; a trace starts with the line {_HEADER}")


def survey(path: Path) -> TraceFacts:
    """Read the file once: its identity, and how many rows a replay will send. Raises TraceUnreadable."""
    bad_rows = 0
    first: list[BadRow] = []

    def on_bad_row(row: BadRow) -> None:
        nonlocal bad_rows
        bad_rows += 1
        if len(first) < _BAD_ROWS_NAMED:
            first.append(row)

    rows = sum(1 for _ in read_trace(path, on_bad_row))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TraceFacts(digest, rows, bad_rows, tuple(first))


def _find_columns(path: Path, header: list[str]) -> list[int]:
    names = [re.sub(r"[^a-z]", "", cell.lower()) for cell in header]
    missing = [column for column in _COLUMNS if column not in names]
    if missing:
        shown = ",".join(header)[:80]
        raise TraceUnreadable(
            f"{path} starts with {shown!r}; the first line must name the columns {_HEADER} (missing: {', '.join(missing)})"
        )
    twice = [column for column in _COLUMNS if names.count(column) > 1]
    if twice:
        raise TraceUnreadable(
            f"{path} names {', '.join(twice)} twice in its first line; it must name the columns {_HEADER} once"
        )
    return [names.index(column) for column in _COLUMNS]


def _split(text: str, *, strict: bool) -> list[str]:
    """The values of one line. Raises ValueError where strict and the quotes do not close.

    Line by line: a stray quote in one row would make a reader of the whole file swallow the rows after it.
    """
    try:
        return [cell.strip() for cell in next(csv.reader([text.strip()], skipinitialspace=True, strict=strict))]
    except csv.Error as error:
        if strict:
            raise ValueError(f"not CSV ({error})") from None
        return [text]


def _read_row(cells: list[str], places: list[int], width: int) -> tuple[int, int, int]:
    """Arrival in microseconds, context and generated tokens. Raises ValueError saying what is wrong."""
    if len(cells) != width:
        raise ValueError(f"{len(cells)} columns, {width} expected")
    time, context, generated = (cells[place] for place in places)
    return _arrival_us(time), _tokens("ContextTokens", context), _tokens("GeneratedTokens", generated)


def _arrival_us(text: str) -> int:
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(f"TIMESTAMP={text[:40]!r} is not a time such as 2023-11-16 18:15:46.6805900")
    base, fraction, zone = found.groups()
    # Microseconds are what an event can carry: the seventh digit is cut, not rounded, so that no second overflows.
    micros = (fraction or "").ljust(6, "0")[:6]
    try:
        at = datetime.fromisoformat(f"{base.replace(' ', 'T')}.{micros}{zone or '+00:00'}")
    except ValueError as error:
        raise ValueError(f"TIMESTAMP={text[:40]!r}: {error}") from None
    if at < EARLIEST_TS or at.year > 2100:
        raise ValueError(f"TIMESTAMP={text[:40]!r} is outside {EARLIEST_TS:%Y}..2100")
    return to_us(at.astimezone(UTC))


def _tokens(column: str, text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{column}={text[:40]!r} is not a whole number of tokens")
    count = int(text.split(".", maxsplit=1)[0].replace(",", ""))
    if count > MAX_TOKENS:
        raise ValueError(f"{column}={count} is more than {MAX_TOKENS:,}")
    return count
