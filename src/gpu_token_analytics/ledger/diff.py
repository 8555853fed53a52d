"""A timeline as it was computed against what stored cells say of it: the difference is what other
cells depend on.

The stored timeline is the cells: each says what held in its minute - whether anything was heard,
the host, name and price that hold up to the next sample, the card. So it is written with them, and
only where nobody was faster.

Pure: what lies around the run comes in as `Around`; what has to be known of it, a diff says by
itself (docs/decisions/0012).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, minute_of
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.changes import (
    Carried,
    Change,
    ChangeKind,
    all_of,
    silence,
    silence_after,
)
from gpu_token_analytics.ledger.computed import ComputedCell, ComputedRun
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.wire.times import to_us


@dataclass(frozen=True)
class StoredMinute:
    """What a stored cell said of the timeline when it was taken to be computed."""

    minute_us: int
    is_computed: bool  # ever
    silent: bool  # when it was computed; True where it never was
    owned_silence: bool  # it was stored as silent: whether it is owned may have to be told to it
    samples: int | None
    carried: Carried
    card: GpuId | None
    had_requests: bool

    @staticmethod
    def of(cell: CellDocument) -> StoredMinute:
        """From a cell document as it was taken."""
        return StoredMinute(
            to_us(cell["minute"]),
            cell["revision"] > 0,
            cell.get("silent", True),
            bool(cell.get("silent")),
            cell.get("samples"),
            (cell.get("host"), cell.get("gpu_name"), cell.get("own_price")),
            cell.get("card"),
            bool(cell.get("requests_active")),
        )


@dataclass(frozen=True)
class Around:
    """What lies around a run."""

    is_newest: bool = False  # nothing was computed, or is being, of any minute after it
    before_us: int | None = None  # the minute with evidence before Diff.untold_before
    after_us: int | None = None  # and after Diff.untold_after
    sampled_us: int | None = None  # the minute of the first sample after it


NOTHING_AROUND = Around()


@dataclass(frozen=True)
class Diff:
    """One run of a GPU as it was computed, before it is written."""

    run: ComputedRun
    stored: Sequence[StoredMinute]  # of its minutes
    changed_us: Set[int]  # minutes whose content is a new one

    @property
    def gpu(self) -> GpuId:
        """Whose minutes they are."""
        return self.run.gpu

    @cached_property
    def heard(self) -> set[int]:
        """Its minutes with evidence."""
        return {cell.content.start_us for cell in self.run.cells if not cell.silent}

    @cached_property
    def changed_heard(self) -> list[int]:
        """Those with a new content, ascending."""
        return sorted(self.heard & self.changed_us)

    @cached_property
    def tells(self) -> bool:
        """Whether anything but a loaded model follows: a GPU that nobody told of owns no silence,
        and has no samples."""
        return bool(self.heard) and any(cell.known for cell in self.run.cells)

    # -- what has to be known of what lies around --------------------------------------------------

    @cached_property
    def untold_before(self) -> int | None:
        """The one of `changed_heard` whose evidence before it its events do not tell of."""
        return next(
            (minute for minute in self.changed_heard if self.run.heard_before(minute) is None), None
        )

    @cached_property
    def untold_after(self) -> int | None:
        """The one whose evidence after it they do not tell of."""
        return next(
            (minute for minute in self.changed_heard if self.run.heard_after(minute) is None), None
        )

    @cached_property
    def asks_sample(self) -> bool:
        """Whether what its samples say changed, and its events do not show the sample up to which
        that holds."""
        return bool(self._news) and self._next_sampled(self._news[-1].content.start_us) is None

    # -- what changed ------------------------------------------------------------------------------

    def changes(self, around: Around, books: Books, params: LedgerParams) -> Iterator[Change]:
        """The intervals beside its own cells that are others now."""
        for card in books.shared.cards(self.gpu):
            # whoever stored what touches them knew the UUID alone
            yield from all_of(card, self._computed_us, opens=True)
        yield from self._models(around, params)
        if self.tells:
            if params.silent_owned_us:
                yield from self._silences(around, params)
            yield from self._card(books)
            yield from self._carried(around)
            yield from self._prices_of_slices(books)

    def _models(self, around: Around, params: LedgerParams) -> Iterator[Change]:
        """Where the memory of a GPU is not known, its requests say for a while that a model is
        loaded."""
        served = [
            cell.content.start_us
            for cell, before in zip(self.run.cells, self.stored, strict=True)
            if cell.content.start_us in self.changed_us
            and (cell.content.requests_active or before.had_requests)
        ]
        if served and not self._is_last(around):
            start, end = (
                served[0] + US_PER_MINUTE,
                served[-1] + US_PER_MINUTE + params.model_kept_us,
            )
            yield Change(self.gpu, ChangeKind.MEMORY, start, end, computed_us=self._computed_us)

    def _silences(self, around: Around, params: LedgerParams) -> Iterator[Change]:
        """Silence between the minutes whose content is a new one and the evidence next to them: not
        only where evidence is new, other evidence in the same minute may have other neighbours."""
        run = self.run
        for minute in self.changed_heard:
            before = around.before_us if minute == self.untold_before else run.heard_before(minute)
            after = around.after_us if minute == self.untold_after else run.heard_after(minute)
            following = minute + US_PER_MINUTE
            if before is not None:
                yield from self._unless_fresh(
                    silence(self.gpu, before + US_PER_MINUTE, minute, params)
                )
            if after is not None:
                yield from self._unless_fresh(silence(self.gpu, following, after, params))
            elif not (around.is_newest and self._all_fresh(following, run.last_us + US_PER_MINUTE)):
                yield from silence_after(self.gpu, minute, params)

    def _unless_fresh(self, changes: Iterator[Change]) -> Iterator[Change]:
        """These but those of minutes that are all computed here, and were never stored as
        silent."""
        for change in changes:
            if (
                change.start_us is None
                or change.end_us is None
                or not self._all_fresh(change.start_us, change.end_us)
            ):
                yield change

    def _all_fresh(self, start_us: int, end_us: int) -> bool:
        return self._fresh.issuperset(range(start_us, end_us, US_PER_MINUTE))

    @cached_property
    def _fresh(self) -> set[int]:
        """Minutes that were never stored as silent: computed here, from the same events, they need
        no mark."""
        return {before.minute_us for before in self.stored if not before.owned_silence}

    def _card(self, books: Books) -> Iterator[Change]:
        """Card and slices depend on each other: a slice seen for the first time in a minute, or
        known to be this card's for the first time, changes what its card keeps and maybe its
        siblings' parts; a card's samples price its slices."""
        gpu, card = self.gpu, self.run.cells[0].card
        if card is None and gpu not in books.slices_of:
            return
        minutes = {
            before.minute_us for before in self.stored if before.silent or before.card != card
        } & self.heard
        for other in books.family(card or gpu) if minutes else ():
            if other != gpu:
                yield from all_of(other, minutes, opens=other == card)

    @cached_property
    def _news(self) -> list[ComputedCell]:
        """Cells whose samples say something else than was carried into them. The first sample ever
        does even where it agrees: without it the price of the next one held for the whole of that
        one's minute."""
        return [
            cell
            for cell, before in zip(self.run.cells, self.stored, strict=True)
            if cell.content.samples
            and (
                not before.is_computed
                or before.carried != cell.carried
                or (cell.first_named and not before.samples)
            )
        ]

    def _carried(self, around: Around) -> Iterator[Change]:
        """What a sample says (host, name, price) holds up to the next one, whose minute it opens;
        the first one's host and name hold before it, too."""
        for cell in () if self._is_last(around) else self._news:
            start = cell.content.start_us + US_PER_MINUTE
            until = self._next_sampled(cell.content.start_us)
            until = around.sampled_us if until is None else until
            end = None if until is None else until + US_PER_MINUTE
            if end is None or not self._computed_us.issuperset(range(start, end, US_PER_MINUTE)):
                yield Change(
                    self.gpu, ChangeKind.CARRIED, start, end, cell.carried, self._computed_us
                )
        for cell, before in zip(self.run.cells, self.stored, strict=True):
            if cell.first_named is not None and before.samples != cell.content.samples:
                yield Change(
                    self.gpu,
                    ChangeKind.NAMED,
                    None,
                    cell.content.start_us,
                    cell.first_named,
                    self._computed_us,
                )

    def _next_sampled(self, minute_us: int) -> int | None:
        """The minute of the first sample after one of its minutes; None: its events do not show
        it."""
        index = bisect_left(self.run.samples_us, minute_us + US_PER_MINUTE)
        return minute_of(self.run.samples_us[index]) if index < len(self.run.samples_us) else None

    def _prices_of_slices(self, books: Books) -> Iterator[Change]:
        """A card's samples price its slices from when on they say another price."""
        minutes = (cell.content.start_us for cell in self.run.cells if cell.reprices_slices)
        repriced = [minute for minute in minutes if minute in self.changed_us]
        for gpu in books.slices_of[self.gpu] if repriced else ():
            yield Change(gpu, ChangeKind.ALL, repriced[0], None)

    def _is_last(self, around: Around) -> bool:
        """Whether all that was ever computed from what its minutes say is in the run: nothing is
        left to be told."""
        return (
            around.is_newest
            and self.run.last_us - self.run.start_us == (len(self.run.cells) - 1) * US_PER_MINUTE
        )

    @cached_property
    def _computed_us(self) -> frozenset[int]:
        return frozenset(cell.content.start_us for cell in self.run.cells)
