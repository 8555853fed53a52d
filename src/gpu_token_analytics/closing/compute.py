"""From the store to the ledger's pure function and back: the cells of GPUs, read and computed.

The closer, the audit and the API's request view all come through here, so there is one answer to "what is this cell".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_token_analytics.closing.evidence import evidence_before, last_activity, last_request_ends, next_activity
from gpu_token_analytics.closing.run_requests import requests_by_gpu
from gpu_token_analytics.closing.run_samples import RunSamples
from gpu_token_analytics.closing.runs import ComputedCell, ComputedRun
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, NanoUsd, minute_of, touched_minutes
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.cells import CellContent, compute_cells
from gpu_token_analytics.ledger.inputs import (
    CardShare,
    CellInput,
    GpuInput,
    Samples,
    slice_sevenths,
)
from gpu_token_analytics.ledger.money import Int64, nusd_per_hour
from gpu_token_analytics.ledger.ownership import owned_until
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.prices import PricePiece
from gpu_token_analytics.ledger.requests import Requests, UsageRows, active_in, active_span
from gpu_token_analytics.mongo.client import Document
from gpu_token_analytics.raw.recent import NOTHING_KNOWN, Known
from gpu_token_analytics.units import MIG_SEVENTHS

# Requests of GPUs that are computed together: enough to be worth numpy's while, few enough to stay in the processor's cache.
_TOGETHER_REQUESTS = 6_000


def compute_runs(
    store: LedgerStore,
    books: Books,
    params: LedgerParams,
    runs: Mapping[GpuId, Sequence[int]],
    now_us: int,
    *,
    with_shares: bool = False,
    known: Known = NOTHING_KNOWN,
) -> list[ComputedRun]:
    """The cells of each GPU at the given minutes (ascending, one run), from what is stored now.

    Samples are read for all of them at once, requests for a few after the other. known: what need not be read.
    """
    cards: dict[GpuId, GpuId] = {gpu: card for gpu in runs if (card := books.card_of(gpu))}
    samples = RunSamples(store.raw, runs, cards, params.gap_us, known)
    unread = {gpu: run[0] for gpu, run in runs.items() if samples.memory_is_unknown(gpu)}
    used = last_request_ends(store, books, unread, params.model_kept_us) if unread else {}
    found: list[ComputedRun] = []
    ready: list[_Run] = []

    def compute() -> None:
        contents = compute_cells([run.input for run in ready], params, with_shares=with_shares)
        found.extend(run.computed(cells, with_shares=with_shares) for run, cells in zip(ready, contents, strict=True))
        ready.clear()

    for gpu, requests in requests_by_gpu(store.raw, books, runs, params.gap_us, known):
        ready.append(_Run(store, books, params, gpu, runs[gpu], requests, used.get(gpu), samples, now_us))
        if sum(len(run.input.requests) for run in ready) >= _TOGETHER_REQUESTS:
            compute()
    compute()
    return found


def compute_run(
    store: LedgerStore,
    books: Books,
    params: LedgerParams,
    gpu: GpuId,
    minutes_us: Sequence[int],
    now_us: int,
    *,
    with_shares: bool = False,
) -> Sequence[ComputedCell]:
    """The cells of one GPU at the given minutes, as in compute_runs."""
    (run,) = compute_runs(store, books, params, {gpu: minutes_us}, now_us, with_shares=with_shares)
    return run.cells


class _Run:
    """One GPU over one run of minutes: its events, and what follows from them."""

    def __init__(
        self,
        store: LedgerStore,
        books: Books,
        params: LedgerParams,
        gpu: GpuId,
        minutes_us: Sequence[int],
        requests: UsageRows,
        used_until_us: int | None,
        samples: RunSamples,
        now_us: int,
    ) -> None:
        """requests: that name it, around the run. used_until_us: last_request_ends() at its start."""
        self._store, self._books, self._params, self._gpu = store, books, params, gpu
        self._minutes, self._now_us = minutes_us, now_us
        self._start, self._end = minutes_us[0], minutes_us[-1] + US_PER_MINUTE
        self._names = [gpu, *books.placements.labels(gpu)]
        self._row: Mapping[str, Any] = books.row(gpu)
        self._card: GpuId | None = books.card_of(gpu)
        self._is_card = gpu in books.slices_of
        usage, self._beside = self._apart(self._own(requests))
        self._requests = Requests.of(usage, gpu, books.placements, params.cell_us)
        self._read = samples
        self._samples = samples.within(gpu, self._start - params.gap_us, self._end + params.gap_us)
        self._asof = samples.before(gpu, self._start)
        self._sample_us = [doc["ts_us"] for doc in self._samples]
        cells = [self._input(minute) for minute in minutes_us]
        around = active_span(self._beside, params.cell_us)
        used = np.array([] if used_until_us is None else [used_until_us], dtype=np.int64)
        before = np.concatenate([around[0], used]), np.concatenate([self._beside.ts_us, used])
        self.input = GpuInput(cells, self._requests, Samples.of(self._samples), around, before)

    def computed(self, contents: Sequence[CellContent], *, with_shares: bool) -> ComputedRun:
        """The cells, by their contents as computed from `input`."""
        found = []
        for cell, content, last_end_us in zip(self.input.cells, contents, self._last_ends_us(), strict=True):
            host, name = self._identity(cell.start_us)
            found.append(
                ComputedCell(
                    gpu=self._gpu,
                    content=content,
                    host=host,
                    gpu_name=name,
                    card=self._card,
                    share=cell.card,
                    prices=cell.prices,
                    known=cell.known,
                    silent=self._evidence[cell.start_us] is None,
                    own_price=self._own_price(cell.start_us + US_PER_MINUTE - 1),
                    oldest=self._sample_at(cell.start_us - 1) is None,
                    last_end_us=last_end_us,
                    reprices_slices=self._is_card and self._reprices(cell.start_us),
                    request_ids=self._requests.ids if with_shares else (),
                )
            )
        return ComputedRun(self._gpu, found, self._heard())

    def _last_ends_us(self) -> list[int]:
        """ComputedCell.last_end_us of each minute."""
        ends = np.sort(np.maximum(self._requests.ts_us - 1, self._requests.start_us))
        minutes = np.array(self._minutes, dtype=np.int64)
        ends = np.insert(ends, 0, -1)
        newest = ends[np.searchsorted(ends, minutes + US_PER_MINUTE) - 1]
        found: list[int] = np.where(newest >= minutes, newest, -1).tolist()
        return found

    def _own(self, found: UsageRows) -> UsageRows:
        """Requests on this GPU; those that named a label only where the label meant this GPU when they ended."""
        placements, names = self._books.placements, set(self._names)
        is_own_name = not placements.is_label(self._gpu)
        if is_own_name and (len(names) == 1 or found.labels.named([self._gpu]).all()):
            return found
        own = [
            any(name in names and placements.resolve(name, ts_us) == self._gpu for name in gpus)
            for gpus, ts_us in zip(found.labels.gpus(), found.ts_us.tolist(), strict=True)
        ]
        return found.take(np.flatnonzero(own))

    def _apart(self, usage: UsageRows) -> tuple[UsageRows, UsageRows]:
        """The requests of the run itself, and those that are only active around it."""
        here = active_in(usage, self._start, self._end, self._params.cell_us)
        beside = usage.take(np.flatnonzero(~here))
        return (usage.take(np.flatnonzero(here)) if len(beside) else usage), beside

    def _input(self, minute_us: int) -> CellInput:
        end = minute_us + US_PER_MINUTE
        evidence = self._evidence[minute_us]
        silent = evidence is None
        if not self._books.is_known(self._gpu, minute_us):
            # Requests are there with their tokens, and nobody owns the time.
            over = end if self._now_us >= end else max(self._now_us, minute_us)
            return CellInput(minute_us, minute_us if evidence is None else max(over, evidence + 1), (), known=False)
        until = owned_until(
            minute_us,
            self._now_us,
            evidence_us=evidence,
            before_us=self._last_before(minute_us) if silent and self._card is None else None,
            followed=partial(self._followed, end),
            live=bool(self._row.get("live")),
            silent_owned_us=self._params.silent_owned_us,
        )
        return CellInput(minute_us, until, self._prices(minute_us, end), self._share(minute_us))

    # -- evidence ----------------------------------------------------------------------------------------------------

    @cached_property
    def _evidence(self) -> dict[int, int | None]:
        """Minute -> latest time inside it of which something is known; None: silent."""
        minutes = np.array(self._minutes, dtype=np.int64)
        active = self._active(minutes)
        last = np.searchsorted(self._sample_us, minutes + US_PER_MINUTE) - 1
        found: dict[int, int | None] = {}
        for minute, busy, index in zip(self._minutes, active.tolist(), last.tolist(), strict=True):
            heard = self._sample_us[index] if index >= 0 and self._sample_us[index] >= minute else None
            found[minute] = max(heard or 0, self._last_activity(minute)) if busy else heard
            if found[minute] is None and self._is_card and minute in self._minutes_of_slices:
                found[minute] = minute  # the card is there as long as a slice of it is
        return found

    def _active(self, minutes: Int64) -> npt.NDArray[np.bool_]:
        """Whether a request is active in each of these minutes."""
        begins, ends = self._request_edges
        found: npt.NDArray[np.bool_] = np.searchsorted(begins, minutes + US_PER_MINUTE) > np.searchsorted(
            ends, minutes, side="right"
        )
        return found

    @cached_property
    def _request_edges(self) -> tuple[Int64, Int64]:
        return np.sort(self._requests.start_us), np.sort(self._requests.seen_until_us)

    def _heard(self) -> list[int]:
        """Minutes with evidence, ascending, of the run and as far around it as its events show."""
        minutes = np.arange(self._start - US_PER_MINUTE, self._end + US_PER_MINUTE, US_PER_MINUTE, dtype=np.int64)
        slices = self._minutes_of_slices if self._is_card else ()
        return sorted({*minutes[self._active(minutes)].tolist(), *map(minute_of, self._sample_us), *slices})

    def _last_activity(self, minute_us: int) -> int:
        """Latest instant of a request inside a busy minute. Exact only while the minute runs; it decides nothing later."""
        end = minute_us + US_PER_MINUTE
        if end <= self._now_us:
            return end - 1
        requests = self._requests
        active = (requests.start_us < end) & (requests.seen_until_us > minute_us)
        last = np.maximum(requests.ts_us[active] - 1, requests.start_us[active])  # of a point in time the point itself
        return max(minute_us, min(end - 1, int(last.max())))

    @cached_property
    def _before(self) -> dict[int, int | None]:
        """Minute -> latest evidence before it among the events of this run, those of minutes left out of it included."""
        minutes = np.array(self._minutes, dtype=np.int64)
        order = np.argsort(self._requests.start_us, kind="stable")
        begins = self._requests.start_us[order]
        ends = np.maximum.accumulate(self._requests.seen_until_us[order])
        begun = np.searchsorted(begins, minutes).tolist()
        heard = np.searchsorted(self._sample_us, minutes).tolist()
        found: dict[int, int | None] = {}
        for minute, requests, samples in zip(self._minutes, begun, heard, strict=True):
            times = [min(int(ends[requests - 1]), minute) - 1] if requests else []
            slices = [at for at in self._minutes_of_slices if at < minute] if self._is_card else []
            found[minute] = max([*times, *self._sample_us[samples - 1 : samples], *slices], default=None)
        return found

    def _last_before(self, minute_us: int) -> int | None:
        """The latest evidence before a silent minute, as far as it matters for who owns the minute."""
        owned_us = self._params.silent_owned_us
        before = self._before[minute_us]
        if before is not None or not owned_us:
            return before
        if self._asof is not None and minute_us <= minute_of(self._asof["ts_us"]) + owned_us:
            sampled: int = self._asof["ts_us"]
            return sampled  # recent enough: a request after it would say the same
        return self._before_run

    @cached_property
    def _before_run(self) -> int | None:
        if self._is_card:
            return evidence_before(self._store, self._books, {self._gpu: self._start}).get(self._gpu)
        heard = [] if self._asof is None else [self._asof["ts_us"]]
        active = last_activity(self._store, self._books, {self._gpu: self._start}).get(self._gpu)
        return max(heard if active is None else [*heard, active], default=None)

    def _followed(self, end_us: int) -> bool:
        if self._sample_us and self._sample_us[-1] >= end_us:
            return True
        if len(self._requests) and int(self._requests.seen_until_us.max()) > end_us:
            return True
        if self._is_card and max(self._minutes_of_slices, default=end_us - 1) >= end_us:
            return True
        return self._followed_after_run

    @cached_property
    def _followed_after_run(self) -> bool:
        if any(self._store.raw.has_sample_from(name, self._end) for name in self._books.family(self._gpu)):
            return True
        return bool(next_activity(self._store, self._books, {self._gpu: self._end}))

    # -- identity and price ------------------------------------------------------------------------------------------

    def _sample_at(self, at_us: int) -> Document | None:
        last = bisect_right(self._sample_us, at_us) - 1
        if last >= 0:
            return self._samples[last]
        return self._asof

    def _identity(self, minute_us: int) -> tuple[str | None, str | None]:
        """(host, GPU name): the newest sample's by the end of the minute, else the first one's ever; without samples what an
        operator declared, else the requests' host; the inventory's where samples have expired, or were its slices' alone."""
        sample = self._sample_at(minute_us + US_PER_MINUTE - 1) or self._read.first(self._gpu)
        if sample is not None:
            return sample["host"], sample.get("name")
        declared = self._books.declarations.get(self._gpu)
        if declared is not None and declared.covers(minute_us):
            return declared.host, declared.name
        active = (self._requests.start_us < minute_us + US_PER_MINUTE) & (self._requests.seen_until_us > minute_us)
        first = np.flatnonzero(active)
        if len(first):
            return self._requests.labels.at(int(first[0])).host, self._row.get("name")
        return self._row.get("host") or self._host_beside(minute_us), self._row.get("name")

    def _host_beside(self, minute_us: int) -> str | None:
        """The host of the requests that opened a minute without being in it: the first one's, by event id."""
        low, high = minute_us - self._params.gap_us, minute_us + US_PER_MINUTE + self._params.gap_us
        here = np.flatnonzero((self._requests.start_us < high) & (self._requests.seen_until_us > low)).tolist()
        beside = np.flatnonzero(active_in(self._beside, low, high, self._params.cell_us)).tolist()
        hosts = [(self._requests.ids[at], self._requests.labels.at(at).host) for at in here[:1]]  # these are in order
        hosts += [(self._beside.ids[at], self._beside.labels.at(at).host) for at in beside]
        return min(hosts)[1] if hosts else None

    def _own_price(self, at_us: int) -> NanoUsd | None:
        sample = self._sample_at(at_us)
        price = None if sample is None else sample.get("price_per_hour_usd")
        return None if price is None else nusd_per_hour(price)

    def _reprices(self, minute_us: int) -> bool:
        """Whether a sample of this minute names another price than was in force before it, or is the first ever."""
        low, high = (bisect_left(self._sample_us, at_us) for at_us in (minute_us, minute_us + US_PER_MINUTE))
        before = self._sample_at(minute_us - 1)
        if before is None:
            return high > low
        price = before.get("price_per_hour_usd")
        return any(sample.get("price_per_hour_usd") != price for sample in self._samples[low:high])

    def _prices(self, start_us: int, end_us: int) -> list[PricePiece]:
        host, name = self._identity(start_us)
        gpu = self._gpu
        if self._card is not None:
            # Slices and card are priced alike, by the card: else their sum could not be the card's price.
            gpu, name = self._card, self._books.row(self._card).get("name") or name
        points: list[tuple[int, NanoUsd | None]] = []
        times, docs = self._price_samples
        low, high = bisect_right(times, start_us), bisect_left(times, end_us)
        opening = docs[low - 1] if low else (docs[0] if high > low else None)  # the first one ever speaks for its whole minute
        last = opening.get("price_per_hour_usd") if opening else None
        if last is not None:
            points.append((start_us, nusd_per_hour(last)))
        for doc in docs[low:high]:
            price = doc.get("price_per_hour_usd")
            if price != last:
                points.append((doc["ts_us"], None if price is None else nusd_per_hour(price)))
                last = price
        return self._books.prices.pieces(gpu, host, name, start_us, end_us, points)

    @cached_property
    def _price_samples(self) -> tuple[list[int], list[Document]]:
        """Samples that name a price, from the one in force at the start on: this GPU's own, for a MIG slice its card's."""
        if self._card is None:
            docs, before = self._samples, self._asof
        else:
            docs = self._read.within(self._card, self._start, self._end)
            before = self._read.before(self._card, self._start)
        if before is not None and (not docs or before["ts_us"] < docs[0]["ts_us"]):
            docs = [before, *docs]
        return [doc["ts_us"] for doc in docs], docs

    # -- MIG ---------------------------------------------------------------------------------------------------------

    def _share(self, start_us: int) -> CardShare | None:
        if self._card is None and not self._is_card:
            return None
        seen = {
            gpu: sevenths for gpu, (sevenths, minutes) in self._siblings.items() if start_us in minutes and (gpu != self._gpu)
        }
        mine = self._row.get("mig_profile") if self._card is not None else None
        own = None if mine is None else slice_sevenths(mine)
        denominator = max(MIG_SEVENTHS, sum(seen.values()) + (own or 0))
        if own is not None:
            return CardShare(denominator, slice_parts=own)
        return CardShare(denominator, child_parts=tuple(seen[gpu] for gpu in sorted(seen))) if seen else None

    @cached_property
    def _siblings(self) -> dict[GpuId, tuple[int, set[int]]]:
        """Slices of this card (or of this slice's card): sevenths, and the minutes of this run with evidence of them."""
        card = self._card or self._gpu
        found: dict[GpuId, tuple[int, set[int]]] = {}
        for gpu in self._books.slices_of.get(card, ()):
            profile = self._books.inventory[gpu].get("mig_profile")
            if profile:
                found[gpu] = (slice_sevenths(profile), set())
        if found:
            for gpu, times in self._store.raw.sampled(sorted(found), self._start, self._end):
                found[gpu][1].update(map(minute_of, times))
            placements = self._books.placements
            names = {name for gpu in found for name in (gpu, *placements.labels(gpu))}
            usage = self._store.raw.usage(sorted(names), self._start, self._end)
            for gpus, start_us, ts_us in zip(usage.labels.gpus(), usage.start_us.tolist(), usage.ts_us.tolist(), strict=True):
                for gpu in found.keys() & placements.resolve_all(gpus, ts_us):
                    found[gpu][1].update(touched_minutes(start_us, ts_us))
        return found

    @cached_property
    def _minutes_of_slices(self) -> set[int]:
        """Of a card: the minutes of this run with evidence of a slice."""
        return set().union(*(minutes for _, minutes in self._siblings.values()))
