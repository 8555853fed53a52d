"""Loading: everything the timelines of GPUs are made of, before anything is computed. Nothing below
asks a client.

1 samples of all GPUs at once: load_samples.py       2 requests of a few after the other:
  load_requests.py
3 of cards and MIG slices, what was heard of the slices    4 what lies beyond, where the events of a
  run do not tell: neighbours.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gpu_token_analytics.closing.load_counters import counters_by_gpu
from gpu_token_analytics.closing.load_requests import requests_by_gpu
from gpu_token_analytics.closing.load_samples import load_samples
from gpu_token_analytics.closing.neighbours import evidence_before, evidence_from, last_request_ends
from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.events import Beyond, GpuEvents, SamplesAround, SliceEvents
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.ledger.timeline import Timeline
from gpu_token_analytics.raw.read import RawReads
from gpu_token_analytics.raw.recent import NOTHING_KNOWN, Known

# Requests of GPUs that are computed together: enough to be worth numpy's while, few enough to stay
# in the processor's cache.
_TOGETHER_REQUESTS = 6_000


def load_timelines(
    raw: RawReads,
    books: Books,
    params: LedgerParams,
    runs: Mapping[GpuId, Sequence[int]],
    now_us: int,
    known: Known = NOTHING_KNOWN,
) -> Iterator[list[Timeline]]:
    """The timeline of each GPU at the given minutes (ascending, one run), from what is stored now:
    as many together as are worth computing together. known: what need not be read."""
    together: list[Timeline] = []
    for events in load_events(raw, books, params, runs, known):
        together.append(Timeline.of(events, books, params, now_us))
        if sum(len(timeline.requests) for timeline in together) >= _TOGETHER_REQUESTS:
            yield _answered(raw, books, together)
            together = []
    if together:
        yield _answered(raw, books, together)


def load_events(
    raw: RawReads,
    books: Books,
    params: LedgerParams,
    runs: Mapping[GpuId, Sequence[int]],
    known: Known = NOTHING_KNOWN,
) -> Iterator[GpuEvents]:
    """The events around the run of each GPU."""
    cards: dict[GpuId, GpuId] = {gpu: card for gpu in runs if (card := books.card_of(gpu))}
    one_card = {gpu: run for gpu, run in runs.items() if gpu not in books.shared}
    samples, of_cards = (
        load_samples(raw, one_card, cards, params.gap_us, known) if one_card else ({}, {})
    )
    # they are its cards'
    samples |= {gpu: SamplesAround(()) for gpu in runs if gpu in books.shared}
    unread = {
        gpu: run[0]
        for gpu, run in one_card.items()
        if any(sample.get("mem_used_mb") is None for sample in samples[gpu].near)
    }
    used = last_request_ends(raw, books, unread, params.model_kept_us) if unread else {}
    counters = counters_by_gpu(raw, books, runs, known)
    slices: dict[tuple[GpuId, int, int], SliceEvents] = {}
    for gpu, requests in requests_by_gpu(raw, books, runs, params.gap_us, known):
        run, card = runs[gpu], books.card_of(gpu) or gpu
        span = card, run[0], run[-1] + US_PER_MINUTE
        if card in books.slices_of and span not in slices:
            slices[span] = _load_slices(raw, books, *span)
        yield GpuEvents(
            gpu,
            run,
            requests,
            samples[gpu],
            of_cards.get(gpu),
            slices.get(span),
            used.get(gpu),
            counters[gpu],
        )


def _load_slices(
    raw: RawReads, books: Books, card: GpuId, start_us: int, end_us: int
) -> SliceEvents:
    """What was heard in [start, end) of the slices of a card whose profile is known."""
    slices = sorted(gpu for gpu in books.slices_of[card] if books.inventory[gpu].get("mig_profile"))
    if not slices:
        return SliceEvents({}, UsageRows.of(()))
    names = {name for gpu in slices for name in (gpu, *books.placements.labels(gpu))}
    return SliceEvents(
        dict(raw.sampled(slices, start_us, end_us)),
        raw.usage(sorted(names), start_us, end_us).of_cards(books.shared),
    )


def _answered(raw: RawReads, books: Books, timelines: Sequence[Timeline]) -> list[Timeline]:
    """These with what lies beyond their events, where they ask for it."""
    before = {(timeline.gpu, timeline.start_us) for timeline in timelines if timeline.asks_before}
    after = {(timeline.gpu, timeline.end_us) for timeline in timelines if timeline.asks_after}
    if not before and not after:
        return list(timelines)
    heard = evidence_before(raw, books, before) if before else {}
    followed = evidence_from(raw, books, after) if after else {}
    return [
        timeline.answered(
            Beyond(
                heard.get((timeline.gpu, timeline.start_us)),
                (timeline.gpu, timeline.end_us) in followed,
            )
        )
        for timeline in timelines
    ]
