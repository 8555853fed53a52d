"""The fault matrix names tests that exist, has all of its rows, and never passes over what did not
run."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from bench.faults.matrix import ROWS, Row
from bench.faults.run import Outcome, is_whole, read_report, seen, table

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


@pytest.mark.parametrize(
    ("outcomes", "says", "whole"),
    [
        ({X: {"passed": 2}, Y: {"passed": 1}}, "as expected (3 tests)", True),
        (
            {X: {"passed": 1, "failed": 1}, Y: {"passed": 1}},
            "as expected (2 tests); OTHERWISE: test_x",
            False,
        ),
        (
            {X: {"passed": 1}, Y: {"skipped": 1}},
            "as expected (1 test); NOT RUN, skipped: test_y",
            False,
        ),
        ({X: {"passed": 1}}, "as expected (1 test); NOT RUN, not collected: test_y", False),
        ({}, "NOT RUN, not collected: test_x, test_y", False),
    ],
)
def test_what_did_not_run_is_said(
    outcomes: dict[str, dict[str, int]], says: str, whole: bool
) -> None:
    counted = {
        test: Counter({Outcome(word): count for word, count in counts.items()})
        for test, counts in outcomes.items()
    }
    assert seen(ROW, counted) == says
    assert is_whole(ROW, counted) is whole
    assert ("DID NOT RUN: rows 7" in table([ROW], counted)) is not whole


def test_a_row_without_tests_is_not_run() -> None:
    text = table([Row(38, "a site lost", "each event once", lacks="elsewhere")], {})
    assert "NOT RUN here: elsewhere" in text
    assert "NOT RUN here at all: rows 38" in text
    assert "0 of 1 rows as expected" in text


def test_the_report_of_pytest_is_read() -> None:
    report = """<testsuites><testsuite>
        <testcase classname="tests.integration.test_x" name="test_a[1]"/>
        <testcase classname="tests.integration.test_x" name="test_a[2]">
            <failure message="no"/></testcase>
        <testcase classname="tests.integration.test_x" name="test_b">
            <error message="fixture"/></testcase>
        <testcase classname="tests.integration.test_x" name="test_c">
            <skipped message="no java"/></testcase>
    </testsuite></testsuites>"""
    assert read_report(report) == {
        "tests/integration/test_x.py::test_a": {Outcome.PASSED: 1, Outcome.FAILED: 1},
        "tests/integration/test_x.py::test_b": {Outcome.FAILED: 1},
        "tests/integration/test_x.py::test_c": {Outcome.SKIPPED: 1},
    }
