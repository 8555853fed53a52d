"""`python -m bench faults`: run the tests of the rows, print row -> expected -> seen."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

from bench.faults.matrix import ROWS, Row

ROOT = Path(__file__).parents[2]
_WIDTHS = (52, 58)


class Outcome(StrEnum):
    """Of one run of one test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


Outcomes = Mapping[str, Counter[Outcome]]
"""By test, as matrix.py names it: one count for each of its parameters."""


def main(argv: list[str]) -> None:
    """Exit code 1 when a row was seen to be otherwise than expected, or had a test that did not
    run."""
    parser = argparse.ArgumentParser(prog="python -m bench faults", description=__doc__)
    parser.add_argument("--rows", default="", help="such as 8,9,33; all without")
    wanted = parser.parse_args(argv).rows
    numbers = {int(number) for number in wanted.split(",") if number} or {
        row.number for row in ROWS
    }
    if unknown := numbers - {row.number for row in ROWS}:
        parser.error(f"--rows {min(unknown)}: rows are 1 to {len(ROWS)}")
    rows = [row for row in ROWS if row.number in numbers]
    outcomes = run_tests(sorted({test for row in rows for test in row.tests}))
    print(table(rows, outcomes))
    sys.exit(0 if all(is_whole(row, outcomes) for row in rows) else 1)


def run_tests(tests: Sequence[str]) -> Outcomes:
    """Their outcomes; a test that pytest did not even find is in none."""
    if not tests:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *tests]
        subprocess.run(command, cwd=ROOT, check=False)
        return read_report(report.read_text()) if report.exists() else {}


def read_report(text: str) -> Outcomes:
    """From pytest's report in JUnit's form."""
    outcomes: dict[str, Counter[Outcome]] = {}
    for case in ElementTree.fromstring(text).iter("testcase"):
        file = case.attrib["classname"].replace(".", "/")
        name = f"{file}.py::{case.attrib['name'].partition('[')[0]}"
        inner = {child.tag for child in case}
        outcome = Outcome.FAILED if inner & {"failure", "error"} else Outcome.PASSED
        outcomes.setdefault(name, Counter())[
            Outcome.SKIPPED if "skipped" in inner else outcome
        ] += 1
    return outcomes


def is_whole(row: Row, outcomes: Outcomes) -> bool:
    """Whether every test of the row ran and passed. A row without tests is not for this command to
    judge."""
    return all(
        set(outcomes.get(test, {Outcome.SKIPPED: 1})) == {Outcome.PASSED} for test in row.tests
    )


def seen(row: Row, outcomes: Outcomes) -> str:
    """What the last column says."""
    parts = []
    for outcome, word in ((Outcome.FAILED, "OTHERWISE"), (Outcome.SKIPPED, "NOT RUN, skipped")):
        names = [
            test.partition("::")[2] for test in row.tests if outcomes.get(test, Counter())[outcome]
        ]
        if names:
            parts.append(f"{word}: {', '.join(names)}")
    if absent := [test.partition("::")[2] for test in row.tests if test not in outcomes]:
        parts.append(f"NOT RUN, not collected: {', '.join(absent)}")
    passed = sum(outcomes.get(test, Counter())[Outcome.PASSED] for test in row.tests)
    if passed:
        parts.insert(0, f"as expected ({passed} {'test' if passed == 1 else 'tests'})")
    if row.lacks:
        parts.append(f"NOT RUN here: {row.lacks}")
    return "; ".join(parts)


def table(rows: Sequence[Row], outcomes: Outcomes) -> str:
    """Row, fault, expected, seen; and how many of each."""
    lines = []
    for row in rows:
        cells = [textwrap.wrap(row.fault, _WIDTHS[0]), textwrap.wrap(row.expected, _WIDTHS[1])]
        cells.append(textwrap.wrap(seen(row, outcomes), 70))
        for line in range(max(map(len, cells))):
            texts = [cell[line] if line < len(cell) else "" for cell in cells]
            number = f"{row.number:>2}" if line == 0 else "  "
            lines.append(
                f"{number}  {texts[0]:{_WIDTHS[0]}}  {texts[1]:{_WIDTHS[1]}}  {texts[2]}".rstrip()
            )
    whole = [row for row in rows if row.tests and is_whole(row, outcomes)]
    parts = sum(1 for row in whole if row.lacks)
    none = [str(row.number) for row in rows if not row.tests]
    broken = [str(row.number) for row in rows if row.tests and not is_whole(row, outcomes)]
    lines.append(f"\n{len(whole)} of {len(rows)} rows as expected, {parts} of them in part")
    if none:
        lines.append(f"NOT RUN here at all: rows {', '.join(none)}")
    if broken:
        lines.append(f"OTHERWISE, OR WITH A TEST THAT DID NOT RUN: rows {', '.join(broken)}")
    return "\n".join(lines)
