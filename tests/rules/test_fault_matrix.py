"""The fault matrix names tests that exist, has all of its rows, and never passes over what did not
run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from bench.faults.matrix import ROWS, Row
from bench.faults.record import FILE_VARIABLE, Case, Outcome, read
from bench.faults.tables import PAGE, is_whole, markdown, seen, terminal, write_page

ROOT = Path(__file__).parents[2]


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_all_rows_are_there_in_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, 43))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_a_row_names_tests_that_exist_or_says_why_it_has_none(row: Row) -> None:
    assert row.tests or row.lacks
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in functions(path), test


ROW = Row(7, "fault", "expected", ("tests/a.py::test_x", "tests/b.py::test_y"))
X, Y = ROW.tests
PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


def cases(*given: tuple[str, Outcome, str]) -> dict[str, list[Case]]:
    """One case for each: test, outcome, reason."""
    found: dict[str, list[Case]] = {}
    for test, outcome, reason in given:
        at = "2026-11-30T10:00:00+00:00"
        found.setdefault(test, []).append(Case(test, test, outcome, reason, 60.0, at))
    return found


@pytest.mark.parametrize(
    ("given", "says", "whole"),
    [
        (
            cases((X, PASSED, ""), (X, PASSED, ""), (Y, PASSED, "")),
            "as expected (3 tests)",
            True,
        ),
        (
            cases((X, PASSED, ""), (X, FAILED, "assert 1 == 2"), (Y, PASSED, "")),
            "as expected (2 tests); OTHERWISE: test_x (assert 1 == 2)",
            False,
        ),
        (
            cases((X, PASSED, ""), (Y, SKIPPED, "needs root")),
            "as expected (1 test); NOT RUN: test_y (needs root)",
            False,
        ),
        (cases((X, PASSED, "")), "as expected (1 test); NOT RUN: test_y (not collected)", False),
        ({}, "NOT RUN: test_x, test_y (not collected)", False),
    ],
)
def test_what_did_not_run_is_said_and_why(
    given: dict[str, list[Case]], says: str, whole: bool
) -> None:
    assert seen(ROW, given) == says
    assert is_whole(ROW, given) is whole
    assert ("DID NOT RUN: rows 7" in terminal([ROW], given)) is not whole
    assert says in markdown([ROW], given).replace("\\", "")


def test_a_row_without_tests_is_not_run() -> None:
    text = terminal([Row(38, "a site lost", "each event once", lacks="elsewhere")], {})
    assert "NOT RUN here: elsewhere" in text
    assert "NOT RUN here at all: rows 38" in text
    assert "0 of 1 rows as expected" in text


OUTCOMES = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_a(number):
    assert number == 1, "not one"

def test_b():
    pytest.skip("no java")

@pytest.fixture
def broken():
    raise OSError("no disk")

def test_c(broken): ...

@pytest.fixture
def ends_badly():
    yield
    raise OSError("left something behind")

def test_d(ends_badly): ...
"""


def test_what_becomes_of_each_test_is_written_down_and_the_last_time_counts(tmp_path: Path) -> None:
    record, file = tmp_path / "record.jsonl", tmp_path / "test_outcomes.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.faults.record", "-c", "/dev/null"]
    for text in (OUTCOMES, OUTCOMES.replace("no java", "no Java")):
        file.write_text(text)
        subprocess.run(
            [*command, f"--rootdir={tmp_path}", str(file)],
            cwd=ROOT,
            env={**os.environ, FILE_VARIABLE: str(record), "PYTHONPATH": str(ROOT)},
            check=False,
            capture_output=True,
        )
    assert len(record.read_text().splitlines()) == 10
    found = {
        name.rpartition("::")[2]: [(case.outcome, case.reason) for case in of_test]
        for name, of_test in read(record).items()
    }
    assert found == {
        "test_a": [(PASSED, ""), (FAILED, "AssertionError: not one")],
        "test_b": [(SKIPPED, "no Java")],
        "test_c": [(FAILED, "OSError: no disk")],
        "test_d": [(FAILED, "OSError: left something behind")],
    }


def test_the_page_has_the_rows_as_they_are() -> None:
    page = PAGE.read_text().replace("\\", "")
    for row in ROWS:
        assert f"| {row.number} | {row.fault} | {row.expected} | " in page


def test_the_page_is_written_between_its_marks_and_only_of_all_rows(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text(PAGE.read_text())
    given = cases((X, PASSED, ""), (Y, PASSED, ""))
    write_page([ROW], given, "then", page)
    assert page.read_text().partition("<!--")[0] == PAGE.read_text().partition("<!--")[0]
    assert "\n| 7 | fault | expected | as expected (2 tests) |\n" in page.read_text()
    with pytest.raises(ValueError, match=r"rows \[7\] have not run"):
        write_page([ROW], cases((X, PASSED, "")), "then", page)
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no lines"):
        write_page([ROW], given, "then", page)
