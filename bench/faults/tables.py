"""The rows with what was seen: on the terminal, and on the page docs/faults.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench.faults.matrix import Row
from bench.faults.record import Cases, Outcome
from bench.pages import put_between

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_BEGIN = "<!-- faults: written by `make faults ARGS=--write` -->"
_END = "<!-- faults: end -->"
_WIDTHS = (52, 58, 70)
_WORDS = {Outcome.FAILED: "OTHERWISE", Outcome.SKIPPED: "NOT RUN"}


def is_whole(row: Row, cases: Cases) -> bool:
    """Whether every test of the row ran and passed. A row without tests is not for this command to
    judge."""
    return all(has_passed(test, cases) for test in row.tests)


def has_passed(test: str, cases: Cases) -> bool:
    """Whether it ran, with all of its parameters, and passed."""
    return {case.outcome for case in cases.get(test, [])} == {Outcome.PASSED}


def seen(row: Row, cases: Cases) -> str:
    """What the last column says."""
    parts = []
    found = [case for test in row.tests for case in cases.get(test, [])]
    if passed := sum(case.outcome is Outcome.PASSED for case in found):
        parts.append(f"as expected ({passed} {'test' if passed == 1 else 'tests'})")
    for outcome, word in _WORDS.items():
        for test in row.tests:
            reasons = {case.reason for case in cases.get(test, []) if case.outcome is outcome}
            if reasons:
                why = "; ".join(sorted(reasons))
                parts.append(f"{word}: {test.partition('::')[2]} ({why})")
    if absent := [test.partition("::")[2] for test in row.tests if test not in cases]:
        parts.append(f"NOT RUN: {', '.join(absent)} (not collected)")
    if row.lacks:
        parts.append(f"NOT RUN here: {row.lacks}")
    return "; ".join(parts)


def terminal(rows: Sequence[Row], cases: Cases) -> str:
    """Row, fault, expected, seen; and how many of each."""
    lines = []
    for row in rows:
        texts = (row.fault, row.expected, seen(row, cases))
        cells = [textwrap.wrap(text, width) for text, width in zip(texts, _WIDTHS, strict=True)]
        for line in range(max(map(len, cells))):
            one, two, three = (cell[line] if line < len(cell) else "" for cell in cells)
            number = f"{row.number:>2}" if line == 0 else "  "
            lines.append(f"{number}  {one:{_WIDTHS[0]}}  {two:{_WIDTHS[1]}}  {three}".rstrip())
    return "\n".join([*lines, "", *summary(rows, cases)])


def summary(rows: Sequence[Row], cases: Cases) -> list[str]:
    """How many rows are as expected, and which are not."""
    whole = [row for row in rows if row.tests and is_whole(row, cases)]
    parts = [str(row.number) for row in whole if row.lacks]
    none = [str(row.number) for row in rows if not row.tests]
    broken = [str(row.number) for row in rows if row.tests and not is_whole(row, cases)]
    in_part = f"; in part: rows {', '.join(parts)}" if parts else ""
    lines = [f"{len(whole)} of {len(rows)} rows as expected{in_part}"]
    if none:
        lines.append(f"NOT RUN here at all: rows {', '.join(none)}")
    if broken:
        lines.append(f"OTHERWISE, OR WITH A TEST THAT DID NOT RUN: rows {', '.join(broken)}")
    return lines


def markdown(rows: Sequence[Row], cases: Cases) -> str:
    """For the page."""
    lines = ["| # | fault | expected | seen |", "|---:|---|---|---|"]
    for row in rows:
        cells = (row.fault, row.expected, seen(row, cases))
        texts = [re.sub(r"([|_*<>])", r"\\\1", cell) for cell in cells]
        lines.append(f"| {row.number} | {' | '.join(texts)} |")
    return "\n".join([*lines, "", *summary(rows, cases)])


def write_page(rows: Sequence[Row], cases: Cases, said: str, path: Path = PAGE) -> None:
    """Put the table between its marks, under the line `said`. Raises ValueError where the marks are
    missing, or a test of a row has not run."""
    if absent := [row.number for row in rows if any(test not in cases for test in row.tests)]:
        raise ValueError(f"rows {absent} have not run; `make faults ARGS=--resume` runs them")
    put_between(path, _BEGIN, _END, [said, "", markdown(rows, cases)])
