"""What changed in timelines because a name means another GPU: the intervals of all GPUs that it
ever meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    GpuId,
    GpuMinute,
    shared_span,
    touched_minutes,
)
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.changes import (
    Change,
    ChangeKind,
    all_of,
    intervals,
    silence,
    silence_after,
)
from gpu_token_analytics.ledger.params import LedgerParams


@dataclass(frozen=True)
class NameMoved:
    """What a name means changed, or may have: where the requests that gave it are now, and where
    they may have been."""

    # by everything it ever meant: the minutes of the requests that are its own now
    meant_us: Mapping[GpuId, Set[int]]
    minutes_us: Set[int]  # of all of them: whoever is not meant may have lost these
    around_us: Set[int]  # and those that share a sample interval with them
    # minutes of others that a request ran on besides: its parts changed
    shared_us: Mapping[GpuId, Set[int]]

    @staticmethod
    def of(
        name: str, usages: Iterable[Mapping[str, Any]], books: Books, params: LedgerParams
    ) -> NameMoved:
        """usages: {start_us, ts_us, gpus} of every request that gave the name."""
        placements = books.placements
        meant: dict[GpuId, set[int]] = {gpu: set() for gpu in (name, *placements.meanings(name))}
        shared: dict[GpuId, set[int]] = {}
        around: set[int] = set()
        for usage in usages:
            start_us, ts_us = usage["start_us"], usage["ts_us"]
            touched = touched_minutes(start_us, ts_us)
            meant[placements.resolve(name, ts_us)].update(touched)
            around.update(touched_minutes(*shared_span(start_us, ts_us, params.gap_us)))
            # on how many GPUs it was, and which of them this one is, changes for all
            if len(usage["gpus"]) > 1:
                for other in placements.resolve_all(usage["gpus"], ts_us):
                    shared.setdefault(other, set()).update(touched)
        return NameMoved(meant, set().union(*meant.values()), around, shared)

    def asks(self) -> set[GpuMinute]:
        """GPUs and minutes next to which the evidence has to be known, on both sides, to say what
        changed."""
        asked: set[GpuMinute] = set()
        for gpu in self.meant_us if self.minutes_us else ():
            gained, lost = (
                intervals(self.meant_us[gpu]),
                intervals(self.minutes_us - self.meant_us[gpu]),
            )
            minutes = {
                min(self.minutes_us),
                *(at for edges in gained for at in edges),
                *(end for _, end in lost),
            }
            asked |= {(gpu, minute) for minute in minutes}
        return asked

    def changes(
        self,
        before_us: Mapping[GpuMinute, int],
        from_us: Mapping[GpuMinute, int],
        books: Books,
        params: LedgerParams,
    ) -> Iterator[Change]:
        """The intervals that are others now. before_us, from_us: for those of `asks` the last
        minute with evidence before them, and the first one from them on; without those that have
        none."""
        for gpu, minutes in sorted(self.shared_us.items()):
            yield from all_of(gpu, minutes)
        for gpu in sorted(self.meant_us) if self.minutes_us else ():
            yield from all_of(gpu, self.around_us, opens=True)
            # Silence that the others may have owned is looked at again.
            first = min(self.minutes_us)
            end = max(self.minutes_us) + params.silent_owned_us + 2 * US_PER_MINUTE
            yield Change(gpu, ChangeKind.SILENT, before_us.get((gpu, first), first), end)
            if books.may_own(gpu):
                yield from self._silences(gpu, before_us, from_us, params)

    def _silences(
        self,
        gpu: GpuId,
        before_us: Mapping[GpuMinute, int],
        from_us: Mapping[GpuMinute, int],
        params: LedgerParams,
    ) -> Iterator[Change]:
        """Silence around them all is opened here, since nobody else may have seen both of its
        ends."""
        for start, end in intervals(self.meant_us[gpu]):
            if (heard := before_us.get((gpu, start))) is not None:
                yield from silence(gpu, heard + US_PER_MINUTE, start, params)
            if (following := from_us.get((gpu, end))) is not None:
                yield from silence(gpu, end, following, params)
            else:
                yield from silence_after(gpu, end - US_PER_MINUTE, params)
        for _, end in intervals(self.minutes_us - self.meant_us[gpu]):
            heard, following = before_us.get((gpu, end)), from_us.get((gpu, end))
            if heard is not None and following is not None:
                yield from silence(gpu, heard + US_PER_MINUTE, following, params)


def families(gpus: Collection[GpuId], books: Books) -> list[GpuId]:
    """These GPUs, the cards they are slices of, and all slices of these, sorted: parts of a card
    depend on all slices."""
    named = {*gpus, *(card for gpu in gpus if (card := books.card_of(gpu)))}
    named |= {card for gpu in named for card in books.shared.cards(gpu)}
    return sorted({member for gpu in named for member in books.family(gpu)})
