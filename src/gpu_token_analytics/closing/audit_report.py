"""What an audit found, for programs and for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gpu_token_analytics.documents import COUNTS, NUSD_PER_USD, MoneyClass
from gpu_token_analytics.ledger.document import LedgerLine

MAX_LISTED = 100
MAX_ENGINES = 10_000
SHOWN_ENGINES = 10
ENGINE_COUNTS = ("engine_prompt_tokens", "engine_completion_tokens")  # of what engines counted

# what the processor's housekeeping, every 10 s, has to bring and closing to compute
SECOND_LOOK_SECONDS = 15.0


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold."""

    cell: str
    problem: str


@dataclass
class EngineTokens:
    """Prompt and completion tokens of one engine, in the cells that were audited."""

    counted: int = 0  # by the engine
    unexplained: int = 0  # of these, those that no request tells of
    more: int = 0  # that requests tell of, beyond what it counted

    @property
    def coverage(self) -> float | None:
        """Part of what it counted that requests explain; None: it counted nothing."""
        return (self.counted - self.unexplained) / self.counted if self.counted else None


@dataclass
class AuditReport:
    """What an audit found. Money in nano-USD."""

    start: datetime | None
    end: datetime | None
    fresh: bool
    gpus: int = 0
    cells: int = 0
    cells_pending: int = 0
    cells_not_over: int = 0
    cells_kept: int = 0  # too old to be computed again: their raw events may have expired
    # computed by an earlier version of the ledger, or with other settings
    cells_of_other_rules: int = 0
    cells_unmarked: int = 0  # of requests that reach too far for their batch: not marked yet
    cells_changing: int = 0  # differed, but were touched meanwhile
    cost_nusd: int = 0
    compared: int = 0  # cells computed again and compared
    compared_nusd: int = 0  # their stored C
    price_time_nusd: int = 0  # price x time of the same cells
    sums_compared: int = 0  # hourly and daily sums, with what they are sums of
    sums_behind: int = 0  # of these, they do not hold the newest content of their parts yet
    set_aside: int = 0  # cells and sums that MongoDB refuses for good
    shared_uuids: int = 0  # of several cards each, which are told apart by their hosts
    # on GPUs that nobody sampled or declared, so that their money is unknown
    unknown_gpu_requests: int = 0
    unknown_gpu_tokens: int = 0
    default_price_nusd: int = 0  # of cells in which the default price held
    # owned cells that no price row, sample or default has a price for, if only for a part
    unpriced: int = 0
    classes_nusd: Counter[str] = field(default_factory=Counter)
    ledger_counts: Counter[str] = field(default_factory=Counter)
    # by instance, at most MAX_ENGINES of them
    engines: dict[str, EngineTokens] = field(default_factory=dict)
    # None: not compared (a part of the time only, or cells are pending)
    raw_counts: Counter[str] | None = None
    findings: list[Finding] = field(default_factory=list)
    findings_count: int = 0

    @property
    def holds(self) -> bool:
        """True when nothing was found."""
        return not self.findings_count

    def as_json(self) -> dict[str, Any]:
        """For programs: everything but the bounds as numbers, the bounds as RFC 3339."""
        return {
            "from": None if self.start is None else self.start.isoformat(),
            "to": None if self.end is None else self.end.isoformat(),
            "holds": self.holds,
            "fresh": self.fresh,
            "gpus": self.gpus,
            "cells": self.cells,
            "cells_pending": self.cells_pending,
            "cells_not_over": self.cells_not_over,
            "cells_kept": self.cells_kept,
            "cells_of_other_rules": self.cells_of_other_rules,
            "cells_unmarked": self.cells_unmarked,
            "cells_changing": self.cells_changing,
            "cost_nusd": self.cost_nusd,
            "compared": self.compared,
            "compared_nusd": self.compared_nusd,
            "price_time_nusd": self.price_time_nusd,
            "sums_compared": self.sums_compared,
            "sums_behind": self.sums_behind,
            "set_aside": self.set_aside,
            "unpriced": self.unpriced,
            "shared_uuids": self.shared_uuids,
            "unknown_gpu_requests": self.unknown_gpu_requests,
            "unknown_gpu_tokens": self.unknown_gpu_tokens,
            "default_price_nusd": self.default_price_nusd,
            "classes_nusd": {name.value: self.classes_nusd[name.value] for name in MoneyClass},
            "ledger": {name: self.ledger_counts[name] for name in COUNTS},
            "raw": None
            if self.raw_counts is None
            else {name: self.raw_counts[name] for name in COUNTS},
            "engines": [
                {
                    "instance": name,
                    "counted_tokens": engine.counted,
                    "unexplained_tokens": engine.unexplained,
                    "more_tokens": engine.more,
                    "coverage": engine.coverage,
                }
                for name, engine in self.least_covered
            ],
            "findings_count": self.findings_count,
            "findings": [{"cell": item.cell, "problem": item.problem} for item in self.findings],
        }

    def see_counted(self, line: LedgerLine) -> None:
        """Count a line of an engine."""
        counted = line["counted"]
        for name in ENGINE_COUNTS:
            self.ledger_counts[name] += counted[name.removeprefix("engine_")]  # type: ignore[literal-required]
        if counted["instance"] in self.engines or len(self.engines) < MAX_ENGINES:
            engine = self.engines.setdefault(counted["instance"], EngineTokens())
            engine.counted += counted["prompt_tokens"] + counted["completion_tokens"]
            engine.unexplained += line["prompt_tokens"] + line["completion_tokens"]
            engine.more += counted["more_prompt_tokens"] + counted["more_completion_tokens"]

    @property
    def least_covered(self) -> list[tuple[str, EngineTokens]]:
        """Engines that counted something, the least covered ones first."""
        counting = [
            (name, engine) for name, engine in self.engines.items() if engine.counted or engine.more
        ]
        return sorted(counting, key=lambda item: (item[1].coverage or 0.0, item[0]))[:MAX_LISTED]

    def compare(self, stored_nusd: int, price_time_nusd: int) -> None:
        """Count a cell that was computed again and compared."""
        self.compared += 1
        self.compared_nusd += stored_nusd
        self.price_time_nusd += price_time_nusd

    def found(self, cell: str, problem: str) -> None:
        """Note a finding; the first MAX_LISTED are listed, all are counted."""
        self.findings_count += 1
        if len(self.findings) < MAX_LISTED:
            self.findings.append(Finding(cell, problem))


def _of_engine(name: str, engine: EngineTokens) -> str:
    """What an engine counted, against its requests."""
    if engine.coverage is None:
        return (
            f"engine {name}: counted nothing, while requests tell of {engine.more:,} tokens: is it "
            "placed on the right GPUs?"
        )
    more = f"; requests tell of {engine.more:,} more than it counted" if engine.more else ""
    return (
        f"engine {name}: counted {engine.counted:,} tokens, of which requests explain "
        f"{engine.coverage:.1%}; "
        f"{engine.unexplained:,} are unmetered work{more}"
    )


def describe(report: AuditReport) -> list[str]:
    """The report as lines for a person."""
    lines = [
        f"{report.cells:,} cells of {report.gpus:,} GPUs"
        + (f", {report.cells_pending:,} still to be computed" if report.cells_pending else "")
        + (f", {report.cells_not_over:,} of minutes not over" if report.cells_not_over else "")
        + (
            f", {report.cells_kept:,} older than their raw events are kept"
            if report.cells_kept
            else ""
        )
        + (
            f", {report.cells_of_other_rules:,} computed by other rules"
            if report.cells_of_other_rules
            else ""
        )
        + (f", {report.cells_unmarked:,} still to be marked" if report.cells_unmarked else "")
        + (
            f", {report.cells_changing:,} changing while they were audited"
            if report.cells_changing
            else ""
        ),
        f"C = {report.cost_nusd:,} nano-USD ({report.cost_nusd / NUSD_PER_USD:,.6f} USD)",
        *(f"    {name.value:<15}{report.classes_nusd[name.value]:>24,}" for name in MoneyClass),
        f"    {'sum':<15}{sum(report.classes_nusd.values()):>24,}",
    ]
    if report.fresh:
        lines.append(
            f"computed again from raw events: {report.compared:,} cells of minutes that are over"
        )
        lines.append(f"    {'C':<15}{report.compared_nusd:>24,}")
        lines.append(f"    {'price x time':<15}{report.price_time_nusd:>24,}")
    if report.raw_counts is not None:
        lines += [
            f"{name}: {report.raw_counts[name]:,} in raw events, {report.ledger_counts[name]:,} in "
            "the ledger"
            for name in COUNTS
        ]
    lines += [_of_engine(name, engine) for name, engine in report.least_covered[:SHOWN_ENGINES]]
    if report.sums_compared:
        behind = f", {report.sums_behind:,} of them behind" if report.sums_behind else ""
        lines.append(
            f"added up again from their parts: {report.sums_compared:,} sums of hours and "
            f"days{behind}"
        )
    if report.unpriced:
        lines.append(
            f"{report.unpriced:,} cells have no price and cost 0: add a `default` row with "
            "`gpu-tokens prices add`"
        )
    if report.default_price_nusd:
        lines.append(
            f"{report.default_price_nusd / NUSD_PER_USD:,.6f} USD are at the default price: no "
            "price row or sample names these "
            "GPUs"
        )
    if report.unknown_gpu_requests or report.unknown_gpu_tokens:
        lines.append(
            f"{report.unknown_gpu_requests:,} requests with {report.unknown_gpu_tokens:,} tokens "
            "ran on GPUs that nobody "
            "sampled or declared, so their money is unknown: `gpu-tokens gpus list` names them"
        )
    if report.shared_uuids:
        lines.append(
            f"{report.shared_uuids:,} UUIDs are of several cards, on several hosts at once: each "
            "is paid, under host/UUID"
        )
    lines += [f"WRONG {finding.cell}: {finding.problem}" for finding in report.findings]
    if report.findings_count > len(report.findings):
        lines.append(f"... and {report.findings_count - len(report.findings):,} more")
    lines.append(
        "the ledger holds to the nano-dollar"
        if report.holds
        else f"the ledger DOES NOT HOLD: {report.findings_count:,} findings"
    )
    return lines
