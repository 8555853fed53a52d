"""The README sections that show a run's own output, between `<!-- evidence:STAGE -->` and `<!-- /evidence -->`."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from deploy.flows import ROOT
from deploy.vms import images
from deploy.vms.report import Report

_NOISE = re.compile(r"make(\[\d+\])?: (Entering|Leaving|\*\*\*)|CONFWARN|^\s*$")


def write(report: Report) -> list[Path]:
    """Replaces the sections of the stages that ran; returns the files written."""
    written = []
    for stage, lines in report.stages.items():
        path = ROOT / stage / "README.md"
        if not stage or not path.exists():
            continue
        block = re.compile(rf"(<!-- evidence:{stage.lower()} -->\n).*?(<!-- /evidence -->)", re.DOTALL)
        text = path.read_text()
        if found := block.search(text):
            path.write_text(text[: found.end(1)] + _show(lines) + text[found.start(2) :])
            written.append(path)
    return written


def _show(lines: list[str]) -> str:
    shown = [line for entry in lines for line in entry.splitlines() if not _NOISE.search(line)]
    names = ", ".join(f"`{name}`" for name in images.versions().values())
    machine = f"Linux {platform.release().split('-')[0]}, {platform.machine()}"
    text = "\n".join(line.rstrip().replace(str(ROOT), "<checkout>") for line in shown)
    return f"Run of {datetime.now(UTC):%Y-%m-%d}, on {machine}; stand-in images {names}.\n\n```text\n{text}\n```\n"
