"""Closing in memory: cells as dictionaries, marked, taken, computed and written as the database
would have it, without one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any, cast

from tests.unit.ledger.loaded import Document, Stored

from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    GpuId,
    GpuMinute,
    cell_id,
    shared_span,
    touched_minutes,
)
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.computed import ComputedCell, ComputedRun
from gpu_token_analytics.ledger.diff import NOTHING_AROUND, Around, Diff, StoredMinute
from gpu_token_analytics.ledger.document import CellDocument, CellFields, opened
from gpu_token_analytics.ledger.names_moved import NameMoved, families
from gpu_token_analytics.ledger.placements import Placement
from gpu_token_analytics.wire.times import from_us


@dataclass
class Cell:
    """A ledger cell: what closing sees of it."""

    gen: int = 1
    done_gen: int = 0
    revision: int = 0
    lease: int | None = None
    is_due: bool = True
    fields: CellFields | None = None  # as stored; None: never computed
    content: Any = None


@dataclass
class Job:
    """A run that one closer has taken and computed, and not written yet."""

    lease: int
    run: ComputedRun
    gens: dict[int, int]
    revisions: dict[int, int]
    diff: Diff


class ModelLedger:
    """The ledger of some raw events that come one after another. Any number of closers, interleaved
    by whoever calls."""

    def __init__(self, stored: Stored, now_us: int) -> None:
        self.stored, self.now_us = stored, now_us
        self.stored.usages, self.stored.samples, self.stored.placements = [], [], []
        self.cells: dict[GpuMinute, Cell] = {}
        self._pending_gpus: set[GpuId] = set()
        self._pending_names: set[str] = set()
        self._leases = count()

    # -- ingest ------------------------------------------------------------------------------------

    def ingest(self, event: Document) -> None:
        """Store an event, learn from it, and mark the cells that it touches."""
        gap = self.stored.params.gap_us
        if "start_us" in event:
            self.stored.usages = [*self.stored.usages, event]
            placements = self.stored.books().placements
            gpus = {placements.resolve(name, event["ts_us"]) for name in event["gpus"]} | set(
                event["gpus"]
            )
            span = shared_span(event["start_us"], event["ts_us"], gap)
        else:
            before = self.stored.books().inventory.get(event["gpu"])
            self.stored.samples = [*self.stored.samples, event]
            after = self.stored.books().inventory[event["gpu"]]
            if before is None or any(
                before.get(name) != after.get(name)
                for name in ("name", "parent_uuid", "mig_profile", "host")
            ):
                self._pending_gpus.add(event["gpu"])
            self._place(event)
            gpus, span = {event["gpu"]}, (event["ts_us"] - gap, event["ts_us"] + gap)
        for gpu in gpus:
            for minute in touched_minutes(*span):
                self._touch(self.cells.setdefault((gpu, minute), Cell()))

    def _place(self, sample: Document) -> None:
        label, ts_us = f"{sample['host']}/{sample['gpu_index']}", sample["ts_us"]
        if "parent_uuid" in sample:
            return
        times = {
            (place.label, place.gpu): (place.first_us, place.last_us)
            for place in self.stored.placements
        }
        first, last = times.get((label, sample["gpu"]), (ts_us, ts_us))
        times[label, sample["gpu"]] = (min(first, ts_us), max(last, ts_us))
        self.stored.placements = [Placement(*key, *span) for key, span in times.items()]
        self._pending_names.add(label)

    @staticmethod
    def _touch(cell: Cell) -> None:
        cell.gen += 1
        cell.is_due = True

    # -- closing -----------------------------------------------------------------------------------

    @property
    def due(self) -> list[GpuMinute]:
        """Cells that nobody has taken."""
        return sorted(key for key, cell in self.cells.items() if cell.is_due and cell.lease is None)

    def take(self, cells: Iterable[GpuMinute]) -> list[Job]:
        """Take due cells and compute them from what is stored now: one run of each GPU."""
        lease, jobs = next(self._leases), []
        chosen = sorted(cells)
        for key in chosen:
            self.cells[key].lease = lease
        for gpu, keys in groupby(chosen, lambda key: key[0]):
            minutes = [minute for _, minute in keys]
            marks = {minute: self.cells[gpu, minute] for minute in minutes}
            gens = {minute: cell.gen for minute, cell in marks.items()}
            revisions = {minute: cell.revision for minute, cell in marks.items()}
            stored = [
                StoredMinute.of(document_of(gpu, minute, cell.fields, cell.revision))
                for minute, cell in marks.items()
            ]
            (run,) = compute_runs(
                [self.stored.timeline(gpu, minutes, self.now_us)], self.stored.params
            )
            changed = {
                cell.content.start_us
                for cell in run.cells
                if content_of(cell) != marks[cell.content.start_us].content
            }
            jobs.append(Job(lease, run, gens, revisions, Diff(run, stored, changed)))
        return jobs

    def mark(self, job: Job) -> None:
        """Mark what its diff says, by what lies around now."""
        around = self._around(job.diff) if job.diff.tells else NOTHING_AROUND
        for change in list(job.diff.changes(around, self.stored.books(), self.stored.params)):
            self._apply(change, job.lease)

    def write(self, job: Job) -> None:
        """Write its cells where nobody was faster."""
        for computed in job.run.cells:
            minute = computed.content.start_us
            cell = self.cells[job.run.gpu, minute]
            if cell.revision != job.revisions[minute] or cell.done_gen > job.gens[minute]:
                continue
            if content_of(computed) != cell.content:
                cell.content, cell.fields = content_of(computed), computed.fields()
                cell.revision += 1
            cell.done_gen = job.gens[minute]
            cell.is_due = cell.gen != cell.done_gen
            cell.lease = None

    def let_go(self, job: Job) -> None:
        """Its closer died before it wrote: the lease ends."""
        for minute in job.gens:
            cell = self.cells[job.run.gpu, minute]
            if cell.lease == job.lease:
                cell.lease = None

    def spread(self) -> None:
        """What changed in the books is marked."""
        books = self.stored.books()
        for gpu in sorted(self._pending_gpus):
            members = families({gpu, books.inventory[gpu].get("parent_uuid", gpu)}, books)
            for (name, _), cell in self.cells.items():
                if name in members and (cell.revision or cell.lease is not None):
                    self._touch(cell)
        for name in sorted(self._pending_names):
            usages = [usage for usage in self.stored.usages if name in usage["gpus"]]
            moved = NameMoved.of(name, usages, books, self.stored.params)
            before, since = self._evidence(moved.asks())
            for change in list(moved.changes(before, since, books, self.stored.params)):
                self._apply(change, None)
        self._pending_gpus.clear()
        self._pending_names.clear()

    def close(self) -> None:
        """Until nothing is due."""
        self.spread()
        while due := self.due:
            for job in self.take(due):
                self.mark(job)
                self.write(job)

    # -- what the database does --------------------------------------------------------------------

    def _apply(self, change: Change, own_lease: int | None) -> None:
        if change.opens and change.start_us is not None and change.end_us is not None:
            for minute in range(change.start_us, change.end_us, US_PER_MINUTE):
                self.cells.setdefault((change.gpu, minute), Cell())
        for (gpu, minute), cell in self.cells.items():
            inside = (change.start_us is None or minute >= change.start_us) and (
                change.end_us is None or minute < change.end_us
            )
            if (
                gpu == change.gpu
                and inside
                and minute not in change.computed_us
                and self._is_concerned(change, cell, own_lease)
            ):
                self._touch(cell)

    @staticmethod
    def _is_concerned(change: Change, cell: Cell, own_lease: int | None) -> bool:
        if change.kind is ChangeKind.ALL or (cell.lease is not None and cell.lease != own_lease):
            return True
        fields: dict[str, Any] = {**(cell.fields or {})}
        match change.kind:
            case ChangeKind.SILENT:
                return bool(fields.get("silent"))
            case ChangeKind.NOT_OWNED:
                return bool(fields.get("silent")) and fields["owned_us"] == 0
            case ChangeKind.MEMORY:
                return bool(fields.get("memory_unknown_us"))
        assert change.carried is not None
        names = ("host", "gpu_name", "own_price")[: 3 if change.kind is ChangeKind.CARRIED else 2]
        differs = any(
            fields.get(name) != value for name, value in zip(names, change.carried, strict=False)
        )
        sampled = change.kind is ChangeKind.CARRIED and bool(fields.get("samples"))
        return not cell.is_due and (differs or sampled)

    def _evidence(
        self, asked: Iterable[GpuMinute]
    ) -> tuple[dict[GpuMinute, int], dict[GpuMinute, int]]:
        books, before, since = self.stored.books(), {}, {}
        for gpu, minute in asked:
            heard = self.stored.heard(books, gpu)
            index = bisect_left(heard, minute)
            if index:
                before[gpu, minute] = heard[index - 1]
            if index < len(heard):
                since[gpu, minute] = heard[index]
        return before, since

    def _around(self, diff: Diff) -> Around:
        gpu, last = diff.gpu, diff.run.last_us
        later = [
            cell for (name, minute), cell in self.cells.items() if name == gpu and minute > last
        ]
        asked = {
            (gpu, minute)
            for minute in (diff.untold_before, diff.untold_after)
            if minute is not None
        }
        before, _ = self._evidence(asked)
        _, since = self._evidence((name, minute + US_PER_MINUTE) for name, minute in asked)
        sampled = [
            sample["ts_us"]
            for sample in self.stored.samples
            if sample["gpu"] == gpu and sample["ts_us"] > last + US_PER_MINUTE - 1
        ]
        return Around(
            is_newest=all(cell.revision == 0 and cell.lease is None for cell in later),
            before_us=None if diff.untold_before is None else before.get((gpu, diff.untold_before)),
            after_us=None
            if diff.untold_after is None
            else since.get((gpu, diff.untold_after + US_PER_MINUTE)),
            sampled_us=min(sampled) // US_PER_MINUTE * US_PER_MINUTE if sampled else None,
        )


def document_of(
    gpu: GpuId, minute_us: int, fields: CellFields | None, revision: int = 1
) -> CellDocument:
    """The document of a cell of which these are stored; None: it was opened, and never computed."""
    cell = {
        **opened(gpu, minute_us, from_us(minute_us)),
        "gen": 1,
        "revision": revision,
        **(fields or {}),
    }
    return cast("CellDocument", {"_id": cell_id(gpu, minute_us), **cell})


def content_of(cell: ComputedCell) -> Any:
    """What makes a cell another one."""
    return cell.fields(), cell.last_end_us


def expected_cells(stored: Stored, now_us: int, minutes_us: Sequence[int]) -> dict[GpuMinute, Any]:
    """All cells of these minutes, computed from all events at once."""
    runs = compute_runs(
        [stored.timeline(gpu, minutes_us, now_us) for gpu in stored.gpus()], stored.params
    )
    return {(run.gpu, cell.content.start_us): cell.fields() for run in runs for cell in run.cells}
