"""The records of a trace file, one by one and in bounded memory: rows of CSV, or lines of JSON
objects.

A record that is none is a problem with its line, and costs no other record.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

_JOINED_LINES, _JOINED_CHARACTERS = 1_000, 1_000_000  # of one quoted value with line feeds


class Record(NamedTuple):
    """The cells of one record and the line where it begins; without cells, why it is none."""

    line: int
    cells: list[str] | None
    problem: str = ""


def split(text: str, delimiter: str = ",", *, strict: bool) -> list[str]:
    """The values of one row of CSV. Raises ValueError where strict and the quotes do not close."""
    try:
        row = next(
            csv.reader([text.strip()], delimiter=delimiter, skipinitialspace=True, strict=strict)
        )
    except csv.Error as error:
        if strict:
            raise ValueError(f"not CSV ({error})") from None
        return [text]
    return [cell.strip() for cell in row]


class Lines:
    """Numbered lines that can be given back: what a stray quote seemed to open is read again, line
    by line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = enumerate(lines, start=1)
        self._back: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        return self._back.popleft() if self._back else next(self._lines)

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        """The next lines are these again."""
        self._back.extendleft(reversed(lines))


def csv_records(lines: Lines, delimiter: str, width: int) -> Iterator[Record]:
    """The rows after the header. A row has `width` values or it is none: a comma that is no
    separator must not shift it."""
    for line, text in lines:
        if not text.strip():
            continue
        try:
            cells = _row(text, lines, delimiter, width)
        except ValueError as problem:
            yield Record(line, None, str(problem))
            continue
        if len(cells) == width:
            yield Record(line, cells)
        else:
            yield Record(
                line,
                None,
                f"{len(cells)} columns, {width} expected: quote a value that has a {delimiter!r}",
            )


def _row(text: str, lines: Lines, delimiter: str, width: int) -> list[str]:
    try:
        return split(text, delimiter, strict=True)
    except ValueError as error:
        if '"' not in text or "unexpected end of data" not in str(error):
            raise
        joined = _joined(text, lines, delimiter, width)
        if joined is None:
            raise
        return joined


def _joined(text: str, lines: Lines, delimiter: str, width: int) -> list[str] | None:
    """The row whose quoted value goes on in the next lines. None: it does not, and no line is lost
    to a stray quote."""
    taken: list[tuple[int, str]] = []
    for line, more in lines:
        taken.append((line, more))
        text += more
        if '"' in more:
            try:
                cells = split(text, delimiter, strict=True)
            except ValueError as error:
                if "unexpected end of data" not in str(error):
                    break
            else:
                if len(cells) == width:
                    return cells
                break
        if len(taken) == _JOINED_LINES or len(text) > _JOINED_CHARACTERS:
            break
    lines.give_back(taken)
    return None


def json_records(lines: Lines, names: list[str]) -> Iterator[Record]:
    """The values of these names in lines of JSON objects, as texts; what is not there, and null, is
    ''."""
    for line, text in lines:
        if not text.strip():
            continue
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            yield Record(line, None, f"not JSON ({error})")
            continue
        if isinstance(document, dict):
            yield Record(line, [_text(document.get(name)) for name in names])
        else:
            yield Record(line, None, f"{text.strip()[:40]!r} is not a JSON object such as {{...}}")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return msgspec.json.encode(value).decode()  # true is no count, and 1e3 is no name
