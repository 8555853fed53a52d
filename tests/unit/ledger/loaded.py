"""Events and books as closing loads them, from lists of raw documents: what a loader does, without
a store."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, minute_of, touched_minutes
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.events import Beyond, GpuEvents, SamplesAround, SliceEvents
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.placements import Placement, Placements
from gpu_token_analytics.ledger.prices import PriceBook, PriceRow
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.ledger.timeline import Timeline

Document = dict[str, Any]


@dataclass
class Stored:
    """Raw documents, and the books that they and price rows make."""

    usages: Sequence[Document] = ()
    samples: Sequence[Document] = ()
    prices: Sequence[Document] = ()
    placements: Sequence[Placement] = ()
    params: LedgerParams = field(default_factory=LedgerParams)

    def books(self) -> Books:
        """As ingest would have learned them from all of these samples."""
        inventory: dict[GpuId, Document] = {}
        for sample in sorted(self.samples, key=lambda doc: (doc["ts_us"], doc["_id"])):
            row = inventory.setdefault(sample["gpu"], {"_id": sample["gpu"], "live": False})
            row |= {"host": sample["host"], "name": sample["name"], "last_us": sample["ts_us"]}
            row["live"] = row["live"] or sample["source"] == "nvml"
            row |= {name: sample[name] for name in ("parent_uuid", "mig_profile") if name in sample}
        named = {name for usage in self.usages for name in usage["gpus"]}
        return Books(
            PriceBook(PriceRow.of(row) for row in self.prices),
            Placements(self.placements, inventory, named),
            inventory,
        )

    def gpus(self) -> list[GpuId]:
        """Every GPU that an event is about, and their cards."""
        books = self.books()
        gpus = {doc["gpu"] for doc in self.samples}
        gpus |= {
            gpu
            for doc in self.usages
            for gpu in books.placements.resolve_all(doc["gpus"], doc["ts_us"])
        }
        return sorted(gpus | {card for gpu in gpus if (card := books.card_of(gpu))})

    def timeline(self, gpu: GpuId, minutes_us: Sequence[int], now_us: int) -> Timeline:
        """What closing would load of a GPU, as its timeline."""
        books, start, end = self.books(), minutes_us[0], minutes_us[-1] + US_PER_MINUTE
        card = books.card_of(gpu)
        events = GpuEvents(
            gpu,
            minutes_us,
            UsageRows.of(
                self._usages(books, [gpu], start - self.params.gap_us, end + self.params.gap_us)
            ),
            self._samples(gpu, start, end),
            None if card is None else self._samples(card, start, end),
            self._slices(books, card or gpu, start, end),
            self._used_until(books, gpu, start),
        )
        timeline = Timeline.of(events, books, self.params, now_us)
        if not (timeline.asks_before or timeline.asks_after):
            return timeline
        heard = self.heard(books, gpu)
        before = heard[: bisect_left(heard, start)]
        return timeline.answered(
            Beyond(before[-1] if before else None, bool(heard) and heard[-1] >= end)
        )

    def heard(self, books: Books, gpu: GpuId) -> list[int]:
        """The minutes with evidence of a GPU and, of a card, of its slices."""
        family = books.family(gpu)
        minutes = {minute_of(doc["ts_us"]) for doc in self.samples if doc["gpu"] in family}
        for doc in self._usages(books, family, 0, 1 << 60):
            if set(family) & set(books.placements.resolve_all(doc["gpus"], doc["ts_us"])):
                minutes.update(touched_minutes(doc["start_us"], doc["ts_us"]))
        return sorted(minutes)

    def _usages(
        self, books: Books, gpus: Iterable[GpuId], start_us: int, end_us: int
    ) -> list[Document]:
        """Those that gave one of these GPUs any name it ever had; more of them in time than are
        needed."""
        names = {name for gpu in gpus for name in (gpu, *books.placements.labels(gpu))}
        return [
            doc
            for doc in self.usages
            if names & set(doc["gpus"])
            and minute_of(doc["start_us"]) < end_us
            and minute_of(doc["ts_us"]) + US_PER_MINUTE > start_us
        ]

    def _samples(self, gpu: GpuId, start_us: int, end_us: int) -> SamplesAround:
        docs = sorted(
            (doc for doc in self.samples if doc["gpu"] == gpu),
            key=lambda doc: (doc["ts_us"], doc["_id"]),
        )
        gap = self.params.gap_us
        before = [doc for doc in docs if doc["ts_us"] < start_us]
        near = [doc for doc in docs if start_us - gap <= doc["ts_us"] < end_us + gap]
        return SamplesAround(
            near, before[-1] if before else None, docs[0] if docs and not before else None
        )

    def _slices(self, books: Books, card: GpuId, start_us: int, end_us: int) -> SliceEvents | None:
        if card not in books.slices_of:
            return None
        slices = [gpu for gpu in books.slices_of[card] if books.inventory[gpu].get("mig_profile")]
        times = {
            gpu: [
                doc["ts_us"]
                for doc in self.samples
                if doc["gpu"] == gpu and start_us <= doc["ts_us"] < end_us
            ]
            for gpu in slices
        }
        return SliceEvents(times, UsageRows.of(self._usages(books, slices, start_us, end_us)))

    def _used_until(self, books: Books, gpu: GpuId, at_us: int) -> int | None:
        ends = [
            doc["ts_us"]
            for doc in self._usages(books, [gpu], 0, 1 << 60)
            if gpu in books.placements.resolve_all(doc["gpus"], doc["ts_us"])
            and at_us - self.params.model_kept_us <= doc["ts_us"] <= at_us
            and doc["start_us"] < at_us
        ]
        return max(ends, default=None)
