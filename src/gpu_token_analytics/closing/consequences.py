"""What one change implies for other cells: whatever a cell depends on outside of its own minute marks it here when it changes.

Else the ledger would depend on the order of events (docs/decisions/0012). A cell that somebody else is computing is marked,
too: he may have read before the change. Everything is repeatable, and done before what shows the change is written or cleared:
after a crash in between it is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from gpu_token_analytics.closing.neighbours import evidence_before, evidence_from
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import (
    US_PER_HOUR,
    US_PER_MINUTE,
    CellId,
    GpuId,
    cell_id,
    minute_of,
    shared_span,
    touched_minutes,
)
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.computed import Carried, ComputedCell, ComputedRun
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import Scope, canonical_key
from gpu_token_analytics.ledger.shared import SharedUuids
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.wire.times import from_us, to_us

log = logging.getLogger(__name__)

LOOK_AGAIN_US = US_PER_HOUR  # another process may have died between closing a cell and opening the silence after it


@dataclass(frozen=True)
class Closed:
    """One run as it was computed, before it is written."""

    run: ComputedRun
    due: Sequence[Document]  # the marks of its cells, as they were taken
    changed: Set[str]  # ids of the cells whose content is a new one

    @property
    def gpu(self) -> GpuId:
        """Whose cells they are."""
        return self.run.gpu

    @property
    def own_lease(self) -> str:
        """What its cells were taken under."""
        lease: str = self.due[0]["lease"]
        return lease

    @property
    def is_whole(self) -> bool:
        """Whether no minute of its run was left out."""
        return self.run.last_us - self.run.start_us == (len(self.run.cells) - 1) * US_PER_MINUTE

    @cached_property
    def heard(self) -> set[int]:
        """Its minutes with evidence."""
        return {cell.content.start_us for cell in self.run.cells if not cell.silent}

    @cached_property
    def changed_heard(self) -> list[int]:
        """Those with a new content, ascending."""
        return sorted({to_us(mark["minute"]) for mark in self.due if mark["_id"] in self.changed} & self.heard)

    @cached_property
    def _fresh(self) -> set[int]:
        """Minutes that were never stored as silent: computed here, from the same events, they need no mark."""
        return {to_us(mark["minute"]) for mark in self.due if not mark.get("silent")}

    def all_fresh(self, start_us: int, end_us: int) -> bool:
        """Whether all minutes of [start, end) are such."""
        return self._fresh.issuperset(range(start_us, end_us, US_PER_MINUTE))

    @cached_property
    def untold_before(self) -> int | None:
        """The one of `changed_heard` whose evidence before it its own events do not tell of."""
        return next((minute for minute in self.changed_heard if self.run.heard_before(minute) is None), None)

    @cached_property
    def untold_after(self) -> int | None:
        """The one whose evidence after it they do not tell of."""
        return next((minute for minute in self.changed_heard if self.run.heard_after(minute) is None), None)


@dataclass(frozen=True)
class _Around:
    """What lies around the runs of several GPUs."""

    newest: Set[GpuId]  # nothing was computed, or is being, of any minute after their run
    oldest: Set[GpuId]  # there is no cell of any minute before their run
    before: Mapping[GpuId, int]  # the minute with evidence before `untold_before`
    after: Mapping[GpuId, int]  # and after `untold_after`


@dataclass(slots=True)
class _Silence:
    """How far the silence is opened that a GPU is in."""

    opened_until_us: int
    owned_until_us: int  # if nothing is heard until then
    looked_at_us: int


class Consequences:
    """Marks and opens cells that follow from others, from the books, and from silence."""

    def __init__(self, store: LedgerStore, params: LedgerParams, raw_complete_for: timedelta) -> None:
        self._store, self._params, self._raw_complete_for = store, params, raw_complete_for
        self._silences: dict[GpuId, _Silence] = {}

    def follow_up(self, closed: Sequence[Closed], books: Books) -> None:
        """What these cells imply, before they are written: one run each of several GPUs."""
        for each in closed:
            self._split_shared(each, books)
        # Of a GPU that nobody told of nothing follows: it owns no silence, and has no samples.
        heard = [each for each in closed if each.heard and any(cell.known for cell in each.run.cells)]
        if not heard:
            for each in closed:
                self._keep_models(each, None)
            return
        for each in heard:
            self._silences.pop(each.gpu, None)
        around = self._look_around(heard, books)
        for each in closed:
            self._keep_models(each, around)
        for each in heard:
            if self._params.silent_owned_us:
                self._own_silence_around(each, around)
            self._mark_card(each, books)
            self._carry(each, books, around)

    def _split_shared(self, closed: Closed, books: Books) -> None:
        """What touches a shared UUID touches its cards: whoever stored it need not know that it is one."""
        gpu = closed.gpu
        if closed.run.on_two_hosts and gpu not in books.shared and not gpu.isdecimal():  # `host/12` is a label
            self._store.books.note_shared(gpu)
        minutes = [cell.content.start_us for cell in closed.run.cells]
        for card in books.shared.cards(gpu):
            self._store.cells.mark_missing(card, minutes)
            self._store.cells.mark_existing([cell_id(card, minute) for minute in minutes])

    def _look_around(self, closed: Sequence[Closed], books: Books) -> _Around:
        """What lies around the runs, with a few commands for all of them. Read after their events: what is opened or taken
        from now on is read later, too."""
        later = self._store.cells.minutes_after({each.gpu: each.run.last_us for each in closed})
        following = {(gpu, minute) for gpu, minutes in later.items() for minute in minutes}
        first = {each.gpu: each.run.start_us for each in closed if any(cell.oldest for cell in each.run.cells)}
        earlier = self._store.cells.with_cells_before(first)
        before: dict[GpuId, int] = {}
        after: dict[GpuId, int] = {}
        if self._params.silent_owned_us:
            before = {each.gpu: each.untold_before - US_PER_MINUTE for each in closed if each.untold_before is not None}
            after = {each.gpu: each.untold_after + US_PER_MINUTE for each in closed if each.untold_after is not None}
        states = self._store.cells.states(following | before.items() | after.items())
        # A later cell that waits, never computed and nobody's, will be computed from all that these were.
        waiting = {cell for cell, state in states.items() if state["revision"] == 0 and "lease" not in state}
        newest = {gpu for gpu, minutes in later.items() if all((gpu, minute) in waiting for minute in minutes)}
        heard = {cell for cell, state in states.items() if state.get("silent") is False and "due_at" not in state}
        asked_before = {gpu: minute + US_PER_MINUTE for gpu, minute in before.items() - heard}
        asked_after = {gpu: minute for gpu, minute in after.items() - heard if gpu not in newest}
        return _Around(
            newest,
            first.keys() - earlier,
            dict(before.items() & heard) | evidence_before(self._store.raw, books, asked_before),
            dict(after.items() & heard) | evidence_from(self._store.raw, books, asked_after),
        )

    def _keep_models(self, closed: Closed, around: _Around | None) -> None:
        """Where the memory of a GPU is not known, its requests say for a while that a model is loaded: minutes after those
        whose requests changed are computed again, if that is what their class is by."""
        run, here = closed.run, [cell.content.start_us for cell in closed.run.cells]
        served = [
            cell.content.start_us
            for cell, mark in zip(run.cells, closed.due, strict=True)
            if mark["_id"] in closed.changed and (cell.content.requests_active or mark.get("requests_active"))
        ]
        if not served or (around is not None and closed.gpu in around.newest and closed.is_whole):
            return
        start, end = served[0] + US_PER_MINUTE, served[-1] + US_PER_MINUTE + self._params.model_kept_us
        computed = [minute for minute in here if start <= minute < end]
        self._store.cells.mark_memory_unknown(closed.gpu, start, end, computed, closed.own_lease)

    def _own_silence_around(self, closed: Closed, around: _Around) -> None:
        """Silence between the minutes whose content is a new one and the evidence next to them: not only where evidence is
        new, other evidence in the same minute may have other neighbours."""
        gpu, run = closed.gpu, closed.run
        for minute in closed.changed_heard:
            before = around.before.get(gpu) if minute == closed.untold_before else run.heard_before(minute)
            if before is not None:
                self._own_silence(gpu, before + US_PER_MINUTE, minute, closed)
            after = around.after.get(gpu) if minute == closed.untold_after else run.heard_after(minute)
            if after is not None:
                self._own_silence(gpu, minute + US_PER_MINUTE, after, closed)
            elif not (gpu in around.newest and closed.all_fresh(minute + US_PER_MINUTE, run.last_us + US_PER_MINUTE)):
                self._look_again_after(gpu, minute, closed.own_lease)

    def _own_silence_before(self, gpu: GpuId, minute_us: int, books: Books) -> None:
        """Open the silent minutes since the evidence before this minute; those computed as not owned are looked at again."""
        before = evidence_before(self._store.raw, books, {gpu: minute_us}).get(gpu)
        if before is not None:
            self._own_silence(gpu, before + US_PER_MINUTE, minute_us)

    def _own_silence_after(self, gpu: GpuId, minute_us: int, books: Books) -> None:
        """The same up to the next minute with evidence. Without one only minutes that have a cell: silence may still end."""
        start = minute_us + US_PER_MINUTE
        following = evidence_from(self._store.raw, books, {gpu: start}).get(gpu)
        if following is not None:
            self._own_silence(gpu, start, following)
        else:
            self._look_again_after(gpu, minute_us)

    def _look_again_after(self, gpu: GpuId, minute_us: int, own_lease: str | None = None) -> None:
        start = minute_us + US_PER_MINUTE
        self._store.cells.mark_not_owned(gpu, start, start + self._params.silent_owned_us, own_lease)

    def _own_silence(self, gpu: GpuId, start_us: int, end_us: int, closed: Closed | None = None) -> None:
        end_us = min(end_us, start_us + self._params.silent_owned_us)
        if closed is not None and closed.all_fresh(start_us, end_us):
            return
        self._store.cells.mark_missing(gpu, range(start_us, end_us, US_PER_MINUTE))
        self._store.cells.mark_not_owned(gpu, start_us, end_us, None if closed is None else closed.own_lease)

    def _mark_card(self, closed: Closed, books: Books) -> None:
        """Card and slices depend on each other: a slice seen for the first time in a minute, or known to be this card's for the
        first time, changes what its card keeps and maybe its siblings' parts; a card's samples price its slices."""
        gpu, card = closed.gpu, closed.run.cells[0].card
        news = (mark for mark in closed.due if mark.get("silent", True) or mark.get("card") != card)
        minutes = sorted({to_us(mark["minute"]) for mark in news} & closed.heard)
        if not minutes or (card is None and gpu not in books.slices_of):
            return
        if card is not None:
            self._store.cells.mark_missing(card, minutes)
        family = books.family(card or gpu)
        self._store.cells.mark_existing([cell_id(other, minute) for other in family if other != gpu for minute in minutes])

    def _carry(self, closed: Closed, books: Books, around: _Around) -> None:
        """What a sample says (host, name, price) holds up to the next one; the first one's host and name hold before it,
        too. Cells computed before that was known are marked, up to the next minute with a sample, which it opens."""
        gpu, computed = closed.gpu, closed.run.cells
        sampled = [(cell, mark) for cell, mark in zip(computed, closed.due, strict=True) if cell.content.samples]
        news = [cell for cell, mark in sampled if mark["revision"] == 0 or _tells_more(cell, mark)]
        here = {cell.content.start_us: cell for cell in computed}  # of one reading, so they agree with each other
        if news and not (gpu in around.newest and closed.is_whole):
            self._store.cells.mark_existing(self._stale_after(gpu, news, here, closed.own_lease))
        repriced = [cell.content.start_us for cell, mark in sampled if cell.reprices_slices and mark["_id"] in closed.changed]
        if repriced:
            self._store.cells.mark_range({"gpu": {"$in": books.slices_of[gpu]}}, from_us(repriced[0]), None)
        for cell, mark in sampled:
            if cell.oldest and gpu not in around.oldest and mark.get("samples") != cell.content.samples:
                before = self._store.cells.cells_before(gpu, cell.content.start_us)
                stale = (each for each in before if _stale(each, _carried(each)[:2] == cell.carried[:2], closed.own_lease))
                self._store.cells.mark_existing([each["_id"] for each in stale if to_us(each["minute"]) not in here])

    def _stale_after(
        self, gpu: GpuId, news: Sequence[ComputedCell], here: Mapping[int, ComputedCell], own_lease: str
    ) -> list[str]:
        """Ids of the cells after each of `news`, up to the next one with samples, that do not say what it carries on."""
        waiting = {cell.content.start_us for cell in news}
        carried: Carried | None = None  # what the newest of `news` so far carries on; None: a sample came after it
        stale: list[str] = []
        for each in self._store.cells.cells_from(gpu, news[0].content.start_us):
            minute = to_us(each["minute"])
            if minute in here:
                if minute in waiting:
                    waiting.discard(minute)
                    carried = here[minute].carried
                elif here[minute].content.samples:
                    carried = None
            elif carried is not None:
                if _stale(each, not each.get("samples") and _carried(each) == carried, own_lease):
                    stale.append(each["_id"])
                if each.get("samples"):
                    carried = None
            if carried is None and not waiting:
                break
        return stale

    # -- from the books ----------------------------------------------------------------------------------------------

    def spread_gpus(self) -> None:
        """A GPU is new, or its card, profile, name or being live changed: mark what was computed without knowing. Parts of a
        card depend on all of its slices."""
        for row in self._store.books.pending_gpus():
            books = self._store.books.read()
            named = {row["_id"], row.get("parent_uuid") or row["_id"], books.card_of(row["_id"]) or row["_id"]}
            named |= {card for gpu in named for card in books.shared.cards(gpu)}
            family = {member for gpu in named for member in books.family(gpu)}
            self._store.cells.mark_computed_before(sorted(family), row["changed_at"])
            aliases = set(books.placements.aliases_of(row["_id"]))
            if row["_id"] in books.shared:
                aliases |= self._store.books.names_like(row["_id"])  # which mean none of its cards now
            for alias in sorted(aliases):
                self._spread_name(alias, books)
            self._store.books.clear_pending_gpu(row)

    def spread_stays(self) -> None:
        """A card of a UUID that is shared turned up on another host: requests there meant none until now."""
        for stay in self._store.books.pending_stays():
            self._spread_new_host(stay["gpu"], self._store.books.read())
            self._store.books.clear_pending_stay(stay)

    def _spread_new_host(self, gpu: GpuId, books: Books) -> None:
        if gpu in books.shared:
            self._store.cells.mark_range({"gpu": gpu}, None, None)

    def spread_declarations(self) -> None:
        """An operator declared a GPU, or changed or took back what he had declared: mark its cells."""
        for row in self._store.books.pending_declarations():
            books = self._store.books.read()
            self._store.cells.mark_computed_before([row["gpu"]], row["changed_at"])
            for alias in {row["gpu"], *books.placements.aliases_of(row["gpu"])}:
                if books.placements.is_label(alias):
                    self._spread_name(alias, books)
            self._store.books.clear_pending_gpu(row)

    def spread_placements(self) -> None:
        """A label turned out to be another GPU: mark the cells of the requests that named it, under all its meanings."""
        for placement in self._store.books.pending_placements():
            books, label = self._store.books.read(), placement["label"]
            for name in (label, *books.placements.aliases_of(label)):
                self._spread_name(name, books)
            self._spread_new_host(placement["gpu"], books)
            self._store.books.clear_pending_placement(placement)

    def _spread_name(self, name: str, books: Books) -> None:
        """What a name means changed, or may have: mark the cells of the requests that gave it, under all its meanings."""
        meant: dict[GpuId, set[int]] = {gpu: set() for gpu in (name, *books.placements.meanings(name))}
        around: set[int] = set()
        beside: set[CellId] = set()
        for usage in self._store.raw.labelled_usage(name):
            gpu, times = books.placements.resolve(name, usage["ts_us"]), (usage["start_us"], usage["ts_us"])
            touched = touched_minutes(*times)
            meant[gpu].update(touched)
            around.update(touched_minutes(*shared_span(*times, self._params.gap_us)))
            if len(usage["gpus"]) > 1:  # on how many GPUs it was, and which of them this one is, changes for all
                others = books.placements.resolve_all(usage["gpus"], usage["ts_us"])
                beside.update(cell_id(other, minute) for other in others for minute in touched)
        minutes = sorted(set().union(*meant.values()))
        if minutes:
            for gpu in sorted(meant):
                self._store.cells.mark_missing(gpu, sorted(around))
                self._store.cells.mark_existing([cell_id(gpu, minute) for minute in sorted(around)])
                self._move_silence(gpu, minutes, meant[gpu], books)
        self._store.cells.mark_existing(sorted(beside))

    def _move_silence(self, gpu: GpuId, minutes: Sequence[int], meant: Collection[int], books: Books) -> None:
        """Requests of a label in `minutes` are this GPU's in those of `meant` alone. Silence that the others may have owned is
        looked at again; silence around them all is opened here, since nobody else may have seen both of its ends."""
        heard = self._store.cells.last_heard(gpu, minutes[0])
        start = minutes[0] if heard is None else to_us(heard["minute"])
        self._store.cells.mark_silent(gpu, start, minutes[-1] + self._params.silent_owned_us + 2 * US_PER_MINUTE)
        if not books.may_own(gpu):
            return
        for minute in sorted(meant):
            if minute - US_PER_MINUTE not in meant:
                self._own_silence_before(gpu, minute, books)
            if minute + US_PER_MINUTE not in meant:
                self._own_silence_after(gpu, minute, books)
        lost = set(minutes).difference(meant)
        for minute in sorted(lost):
            if minute + US_PER_MINUTE in lost:
                continue
            following = evidence_from(self._store.raw, books, {gpu: minute + US_PER_MINUTE}).get(gpu)
            if following is not None:
                self._own_silence_before(gpu, following, books)

    def spread_prices(self) -> None:
        """A new price row: mark the cells it can concern, final ones too (they get a correction)."""
        for row in self._store.books.pending_prices():
            shared = self._store.books.read().shared
            start = from_us(minute_of(to_us(row["valid_from"])))
            horizon = self._store.now() - self._raw_complete_for
            where = {**_cells_priced_by(row, shared), "opened_at": {"$gte": horizon}}
            marked = self._store.cells.mark_range(where, start, row.get("valid_to"))
            log.info("price row %s: %d cells are computed again", row["_id"], marked)
            self._store.books.clear_pending_price(row)

    def extend_silence(self) -> None:
        """GPUs that are paid for but say nothing: open their minutes up to the last whole one.

        One that was switched off for good stays in the inventory, so what was opened is remembered: while it is silent, it is
        one command a minute until nobody owns its minutes any more, and then a few an hour.
        """
        now_us = to_us(self._store.now())
        limit = minute_of(now_us)
        books = self._store.books.read()
        for gpu in books.whole_gpus:
            row = books.row(gpu)
            if not row.get("live"):
                continue
            if row["last_us"] >= limit - 1:
                self._silences.pop(gpu, None)
                continue  # sampled in the last whole minute or since: closing that opens what silence lies before it
            silence = self._silences.get(gpu)
            if silence is None or now_us - silence.looked_at_us >= LOOK_AGAIN_US:
                self._open_silence(gpu, now_us)
                continue
            until = min(limit, silence.owned_until_us)
            if silence.opened_until_us < until:
                self._store.cells.mark_missing(gpu, range(silence.opened_until_us, until, US_PER_MINUTE))
                silence.opened_until_us = until

    def _open_silence(self, gpu: GpuId, now_us: int) -> None:
        """The minutes since a GPU was last heard of. Those computed as not owned are looked at again."""
        heard = self._store.cells.last_heard(gpu)
        if heard is None:
            return
        start = to_us(heard["minute"]) + US_PER_MINUTE
        owned_until = start + self._params.silent_owned_us
        minutes = range(start, min(minute_of(now_us), owned_until), US_PER_MINUTE)
        if minutes:
            if self._store.cells.count_cells(gpu, start, minutes.stop) < len(minutes):
                self._store.cells.mark_missing(gpu, minutes)
            self._store.cells.mark_not_owned(gpu, start, minutes.stop)
        self._silences[gpu] = _Silence(max(start, minutes.stop), owned_until, now_us)


def _carried(cell: Document) -> Carried:
    """As ComputedCell.carried, of a stored cell."""
    return cell.get("host"), cell.get("gpu_name"), cell.get("own_price")


def _tells_more(cell: ComputedCell, mark: Document) -> bool:
    """Whether a minute's samples say something else than what was carried into it. The first sample ever does even where it
    agrees: without it the price of the next one held for the whole of that one's minute."""
    return _carried(mark) != cell.carried or (cell.oldest and not mark.get("samples"))


def _stale(cell: Document, agrees: bool, own_lease: str) -> bool:
    """Whether a stored cell needs a mark: it disagrees, or somebody else may be computing it from what was known before.
    One that is due anyway, and nobody's yet, does not."""
    if cell.get("lease", own_lease) != own_lease:
        return True
    return not agrees and "due_at" not in cell


def _cells_priced_by(row: Document, shared: SharedUuids) -> Document:
    """Which cells a price row can concern."""
    key = canonical_key(Scope(row["scope"]), row.get("key"))
    match Scope(row["scope"]):
        case Scope.GPU:
            cards = [key, *shared.cards(key or "")]
            return {"$or": [{"gpu": {"$in": cards}}, {"card": {"$in": cards}}]}
        case Scope.HOST:
            return {"host": key}
        case Scope.NAME:
            return {}  # a slice is priced by its card's name, which its own cells do not carry
        case Scope.DEFAULT:
            return {}
