"""The audit: does every nano-dollar have exactly one class, and is the ledger what the raw events say?

    identity   in every stored cell: classes sum to C, class times to the owned time, lines to `attributed`
    price      C again from price x time alone, in Python integers, without the ledger's own arithmetic
    fresh      every cell computed again from raw events and compared, cells missing or too many included
    sums       every hourly and daily sum, added up again from its parts (rollups/audit.py), also without `fresh`
    aside      what MongoDB refused for good and is not in the ledger as it should be
    totals     requests and tokens of the raw events against the sums of the ledger's lines, exactly

Of cells that are due, of minutes that are not over, of cells that are older than raw events are kept, and of cells that were
computed by other rules (before an upgrade, or with other settings of the ledger), only the identity is judged: what they say
is, or may be, not what the raw events say now and here. Their requests and tokens are in the totals all the same.

A ledger that is audited while it is written has differences that are none: an event is stored before its cells are marked,
a price reaches its cells within seconds, a silence is opened after it. So a cell that differs is looked at a second time,
after such changes had time to arrive. It is wrong if it was neither touched nor computed in between; else it is told as
changing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.cells.lines import lines_digest
from gpu_token_analytics.cells.store import Version, version_of
from gpu_token_analytics.closing.load import load_timelines
from gpu_token_analytics.closing.runs import runs_of
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import COUNTS, US_PER_HOUR, US_PER_MINUTE, GpuId, MoneyClass, cell_id, touched_minutes
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.computed import ComputedCell, compute_runs
from gpu_token_analytics.ledger.ownership import owned_silent_minutes
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import NO_ROW, PriceMode
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.rollups.audit import audit_sums
from gpu_token_analytics.rollups.spans import HOUR, floor
from gpu_token_analytics.wire.events import touching_kinds
from gpu_token_analytics.wire.times import to_us

MAX_LISTED = 100
SECOND_LOOK_SECONDS = 15.0  # what the processor's housekeeping, every 10 s, has to bring and closing to compute
# The minutes a live GPU says nothing in are opened by housekeeping, too: younger ones may be missing.
_SILENCE_OPENED_US = US_PER_MINUTE
_MANY_LINES = 256
_LOOKED_AT = 10_000  # cells in one command


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold."""

    cell: str
    problem: str


@dataclass(frozen=True)
class _Doubt:
    """A cell that is not what raw events say: wrong, or changing."""

    cell: str
    version: Version | None  # None: there is no such cell
    problem: str
    minute_us: int
    stored_nusd: int = 0
    price_time_nusd: int = 0


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
    cells_of_other_rules: int = 0  # computed by an earlier version of the ledger, or with other settings
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
    unknown_gpu_requests: int = 0  # on GPUs that nobody sampled or declared, so that their money is unknown
    unknown_gpu_tokens: int = 0
    default_price_nusd: int = 0  # of cells in which the default price held
    unpriced: int = 0  # owned cells that no price row, sample or default has a price for, if only for a part
    classes_nusd: Counter[str] = field(default_factory=Counter)
    ledger_counts: Counter[str] = field(default_factory=Counter)
    raw_counts: Counter[str] | None = None  # None: not compared (a part of the time only, or cells are pending)
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
            "raw": None if self.raw_counts is None else {name: self.raw_counts[name] for name in COUNTS},
            "findings_count": self.findings_count,
            "findings": [{"cell": item.cell, "problem": item.problem} for item in self.findings],
        }

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


def audit(
    store: LedgerStore,
    params: LedgerParams,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    fresh: bool = True,
    raw_complete_for: timedelta | None = None,
    on_gpu: Callable[[int, int], None] = lambda _done, _total: None,
    before_second_look: Callable[[int], object] = lambda _cells: None,
) -> AuditReport:
    """Audit the cells with start <= minute < end (all without bounds). on_gpu(done, total) reports progress.

    fresh=False leaves out the computation from raw events and the totals. raw_complete_for: cells that opened longer ago
    are not computed again (Settings.raw_complete_for); None: all are. before_second_look(cells) is called when so many cells
    differ (0: totals do), to wait SECOND_LOOK_SECONDS in where a processor may be at work; without it they are looked at
    again at once.
    """
    report = AuditReport(start, end, fresh)
    now = store.now()
    horizon = None if raw_complete_for is None else now - raw_complete_for
    books = store.books.read()
    gpus = sorted({*store.cells.cell_gpus(), *_raw_gpus(store, books)} if fresh else store.cells.cell_gpus())
    report.gpus = len(gpus)
    report.shared_uuids = len(books.shared.hosts)
    doubts: list[_Doubt] = []
    gpu_hours: set[tuple[GpuId, datetime]] = set()
    for done, gpu in enumerate(gpus):
        on_gpu(done, len(gpus))
        doubts += _audit_gpu(store, books, params, gpu, now, horizon, report, gpu_hours)
    on_gpu(len(gpus), len(gpus))
    if doubts:
        before_second_look(len(doubts))
        _look_again(store, doubts, report)
    _audit_sums(store, gpu_hours, report, before_second_look)
    for row in store.rollups.aside.rows():
        report.set_aside += 1
        report.found(row["owner"], f"set aside since {row['since']:%Y-%m-%dT%H:%MZ}: {row['why']}")
    if report.cost_nusd != sum(report.classes_nusd.values()):
        report.found("total", f"classes sum to {sum(report.classes_nusd.values())}, C to {report.cost_nusd}")
    report.cells_unmarked = store.pending_marks.count() if fresh else 0
    unsettled = (
        report.cells_unmarked or report.cells_pending or report.cells_not_over or report.cells_kept or report.cells_changing
    )
    if fresh and start is None and end is None and not unsettled:
        _compare_totals(store, now, report, before_second_look)
    return report


def _audit_gpu(
    store: LedgerStore,
    books: Books,
    params: LedgerParams,
    gpu: GpuId,
    now: datetime,
    horizon: datetime | None,
    report: AuditReport,
    gpu_hours: set[tuple[GpuId, datetime]],
) -> list[_Doubt]:
    stored: dict[int, Document] = {}
    kept: set[int] = set()
    now_us = to_us(now)
    for cell in store.cells.cells_of(gpu, report.start, report.end):
        minute = to_us(cell["minute"])
        stored[minute] = cell
        gpu_hours.add((gpu, floor(cell["minute"], HOUR)))
        report.cells += 1
        over = minute + US_PER_MINUTE <= now_us
        report.cells_pending += _is_due(cell, over)
        if "cost_nusd" not in cell:
            continue
        _check_identity(cell, report)
        if len(cell["lines"]) > _MANY_LINES:  # all cells of a GPU are in memory
            cell["lines"] = lines_digest(cell["lines"])
        report.cells_not_over += not over
        if horizon is not None and cell["opened_at"] < horizon:
            report.cells_kept += 1
            kept.add(minute)
        elif cell["params"] != params.version:
            report.cells_of_other_rules += 1
            kept.add(minute)
    if not report.fresh:
        return []
    again = _compute_again(store, books, params, gpu, set(stored), kept, now_us, report)
    doubts = (_compare(computed, stored.get(computed.content.start_us), report) for computed in again)
    return [doubt for doubt in doubts if doubt is not None]


def _audit_sums(
    store: LedgerStore,
    gpu_hours: set[tuple[GpuId, datetime]],
    report: AuditReport,
    before_second_look: Callable[[int], object],
) -> None:
    def covered(start: datetime, end: datetime) -> bool:
        return (report.start is None or report.start <= start) and (report.end is None or end <= report.end)

    found = audit_sums(store.rollups, gpu_hours, covered, before_second_look)
    report.sums_compared, report.sums_behind = found.compared, found.behind
    for name in found.different:
        report.found(name, "the sum is not what its parts sum to, and none of them waits to be rolled up")


def _look_again(store: LedgerStore, doubts: Sequence[_Doubt], report: AuditReport) -> None:
    for at in range(0, len(doubts), _LOOKED_AT):
        asked = doubts[at : at + _LOOKED_AT]
        unmarked = store.pending_marks.waiting(doubt.minute_us for doubt in asked)  # first: marked since, it has a new version
        versions = store.cells.versions(doubt.cell for doubt in asked)
        for doubt in asked:
            if doubt.minute_us in unmarked or versions.get(doubt.cell) != doubt.version:
                report.cells_changing += 1
                continue
            report.found(doubt.cell, doubt.problem)
            if doubt.version is not None:
                report.compare(doubt.stored_nusd, doubt.price_time_nusd)


def _compare_totals(
    store: LedgerStore, started: datetime, report: AuditReport, before_second_look: Callable[[int], object]
) -> None:
    raw = Counter(store.raw.usage_totals())
    different = [name for name in COUNTS if raw[name] != report.ledger_counts[name]]
    if different and not report.findings_count:
        before_second_look(0)
        if store.cells.is_changing(started):
            return
    report.raw_counts = raw
    for name in different:
        report.found("total", f"{name}: {raw[name]} in raw events, {report.ledger_counts[name]} in the ledger")


def _is_due(cell: Document, over: bool) -> bool:
    """Whether it is still to be computed: it was touched, or its minute is over, and was not when it was computed."""
    return cell["done_gen"] < cell["gen"] or (over and "due_at" in cell)


def _check_identity(cell: Document, report: AuditReport) -> None:
    classes, cost = cell["classes"], cell["cost_nusd"]
    report.cost_nusd += cost
    report.classes_nusd.update(classes)
    if sum(classes.values()) != cost:
        report.found(cell["_id"], f"classes sum to {sum(classes.values())}, C is {cost}")
    if min(classes.values()) < 0:
        report.found(cell["_id"], f"a class is negative: {classes}")
    if sum(cell["class_us"].values()) != cell["owned_us"]:
        report.found(cell["_id"], f"class times sum to {sum(cell['class_us'].values())} us, owned are {cell['owned_us']}")
    lines = sum(line["cost_nusd"] or 0 for line in cell["lines"])
    if lines != classes[MoneyClass.ATTRIBUTED]:
        report.found(cell["_id"], f"lines sum to {lines}, attributed is {classes[MoneyClass.ATTRIBUTED]}")
    report.unpriced += NO_ROW in cell.get("price_rows", ()) and cell["owned_us"] > 0
    report.default_price_nusd += cost if cell.get("default_price") else 0
    for line in cell["lines"]:
        if line["cost_nusd"] is None:
            report.unknown_gpu_requests += line["requests"]
            report.unknown_gpu_tokens += line["prompt_tokens"] + line["completion_tokens"]
        report.ledger_counts.update({name: line[name] for name in COUNTS})


def _compute_again(
    store: LedgerStore,
    books: Books,
    params: LedgerParams,
    gpu: GpuId,
    stored: set[int],
    kept: set[int],
    now_us: int,
    report: AuditReport,
) -> Iterator[ComputedCell]:
    evidence = _evidence_minutes(store, books, gpu)
    owned = set(evidence)
    if books.card_of(gpu) is None and books.may_own(gpu):
        until_us = now_us - _SILENCE_OPENED_US
        live = bool(books.row(gpu).get("live"))
        owned.update(owned_silent_minutes(evidence, until_us, params.silent_owned_us, live=live))
    low = None if report.start is None else to_us(report.start)
    high = None if report.end is None else to_us(report.end)
    minutes = [
        minute
        for minute in sorted((owned | stored) - kept)
        if (low is None or minute >= low) and (high is None or minute < high) and minute + US_PER_MINUTE <= now_us
    ]
    for run in runs_of(minutes):
        for timelines in load_timelines(store.raw, books, params, {gpu: run}, now_us):
            for computed in compute_runs(timelines, params):
                yield from computed.cells


def _compare(computed: ComputedCell, stored: Document | None, report: AuditReport) -> _Doubt | None:
    content = computed.content
    name = cell_id(computed.gpu, content.start_us)
    expected = _price_time(computed)
    if expected is not None and expected != content.cost_nusd:
        report.found(name, f"price x time is {expected}, computed C is {content.cost_nusd}")
    if stored is None:
        missing = f"the cell is missing: {content.cost_nusd} nano-USD are not in the ledger"
        return _Doubt(name, None, missing, content.start_us) if content.owned_us or content.lines else None
    if _is_due(stored, over=True):  # no other minute is computed again
        return None
    price_time = content.cost_nusd if expected is None else expected
    fields = computed.fields()
    if isinstance(stored["lines"], bytes):
        fields["lines"] = lines_digest(fields["lines"])
    different = sorted(key for key, value in fields.items() if stored.get(key) != value)
    if not different:
        report.compare(stored["cost_nusd"], price_time)
        return None
    shown = ", ".join(f"{key}: stored {_short(stored.get(key))}, fresh {_short(fields[key])}" for key in different[:3])
    problem = f"differs from a fresh computation in {shown}"
    return _Doubt(name, version_of(stored), problem, content.start_us, stored["cost_nusd"], price_time)


def _price_time(computed: ComputedCell) -> int | None:
    """Price x owned time in Python integers; None where C is not that alone (MIG parts, owned mode's energy)."""
    if computed.share is not None or any(piece.mode is PriceMode.OWNED for piece in computed.prices):
        return None
    if not computed.known:
        return 0
    end = computed.content.start_us + computed.content.owned_us
    total = 0
    ends = [piece.from_us for piece in computed.prices[1:]] + [end]
    for piece, until in zip(computed.prices, ends, strict=True):
        if piece.from_us < min(until, end):
            total += _integral(piece.nusd_per_hour, min(until, end)) - _integral(piece.nusd_per_hour, piece.from_us)
    return total


def _integral(nusd_per_hour: int, at_us: int) -> int:
    """round(price x time), half up, by whole-number division alone."""
    whole, rest = divmod(nusd_per_hour * at_us, US_PER_HOUR)
    return whole + (2 * rest >= US_PER_HOUR)


def _raw_gpus(store: LedgerStore, books: Books) -> set[GpuId]:
    """Every GPU that some raw event speaks of, of whatever kind."""
    gpus = {card for uuid in books.shared.hosts for card in books.shared.cards(uuid)}
    for kind, touches in touching_kinds():
        for name in store.raw.gpus_of(kind, touches):
            meanings = books.placements.meanings(name) if touches.names else ()
            gpus.update(meanings)
            # Not for any other spelling: two GPUs may fit it.
            if not touches.names or not meanings or books.placements.resolve(name, 0) == name:
                gpus.add(name)
    cards = {books.card_of(gpu) for gpu in gpus}
    return gpus | {card for card in cards if card}


def _evidence_minutes(store: LedgerStore, books: Books, gpu: GpuId) -> list[int]:
    minutes: set[int] = set()
    for member in books.family(gpu):
        for kind, touches in touching_kinds():
            for name in [member, *books.placements.labels(member)] if touches.names else [member]:
                for since_us, until_us in store.raw.spans_of(kind, touches, name):
                    if not touches.names or books.placements.resolve(name, until_us) == member:
                        minutes.update(touched_minutes(since_us, until_us))
    return sorted(minutes)


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 160 else shown[:157] + "..."


def describe(report: AuditReport) -> list[str]:
    """The report as lines for a person."""
    usd = 1e9
    lines = [
        f"{report.cells:,} cells of {report.gpus:,} GPUs"
        + (f", {report.cells_pending:,} still to be computed" if report.cells_pending else "")
        + (f", {report.cells_not_over:,} of minutes not over" if report.cells_not_over else "")
        + (f", {report.cells_kept:,} older than their raw events are kept" if report.cells_kept else "")
        + (f", {report.cells_of_other_rules:,} computed by other rules" if report.cells_of_other_rules else "")
        + (f", {report.cells_unmarked:,} still to be marked" if report.cells_unmarked else "")
        + (f", {report.cells_changing:,} changing while they were audited" if report.cells_changing else ""),
        f"C = {report.cost_nusd:,} nano-USD ({report.cost_nusd / usd:,.6f} USD)",
        *(f"    {name.value:<15}{report.classes_nusd[name.value]:>24,}" for name in MoneyClass),
        f"    {'sum':<15}{sum(report.classes_nusd.values()):>24,}",
    ]
    if report.fresh:
        lines.append(f"computed again from raw events: {report.compared:,} cells of minutes that are over")
        lines.append(f"    {'C':<15}{report.compared_nusd:>24,}")
        lines.append(f"    {'price x time':<15}{report.price_time_nusd:>24,}")
    if report.raw_counts is not None:
        lines += [
            f"{name}: {report.raw_counts[name]:,} in raw events, {report.ledger_counts[name]:,} in the ledger"
            for name in COUNTS
        ]
    if report.sums_compared:
        behind = f", {report.sums_behind:,} of them behind" if report.sums_behind else ""
        lines.append(f"added up again from their parts: {report.sums_compared:,} sums of hours and days{behind}")
    if report.unpriced:
        lines.append(f"{report.unpriced:,} cells have no price and cost 0: add a `default` row with `gpu-tokens prices add`")
    if report.default_price_nusd:
        lines.append(
            f"{report.default_price_nusd / usd:,.6f} USD are at the default price: no price row or sample names these GPUs"
        )
    if report.unknown_gpu_requests or report.unknown_gpu_tokens:
        lines.append(
            f"{report.unknown_gpu_requests:,} requests with {report.unknown_gpu_tokens:,} tokens ran on GPUs that nobody "
            "sampled or declared, so their money is unknown: `gpu-tokens gpus list` names them"
        )
    if report.shared_uuids:
        lines.append(
            f"{report.shared_uuids:,} UUIDs are of several cards, on several hosts at once: each is paid, under host/UUID"
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
