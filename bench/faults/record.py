"""What became of each test: a line of JSON each, written as it ends, so that a run that is broken
off has lost nothing and can be gone on with.

As a plugin of pytest (`-p bench.faults.record`, with FAULTS_RECORD naming the file) it writes them,
and says on the terminal which rows are through.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

FILE_VARIABLE = "FAULTS_RECORD"
_REASON_CHARACTERS = 200


class Outcome(StrEnum):
    """Of one run of one test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """A test with one set of its parameters. test: as matrix.py names it. reason: why it failed or
    did not run, in a line. at: when it ended, RFC 3339."""

    test: str
    case: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    at: str = ""


Cases = Mapping[str, list[Case]]
"""By test; a test that never ran is in none."""


def read(file: Path) -> dict[str, list[Case]]:
    """The last outcome of each case; none where there is no such file."""
    if not file.exists():
        return {}
    last: dict[str, Case] = {}
    for line in file.read_text().splitlines():
        fields = json.loads(line)
        last[fields["case"]] = Case(**{**fields, "outcome": Outcome(fields["outcome"])})
    found: dict[str, list[Case]] = {}
    for case in last.values():
        found.setdefault(case.test, []).append(case)
    return found


def case_of(nodeid: str, reports: Iterable[pytest.TestReport]) -> Case:
    """What the reports of its set-up, its call and its end come to."""
    reports = list(reports)
    outcome, reason = Outcome.PASSED, ""
    for report in reports:
        if report.failed:
            outcome, reason = Outcome.FAILED, _first_error(report)
            break
        if report.skipped:
            outcome, reason = Outcome.SKIPPED, _why_skipped(report)
    return Case(
        test=nodeid.partition("[")[0],
        case=nodeid,
        outcome=outcome,
        reason=reason[:_REASON_CHARACTERS],
        seconds=round(sum(report.duration for report in reports), 1),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _why_skipped(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").strip().partition("\n")[0]


def _first_error(report: pytest.TestReport) -> str:
    found = re.search(r"^E\s+(.*)$", report.longreprtext, re.MULTILINE)
    return found[1] if found else report.longreprtext.strip().rpartition("\n")[2]


class Recorder:
    """Writes a line as each test ends; tells of rows as their last test ends."""

    def __init__(self, file: Path, config: pytest.Config) -> None:
        self._file, self._config = file, config
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._left: dict[str, int] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how many cases each test has."""
        for item in session.items:
            test = item.nodeid.partition("[")[0]
            self._left[test] = self._left.get(test, 0) + 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep it until the test has ended."""
        self._reports.setdefault(report.nodeid, []).append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Write it down."""
        from bench.faults.matrix import ROWS
        from bench.faults.tables import seen

        case = case_of(nodeid, self._reports.pop(nodeid, []))
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(case)) + "\n")
        self._left[case.test] -= 1
        if self._left[case.test]:
            return
        cases = read(self._file)
        for row in ROWS:
            if case.test in row.tests and not any(self._left.get(test) for test in row.tests):
                self._say(f"row {row.number}: {row.fault}: {seen(row, cases)}")

    def _say(self, text: str) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(text)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest where this file is given as a plugin."""
    config.pluginmanager.register(Recorder(Path(os.environ[FILE_VARIABLE]), config))
