"""What a run checked. A step that cannot run on this machine is NOT CHECKED, loudly, and never
counts as passed."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


class NotChecked(Exception):
    """This machine cannot run the check; the message says what it lacks."""


class CheckFailed(Exception):
    """A check's expectation does not hold; the message says what was seen."""


def expect(condition: bool, seen: str) -> None:
    """Raises CheckFailed with what was seen unless `condition` holds."""
    if not condition:
        raise CheckFailed(seen)


@dataclass
class Report:
    """The results of one run, printed as they come."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    stages: dict[str, list[str]] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    stage: str = ""

    def begin(self, stage: str) -> None:
        """What is said from here on belongs to `stage`."""
        self.stage = stage
        self.stages.setdefault(stage, [])

    def say(self, text: str) -> None:
        """A line with the seconds since the start of the run."""
        line = f"[{time.monotonic() - self.started:6.1f} s] {text}"
        self.stages.setdefault(self.stage, []).append(line)
        print(line, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of measured figures, said at once and kept for the stage's README."""
        cells = [
            list(header),
            ["---"] * len(header),
            *([str(cell) for cell in row] for row in rows),
        ]
        text = "".join("| " + " | ".join(line) + " |\n" for line in cells)
        self.tables.setdefault(self.stage, []).append(text)
        self.say("\n" + text.rstrip())

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        """One check. Its exception is recorded and swallowed, so that the checks after it still
        run."""
        try:
            yield
        except NotChecked as reason:
            self.skip(name, str(reason))
        except Exception as error:  # noqa: BLE001 - whatever breaks a check is that check's result
            self.failed.append(name)
            self.say(f"FAILED  {name}: {error}")
            if not isinstance(error, CheckFailed):
                traceback.print_exc(file=sys.stdout)
        else:
            self.passed.append(name)
            self.say(f"passed  {name}")

    def skip(self, name: str, lacks: str) -> None:
        """Records a check that cannot run here."""
        self.not_checked.append(f"{name}: {lacks}")
        self.say(f"NOT CHECKED  {name}: {lacks}")

    def leave_out(self, name: str, why: str) -> None:
        """Says that this run does not hold a check which a longer one holds; it is no lack of the
        machine."""
        self.say(f"not run  {name}: {why}")

    def close(self, *, strict: bool = False) -> int:
        """Prints the summary; its last line is `N passed, N failed`. Returns the exit status.

        strict: what could not be checked fails the run, too; for machines that are meant to check
        everything.
        """
        print()
        for line in self.not_checked:
            print(f"NOT CHECKED  {line}")
        for line in self.failed:
            print(f"FAILED  {line}")
        if self.not_checked:
            print(
                f"{len(self.not_checked)} not checked on this machine: they are neither passed nor "
                "failed"
            )
        print(f"{time.monotonic() - self.started:.0f} seconds")
        print(f"{len(self.passed)} passed, {len(self.failed)} failed", flush=True)
        return 1 if self.failed or (strict and self.not_checked) else 0
