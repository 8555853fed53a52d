"""The audit: does every nano-dollar have exactly one class, and is the ledger what the raw events
say?

    identity   in every stored cell: classes sum to C, class times to the owned time, lines to
               `attributed`
    price      C again from price x time alone, in Python integers, without the ledger's own
               arithmetic
    fresh      every cell computed again from raw events and compared, cells missing or too many
               included
    sums       every hourly and daily sum, added up again from its parts (rollups/audit.py), also
               without `fresh`
    aside      what MongoDB refused for good and is not in the ledger as it should be
    totals     requests and tokens of the raw events against the sums of the ledger's lines, exactly

Of cells that are due, of minutes that are not over, of cells that are older than raw events are
kept, and of cells that were computed by other rules (before an upgrade, or with other settings of
the ledger), only the identity is judged: what they say is, or may be, not what the raw events say
now and here. Their requests and tokens are in the totals all the same.

A ledger that is audited while it is written has differences that are none: an event is stored
before its cells are marked, a price reaches its cells within seconds, a silence is opened after it.
So a cell that differs is looked at a second time, after such changes had time to arrive. It is
wrong if it was neither touched nor computed in between; else it is told as changing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.cells.lines import lines_digest
from gpu_token_analytics.cells.store import Version, version_of
from gpu_token_analytics.closing.audit_report import ENGINE_COUNTS, AuditReport
from gpu_token_analytics.closing.load import load_timelines
from gpu_token_analytics.closing.runs import runs_of
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import (
    COUNTS,
    US_PER_HOUR,
    US_PER_MINUTE,
    GpuId,
    MoneyClass,
    cell_id,
    touched_minutes,
)
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.computed import ComputedCell
from gpu_token_analytics.ledger.document import CellDocument, is_computed
from gpu_token_analytics.ledger.ownership import owned_silent_minutes
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import NO_ROW, PriceMode
from gpu_token_analytics.rollups.audit import audit_sums
from gpu_token_analytics.rollups.spans import HOUR, floor
from gpu_token_analytics.wire.events import touching_kinds
from gpu_token_analytics.wire.times import to_us

# The minutes a live GPU says nothing in are opened by housekeeping, too: younger ones may be
# missing.
_SILENCE_OPENED_US = US_PER_MINUTE
_MANY_LINES = 256
_LOOKED_AT = 10_000  # cells in one command


@dataclass(frozen=True)
class _Doubt:
    """A cell that is not what raw events say: wrong, or changing."""

    cell: str
    version: Version | None  # None: there is no such cell
    problem: str
    minute_us: int
    stored_nusd: int = 0
    price_time_nusd: int = 0


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
    """Audit the cells with start <= minute < end (all without bounds). on_gpu(done, total) reports
    progress.

    fresh=False leaves out the computation from raw events and the totals. raw_complete_for: cells
    that opened longer ago are not computed again (Settings.raw_complete_for); None: all are.
    before_second_look(cells) is called when so many cells differ (0: totals do), to wait
    SECOND_LOOK_SECONDS in where a processor may be at work; without it they are looked at again at
    once.
    """
    report = AuditReport(start, end, fresh)
    now = store.now()
    horizon = None if raw_complete_for is None else now - raw_complete_for
    books = store.books.read()
    gpus = sorted(
        {*store.cells.cell_gpus(), *_raw_gpus(store, books)} if fresh else store.cells.cell_gpus()
    )
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
        report.found(
            "total", f"classes sum to {sum(report.classes_nusd.values())}, C to {report.cost_nusd}"
        )
    report.cells_unmarked = store.pending_marks.count() if fresh else 0
    unsettled = (
        report.cells_unmarked
        or report.cells_pending
        or report.cells_not_over
        or report.cells_kept
        or report.cells_changing
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
    stored: dict[int, CellDocument] = {}
    digests: dict[int, bytes] = {}  # of many lines: all cells of a GPU are in memory
    kept: set[int] = set()
    now_us = to_us(now)
    for cell in store.cells.cells_of(gpu, report.start, report.end):
        minute = to_us(cell["minute"])
        stored[minute] = cell
        gpu_hours.add((gpu, floor(cell["minute"], HOUR)))
        report.cells += 1
        over = minute + US_PER_MINUTE <= now_us
        report.cells_pending += _is_due(cell, over)
        if not is_computed(cell):
            continue
        _check_identity(cell, report)
        if len(cell["lines"]) > _MANY_LINES:
            digests[minute], cell["lines"] = lines_digest(cell["lines"]), []
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
    doubts = (
        _compare(
            computed, stored.get(minute := computed.content.start_us), digests.get(minute), report
        )
        for computed in again
    )
    return [doubt for doubt in doubts if doubt is not None]


def _audit_sums(
    store: LedgerStore,
    gpu_hours: set[tuple[GpuId, datetime]],
    report: AuditReport,
    before_second_look: Callable[[int], object],
) -> None:
    def covered(start: datetime, end: datetime) -> bool:
        return (report.start is None or report.start <= start) and (
            report.end is None or end <= report.end
        )

    audited = audit_sums(store.rollups, gpu_hours, covered, before_second_look)
    report.sums_compared, report.sums_behind = audited.compared, audited.behind
    for name in audited.different:
        report.found(
            name, "the sum is not what its parts sum to, and none of them waits to be rolled up"
        )


def _look_again(store: LedgerStore, doubts: Sequence[_Doubt], report: AuditReport) -> None:
    for at in range(0, len(doubts), _LOOKED_AT):
        asked = doubts[at : at + _LOOKED_AT]
        # first: marked since, it has a new version
        unmarked = store.pending_marks.waiting(doubt.minute_us for doubt in asked)
        versions = store.cells.versions(doubt.cell for doubt in asked)
        for doubt in asked:
            if doubt.minute_us in unmarked or versions.get(doubt.cell) != doubt.version:
                report.cells_changing += 1
                continue
            report.found(doubt.cell, doubt.problem)
            if doubt.version is not None:
                report.compare(doubt.stored_nusd, doubt.price_time_nusd)


def _compare_totals(
    store: LedgerStore,
    started: datetime,
    report: AuditReport,
    before_second_look: Callable[[int], object],
) -> None:
    raw = Counter(store.raw.usage_totals())
    raw.update(dict(zip(ENGINE_COUNTS, store.raw.counter_totals(), strict=True)))
    different = [
        name for name in (*COUNTS, *ENGINE_COUNTS) if raw[name] != report.ledger_counts[name]
    ]
    if different and not report.findings_count:
        before_second_look(0)
        if store.cells.is_changing(started):
            return
    report.raw_counts = raw
    for name in different:
        report.found(
            "total",
            f"{name}: {raw[name]} in raw events, {report.ledger_counts[name]} in the ledger",
        )


def _is_due(cell: CellDocument, over: bool) -> bool:
    """Whether it is still to be computed: it was touched, or its minute is over, and was not when
    it was computed."""
    return cell["done_gen"] < cell["gen"] or (over and "due_at" in cell)


def _check_identity(cell: CellDocument, report: AuditReport) -> None:
    classes, cost = cell["classes"], cell["cost_nusd"]
    report.cost_nusd += cost
    report.classes_nusd.update(classes)
    if sum(classes.values()) != cost:
        report.found(cell["_id"], f"classes sum to {sum(classes.values())}, C is {cost}")
    if min(classes.values()) < 0:
        report.found(cell["_id"], f"a class is negative: {classes}")
    if sum(cell["class_us"].values()) != cell["owned_us"]:
        report.found(
            cell["_id"],
            f"class times sum to {sum(cell['class_us'].values())} us, owned are {cell['owned_us']}",
        )
    lines = sum(line["cost_nusd"] or 0 for line in cell["lines"])
    if lines != classes[MoneyClass.ATTRIBUTED]:
        report.found(
            cell["_id"], f"lines sum to {lines}, attributed is {classes[MoneyClass.ATTRIBUTED]}"
        )
    unmetered = sum(
        line["counted"]["unmetered_nusd"] or 0 for line in cell["lines"] if "counted" in line
    )
    if unmetered not in (0, classes[MoneyClass.UNMETERED_WORK]):
        said = classes[MoneyClass.UNMETERED_WORK]
        report.found(
            cell["_id"],
            (
                f"lines of engines sum to {unmetered}, unmetered_work is {said}: it is all or "
                "nothing of it"
            ),
        )
    report.unpriced += NO_ROW in cell.get("price_rows", ()) and cell["owned_us"] > 0
    report.default_price_nusd += cost if cell.get("default_price") else 0
    for line in cell["lines"]:
        if "counted" in line:
            report.see_counted(line)
            continue
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
    evidence = _minutes_told(store, books, gpu, evidence=True)
    owned = {*evidence, *_minutes_told(store, books, gpu, evidence=False)}
    if books.card_of(gpu) is None and books.may_own(gpu):
        until_us = now_us - _SILENCE_OPENED_US
        live = bool(books.row(gpu).get("live"))
        owned.update(owned_silent_minutes(evidence, until_us, params.silent_owned_us, live=live))
    low = None if report.start is None else to_us(report.start)
    high = None if report.end is None else to_us(report.end)
    minutes = [
        minute
        for minute in sorted((owned | stored) - kept)
        if (low is None or minute >= low)
        and (high is None or minute < high)
        and minute + US_PER_MINUTE <= now_us
    ]
    for run in runs_of(minutes):
        for timelines in load_timelines(store.raw, books, params, {gpu: run}, now_us):
            for computed in compute_runs(timelines, params):
                yield from computed.cells


def _compare(
    computed: ComputedCell, stored: CellDocument | None, lines: bytes | None, report: AuditReport
) -> _Doubt | None:
    content = computed.content
    name = cell_id(computed.gpu, content.start_us)
    expected = _price_time(computed)
    if expected is not None and expected != content.cost_nusd:
        report.found(name, f"price x time is {expected}, computed C is {content.cost_nusd}")
    if stored is None:
        missing = f"the cell is missing: {content.cost_nusd} nano-USD are not in the ledger"
        return (
            _Doubt(name, None, missing, content.start_us)
            if content.owned_us or content.lines
            else None
        )
    if _is_due(stored, over=True):  # no other minute is computed again
        return None
    price_time = content.cost_nusd if expected is None else expected
    said: dict[str, Any] = {**stored}
    fields: dict[str, Any] = {**computed.fields()}
    if lines is not None:
        said["lines"], fields["lines"] = lines, lines_digest(content.lines)
    different = sorted(key for key, value in fields.items() if said.get(key) != value)
    if not different:
        report.compare(stored["cost_nusd"], price_time)
        return None
    shown = ", ".join(
        f"{key}: stored {_short(said.get(key))}, fresh {_short(fields[key])}"
        for key in different[:3]
    )
    problem = f"differs from a fresh computation in {shown}"
    return _Doubt(
        name, version_of(stored), problem, content.start_us, stored["cost_nusd"], price_time
    )


def _price_time(computed: ComputedCell) -> int | None:
    """Price x owned time in Python integers; None where C is not that alone (MIG parts, owned
    mode's energy)."""
    if computed.share is not None or any(
        piece.mode is PriceMode.OWNED for piece in computed.prices
    ):
        return None
    if not computed.known:
        return 0
    end = computed.content.start_us + computed.content.owned_us
    total = 0
    ends = [piece.from_us for piece in computed.prices[1:]] + [end]
    for piece, until in zip(computed.prices, ends, strict=True):
        if piece.from_us < min(until, end):
            total += _integral(piece.nusd_per_hour, min(until, end)) - _integral(
                piece.nusd_per_hour, piece.from_us
            )
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


def _minutes_told(store: LedgerStore, books: Books, gpu: GpuId, *, evidence: bool) -> list[int]:
    """The minutes that events speak of a GPU in: evidence, by which its time is owned, or such that
    only have lines."""
    minutes: set[int] = set()
    for member in books.family(gpu) if evidence else [gpu]:
        for kind, touches in touching_kinds():
            if touches.evidence is not evidence:
                continue
            for name in [member, *books.placements.labels(member)] if touches.names else [member]:
                for since_us, until_us in store.raw.spans_of(kind, touches, name):
                    if not touches.names or books.placements.resolve(name, until_us) == member:
                        minutes.update(touched_minutes(since_us, until_us))
    return sorted(minutes)


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 160 else shown[:157] + "..."
