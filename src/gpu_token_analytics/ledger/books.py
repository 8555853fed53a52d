"""What cells are priced and named by besides their events, as one value: prices, placements,
inventory, declarations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.ledger.declarations import Declaration
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.prices import PriceBook
from gpu_token_analytics.ledger.shared import NOTHING_SHARED, SharedUuids


@dataclass(frozen=True)
class Books:
    """What every cell is priced and named by, as read at one moment."""

    prices: PriceBook
    placements: Placements
    inventory: Mapping[GpuId, Mapping[str, Any]]
    declarations: Mapping[GpuId, Declaration] = field(default_factory=dict)
    shared: SharedUuids = NOTHING_SHARED

    def is_known(self, gpu: GpuId, minute_us: int) -> bool:
        """Whether money begins at this GPU in the minute that starts then: it, or a slice of it,
        was sampled at any time, or an operator declared it for that time."""
        if self.is_sampled(gpu):
            return True
        declared = self.declarations.get(gpu)
        return declared is not None and declared.covers(minute_us)

    def may_own(self, gpu: GpuId) -> bool:
        """Whether it is known in any minute: else it owns no silence."""
        return gpu in self.declarations or self.is_sampled(gpu)

    def is_sampled(self, gpu: GpuId) -> bool:
        """Whether a sample of it, or of a slice of it, was ever stored."""
        return gpu in self.inventory or gpu in self.slices_of

    @cached_property
    def slices_of(self) -> dict[GpuId, list[GpuId]]:
        """MIG slices by their card, sorted. A card need not have sent a sample itself."""
        slices: dict[GpuId, list[GpuId]] = {}
        for gpu, card in sorted(self._cards.items()):
            slices.setdefault(card, []).append(gpu)
        return slices

    def card_of(self, gpu: GpuId) -> GpuId | None:
        """The card of a MIG slice; None for a whole GPU, and for a card."""
        return self._cards.get(gpu)

    def family(self, gpu: GpuId) -> list[GpuId]:
        """A card and its slices, whose evidence is its own, too; of any other GPU itself alone."""
        return [gpu, *self.slices_of.get(gpu, ())]

    def row(self, gpu: GpuId) -> Mapping[str, Any]:
        """What the inventory says of a GPU, and of a card besides what its slices say of it; {}
        where nobody says anything."""
        stored = self.inventory.get(gpu, {})
        if gpu not in self.slices_of:
            return stored
        rows = [stored, *(self.inventory[name] for name in self.slices_of[gpu])]
        told = {
            field: next((row[field] for row in rows if row.get(field) is not None), None)
            for field in ("host", "name")
        }
        last_us = max(row["last_us"] for row in rows if "last_us" in row)
        return {**stored, **told, "live": any(row.get("live") for row in rows), "last_us": last_us}

    @property
    def whole_gpus(self) -> list[GpuId]:
        """Every GPU that is no slice, the cards that only their slices tell of included."""
        return sorted((self.inventory.keys() | self.slices_of.keys()) - self._cards.keys())

    @cached_property
    def _cards(self) -> dict[GpuId, GpuId]:
        """Slice -> card. What a slice names as its card may call itself a slice: the last one of
        that chain is the card. Where there is no last one, all of them are whole GPUs: each is paid
        for, rather than parts of them by nobody."""
        parents = {
            gpu: row["parent_uuid"] for gpu, row in self.inventory.items() if row.get("parent_uuid")
        }
        cards = {}
        for gpu in parents:
            chain = [gpu]
            while (parent := parents.get(chain[-1])) is not None and parent not in chain:
                chain.append(parent)
            if parent is None:
                cards[gpu] = chain[-1]
        return cards
