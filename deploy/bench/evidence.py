"""What a run did, in the stages' documents: a short table in README.md, the whole log in
evidence.md beside it.

README.md carries the table between `<!-- evidence:STAGE -->` and `<!-- /evidence -->`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploy.bench.report import Report
from deploy.flows import ROOT

_NOISE = re.compile(r"make(\[\d+\])?: (Entering|Leaving|\*\*\*)|CONFWARN|^\s*$")
PIPE = r"\|"
_OUTCOME = re.compile(r"\[ *([\d.]+) s\] (passed|FAILED|NOT CHECKED|not run)  (.*)")


def write(report: Report, command: str, images: Sequence[str]) -> list[Path]:
    """Rewrites both documents of every stage that ran; returns the files written.

    `command` is what runs it again; `images` are the tags of the stand-ins that were used.
    """
    written = []
    for stage, lines in report.stages.items():
        readme = ROOT / stage / "README.md"
        if not stage or not readme.exists():
            continue
        entries = [_clean(entry) for entry in lines]
        origin = _origin(images)
        log = readme.with_name("evidence.md")
        log.write_text(_log(stage, command, origin, entries))
        written.append(log)
        block = re.compile(
            rf"(<!-- evidence:{stage.lower()} -->\n).*?(<!-- /evidence -->)", re.DOTALL
        )
        text = readme.read_text()
        if match := block.search(text):
            shown = (
                origin
                + "\n\n"
                + "".join(f"{table}\n" for table in report.tables.get(stage, []))
                + table_of(entries)
            )
            readme.write_text(text[: match.end(1)] + shown + text[match.start(2) :])
            written.append(readme)
    return written


def table_of(entries: Sequence[str]) -> str:
    """One row per check: what was checked, how it ended, and at which second of the run."""
    rows = [
        match.groups()
        for entry in entries
        for line in entry.splitlines()
        if (match := _OUTCOME.match(line))
    ]
    lines = [
        f"| {name.replace('|', PIPE)} | {outcome} | {float(second):.0f} |"
        for second, outcome, name in rows
    ]
    return (
        "\n".join(["| check | outcome | second of the run |", "| --- | --- | ---: |", *lines])
        + "\n"
    )


def _origin(images: Sequence[str]) -> str:
    machine = f"Linux {platform.release().split('-')[0]}, {platform.machine()}"
    names = ", ".join(f"`{name}`" for name in images)
    return (
        f"Run of {datetime.now(UTC):%Y-%m-%d}, on "
        f"{machine}{f'; stand-in images {names}' if images else ''}."
    )


def _log(stage: str, command: str, origin: str, entries: Sequence[str]) -> str:
    head = (
        f"# {stage}: a run's own output\n\nWritten by `{command}`; [README.md](README.md) has the "
        f"table.\n\n{origin}\n\n"
    )
    return head + "```text\n" + "\n".join(entry for entry in entries if entry) + "\n```\n"


def _clean(entry: str) -> str:
    lines = [
        line.rstrip().replace(str(ROOT), "<checkout>")
        for line in entry.splitlines()
        if not _NOISE.search(line)
    ]
    return "\n".join(lines)
