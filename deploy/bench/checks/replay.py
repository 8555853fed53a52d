"""The exact replay: the Azure LLM inference trace (19,366 real requests) and what must be stored of
it, to the token."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.bench.report import NotChecked, expect
from deploy.bench.shell import CommandFailed
from deploy.flows import ROOT

NAME = "AzureLLMInferenceTrace_conv.csv"


@dataclass(frozen=True)
class Sums:
    """What must be in MongoDB after a replay: requests, prompt tokens, completion tokens."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def find_trace() -> Path:
    """TRACE_FILE, else a `data/traces` folder beside the checkout. Raises NotChecked when there is
    none."""
    named = os.environ.get("TRACE_FILE")
    for path in [Path(named)] if named else sorted(ROOT.parent.glob(f"*/data/traces/{NAME}")):
        if path.exists():
            return path
    raise NotChecked(
        f"the trace {NAME} is not here (set TRACE_FILE); it is Azure/AzurePublicDataset's, CC-BY "
        "4.0, not this repository's"
    )


def sums_of(trace: Path) -> Sums:
    """Counted from the file itself, not taken from what the pipeline says."""
    with trace.open(newline="") as file:
        rows = [
            (int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)
        ]
    return Sums(
        len(rows), sum(prompt for prompt, _ in rows), sum(completion for _, completion in rows)
    )


def await_sums(sums: Callable[[], Sums], expected: Sums, timeout_seconds: float, what: str) -> None:
    """Polls until the sums are the expected ones. Raises CheckFailed with the last ones seen when
    time is up."""
    end = time.monotonic() + timeout_seconds
    seen = Sums(0, 0, 0)
    while seen != expected and time.monotonic() < end:
        with suppress(CommandFailed):  # the database may be starting
            seen = sums()
        time.sleep(2)
    expect(seen == expected, f"{what} after {timeout_seconds:.0f} s: {seen}, not {expected}")
