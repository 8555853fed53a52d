"""The timeline of a GPU: what its minutes depend on besides what happens inside of them, as one
pure value.

    identity   host and name: the newest sample's, else the first one's ever, what an operator
               declared, the requests' host
    price      the book's, the samples' own up to the next sample, a card's for its MIG slices
    evidence   in which minutes it was heard of, and so which silent minutes have to be paid for
               (ownership.py)
    card       which slices are seen on a card, and so how its money is parted

timeline = f(events of the GPU around a run of minutes, books, parameters, the time now). It asks
nobody: where the events of the run do not tell what lies before or after it, `asks_before` and
`asks_after` say so, and who loads answers with `beyond`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.events import NOTHING_BEYOND, Beyond, GpuEvents
from gpu_token_analytics.ledger.evidence import Evidence
from gpu_token_analytics.ledger.inputs import (
    CardShare,
    CellInput,
    GpuInput,
    Samples,
    slice_sevenths,
)
from gpu_token_analytics.ledger.ownership import is_owed, owned_until
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import PricePiece
from gpu_token_analytics.ledger.requests import Requests, UsageRows, active_in, active_span
from gpu_token_analytics.units import MIG_SEVENTHS


@dataclass(frozen=True)
class Timeline:
    """The timeline of one GPU over one run of minutes."""

    events: GpuEvents
    books: Books
    params: LedgerParams
    now_us: int
    requests: Requests  # on this GPU and active in the run
    requests_around: UsageRows  # on this GPU, and only active around the run
    evidence: Evidence
    latest_us: Mapping[int, int | None]  # Evidence.latest()
    # of the card: sevenths, and minutes of the run with evidence, by slice
    slices: Mapping[GpuId, tuple[int, Set[int]]]
    beyond: Beyond = NOTHING_BEYOND

    @staticmethod
    def of(events: GpuEvents, books: Books, params: LedgerParams, now_us: int) -> Timeline:
        """From events and books alone. now_us: what is over, in microseconds."""
        here, around = _apart(_own_requests(events, books), events.minutes_us, params)
        requests = Requests.of(here, events.gpu, books.placements, params.cell_us)
        slices = _slices(events, books)
        heard = (minutes for _, minutes in slices.values()) if events.gpu in books.slices_of else ()
        evidence = Evidence(
            events.minutes_us, requests, events.samples.times_us, frozenset().union(*heard)
        )
        return Timeline(
            events,
            books,
            params,
            now_us,
            requests,
            around,
            evidence,
            evidence.latest(now_us),
            slices,
        )

    def answered(self, beyond: Beyond) -> Timeline:
        """The same with what lies beyond its events."""
        return replace(self, beyond=beyond)

    @property
    def gpu(self) -> GpuId:
        """Whose timeline it is."""
        return self.events.gpu

    @property
    def start_us(self) -> int:
        """The start of the first minute."""
        return self.events.minutes_us[0]

    @property
    def end_us(self) -> int:
        """The end of the last minute."""
        return self.events.minutes_us[-1] + US_PER_MINUTE

    @cached_property
    def card(self) -> GpuId | None:
        """The card of a MIG slice; None: a whole GPU, or a card."""
        return self.books.card_of(self.gpu)

    @cached_property
    def is_card(self) -> bool:
        """Whether it has MIG slices."""
        return self.gpu in self.books.slices_of

    # -- evidence and silence ----------------------------------------------------------------------

    @cached_property
    def asks_before(self) -> bool:
        """Whether a silent minute is owned or not by what was heard before the run, which its
        events do not tell."""
        return any(self._before_us(minute) is None for minute in self._silent_minutes())

    @cached_property
    def asks_after(self) -> bool:
        """Whether a silent minute is owned or not by what is heard after the run, which its events
        do not tell."""
        for minute in self._silent_minutes():
            is_settled = self._is_live and minute + US_PER_MINUTE <= self.now_us
            if (
                not is_settled
                and self.evidence.until_us <= minute + US_PER_MINUTE
                and self._may_be_owed(minute)
            ):
                return True
        return False

    def _silent_minutes(self) -> Iterator[int]:
        """Those of which somebody may own the silence: a silent MIG slice is its card's."""
        if self.card is None and self.params.silent_owned_us:
            for minute, latest in self.latest_us.items():
                if latest is None and self.books.is_known(self.gpu, minute):
                    yield minute

    @cached_property
    def _before(self) -> dict[int, int | None]:
        return self.evidence.before()

    def _before_us(self, minute_us: int) -> int | None:
        """The latest evidence before a silent minute, as far as it decides who owns the minute."""
        if (heard := self._before[minute_us]) is not None:
            return heard
        sample = self.events.samples.before
        if sample is not None and is_owed(minute_us, sample["ts_us"], self.params.silent_owned_us):
            sampled_us: int = sample["ts_us"]
            return sampled_us  # recent enough: a request after it would say the same
        return self.beyond.heard_us

    def _may_be_owed(self, minute_us: int) -> bool:
        before = self._before_us(minute_us)
        return before is None or is_owed(minute_us, before, self.params.silent_owned_us)

    @property
    def _is_live(self) -> bool:
        return bool(self._row.get("live"))

    def _until_us(self, minute_us: int) -> int:
        """The end of the owned part of a minute of a known GPU."""
        end, latest = minute_us + US_PER_MINUTE, self.latest_us[minute_us]
        silent = latest is None and self.card is None
        return owned_until(
            minute_us,
            self.now_us,
            evidence_us=latest,
            before_us=self._before_us(minute_us) if silent else None,
            followed=silent and (self.evidence.until_us > end or self.beyond.followed),
            live=self._is_live,
            silent_owned_us=self.params.silent_owned_us,
        )

    # -- identity and price ------------------------------------------------------------------------

    @cached_property
    def _row(self) -> Mapping[str, Any]:
        return self.books.row(self.gpu)

    def identity(self, minute_us: int) -> tuple[str | None, str | None]:
        """(host, GPU name): the newest sample's by the end of the minute, else the first one's
        ever; without samples what an operator declared, else the requests' host; the inventory's
        where samples have expired, or were its slices' alone."""
        sample = self.events.samples.at(minute_us + US_PER_MINUTE - 1) or self.events.samples.first
        if sample is not None:
            return sample["host"], sample.get("name")
        declared = self.books.declarations.get(self.gpu)
        if declared is not None and declared.covers(minute_us):
            return declared.host, declared.name
        requests = self.requests
        active = np.flatnonzero(
            (requests.start_us < minute_us + US_PER_MINUTE) & (requests.seen_until_us > minute_us)
        )
        if len(active):
            return requests.labels.at(int(active[0])).host, self._row.get("name")
        return self._row.get("host") or self._host_around(minute_us), self._row.get("name")

    def _host_around(self, minute_us: int) -> str | None:
        """The host of the requests that opened a minute without being in it: the first one's, by
        event id."""
        low, high = minute_us - self.params.gap_us, minute_us + US_PER_MINUTE + self.params.gap_us
        requests, around = self.requests, self.requests_around
        inside = np.flatnonzero(
            (requests.start_us < high) & (requests.seen_until_us > low)
        ).tolist()
        outside = np.flatnonzero(active_in(around, low, high, self.params.cell_us)).tolist()
        # these are in order
        hosts = [(requests.ids[row], requests.labels.at(row).host) for row in inside[:1]]
        hosts += [(around.ids[row], around.labels.at(row).host) for row in outside]
        return min(hosts)[1] if hosts else None

    def prices(self, minute_us: int) -> list[PricePiece]:
        """The prices in force in a minute."""
        host, name = self.identity(minute_us)
        gpu, samples = self.gpu, self.events.samples
        if self.card is not None:
            # Slices and card are priced alike, by the card: else their sum could not be the card's
            # price.
            gpu, name = self.card, self.books.row(self.card).get("name") or name
            samples = self.events.card_samples or samples
        end = minute_us + US_PER_MINUTE
        return self.books.prices.pieces(
            gpu, host, name, minute_us, end, samples.prices(minute_us, end)
        )

    # -- card --------------------------------------------------------------------------------------

    def share(self, minute_us: int) -> CardShare | None:
        """What part of its card's money is this GPU's in a minute; None: it is a whole one."""
        if self.card is None and not self.is_card:
            return None
        seen = {
            gpu: sevenths
            for gpu, (sevenths, minutes) in self.slices.items()
            if minute_us in minutes and gpu != self.gpu
        }
        profile = self._row.get("mig_profile") if self.card is not None else None
        sevenths = None if profile is None else slice_sevenths(profile)
        denominator = max(MIG_SEVENTHS, sum(seen.values()) + (sevenths or 0))
        if sevenths is not None:
            return CardShare(denominator, slice_parts=sevenths)
        return (
            CardShare(denominator, child_parts=tuple(seen[gpu] for gpu in sorted(seen)))
            if seen
            else None
        )

    # -- what cells are computed from --------------------------------------------------------------

    def input(self) -> GpuInput:
        """What the cells of its minutes are computed from."""
        samples, requests = self.events.samples, self.requests
        around = active_span(self.requests_around, self.params.cell_us)
        used_until = self.events.used_until_us
        used = np.array([] if used_until is None else [used_until], dtype=np.int64)
        before = (
            np.concatenate([around[0], used]),
            np.concatenate([self.requests_around.ts_us, used]),
        )
        cells = [self._cell(minute) for minute in self.events.minutes_us]
        return GpuInput(cells, requests, Samples.of(samples.near), around, before)

    def _cell(self, minute_us: int) -> CellInput:
        end = minute_us + US_PER_MINUTE
        if self.books.is_known(self.gpu, minute_us):
            return CellInput(
                minute_us, self._until_us(minute_us), self.prices(minute_us), self.share(minute_us)
            )
        # Requests are there with their tokens, and nobody owns the time.
        over = end if self.now_us >= end else max(self.now_us, minute_us)
        latest = self.latest_us[minute_us]
        return CellInput(
            minute_us, minute_us if latest is None else max(over, latest + 1), (), known=False
        )


def _own_requests(events: GpuEvents, books: Books) -> UsageRows:
    """Requests on this GPU; those that named a label only where the label meant this GPU when they
    ended."""
    rows, placements, gpu = events.requests, books.placements, events.gpu
    names = {gpu, *placements.labels(gpu)}
    if not placements.is_label(gpu) and (len(names) == 1 or rows.labels.named([gpu]).all()):
        return rows
    is_own = [
        any(name in names and placements.resolve(name, ts_us) == gpu for name in gpus)
        for gpus, ts_us in zip(rows.labels.gpus(), rows.ts_us.tolist(), strict=True)
    ]
    return rows.take(np.flatnonzero(is_own))


def _apart(
    usage: UsageRows, minutes_us: Sequence[int], params: LedgerParams
) -> tuple[UsageRows, UsageRows]:
    """The requests of the run itself, and those that are only active around it."""
    here = active_in(usage, minutes_us[0], minutes_us[-1] + US_PER_MINUTE, params.cell_us)
    around = usage.take(np.flatnonzero(~here))
    return (usage.take(np.flatnonzero(here)) if len(around) else usage), around


def _slices(events: GpuEvents, books: Books) -> dict[GpuId, tuple[int, Set[int]]]:
    """Slices of this card (or of this slice's card): sevenths, and the minutes of the run with
    evidence of them."""
    if events.slices is None:
        return {}
    heard = events.slices.minutes(books.placements)
    return {
        gpu: (slice_sevenths(books.inventory[gpu]["mig_profile"]), minutes)
        for gpu, minutes in heard.items()
    }
