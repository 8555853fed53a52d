"""`python -m bench faults`: run the tests of the rows, print row -> expected -> seen."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bench.faults.matrix import ROWS
from bench.faults.record import FILE_VARIABLE, Cases, read
from bench.faults.tables import has_passed, is_whole, terminal, write_page
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, REFERENCE_VERSION

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "build" / "faults.jsonl"


def main(argv: list[str]) -> None:
    """Exit code 1 when a row was seen to be otherwise than expected, or had a test that did not
    run."""
    parser = argparse.ArgumentParser(prog="python -m bench faults", description=__doc__)
    parser.add_argument("--rows", default="", help="such as 8,9,33; all without")
    parser.add_argument(
        "--resume", action="store_true", help="only tests that have not passed since the last start"
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/faults.md")
    given = parser.parse_args(argv)
    numbers = {int(number) for number in given.rows.split(",") if number} or {
        row.number for row in ROWS
    }
    if unknown := numbers - {row.number for row in ROWS}:
        parser.error(f"--rows {min(unknown)}: rows are 1 to {len(ROWS)}")
    rows = [row for row in ROWS if row.number in numbers]
    if not given.rows and not given.resume:
        RECORD.unlink(missing_ok=True)
    before = read(RECORD)
    tests = {test for row in rows for test in row.tests}
    if given.resume:
        tests = {test for test in tests if not has_passed(test, before)}
    run_tests(sorted(tests))
    cases = read(RECORD)
    print(terminal(rows, cases))
    print(f"\n{machine(cases)}")
    if given.write:
        write_page(ROWS, cases, machine(cases))
    sys.exit(0 if all(is_whole(row, cases) for row in rows) else 1)


def run_tests(tests: Sequence[str]) -> None:
    """In one pytest, which writes down what becomes of each as it ends."""
    if not tests:
        return
    RECORD.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "bench.faults.record", *tests]
    subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, FILE_VARIABLE: str(RECORD)})


def machine(cases: Cases) -> str:
    """When, how long, on what."""
    all_cases = [case for found in cases.values() for case in found]
    days = sorted({datetime.fromisoformat(case.at).date() for case in all_cases})
    when = " to ".join(f"{day:%Y-%m-%d}" for day in dict.fromkeys([*days[:1], *days[-1:]]))
    minutes = sum(case.seconds for case in all_cases) / 60
    return (
        f"`make faults` on {when or 'no day'}: {len(all_cases)} tests, {minutes:.0f} minutes; "
        f"{os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}, Kafka "
        f"{CURRENT_VERSION} and {REFERENCE_VERSION}, Python {platform.python_version()}."
    )
