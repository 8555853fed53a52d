"""What closing knows of a minute once it is computed: the content of its cell, and what is told of
it besides."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, NanoUsd
from gpu_token_analytics.ledger.changes import Carried
from gpu_token_analytics.ledger.document import CellFields, CellPrice, LedgerLine
from gpu_token_analytics.ledger.inputs import CardShare
from gpu_token_analytics.ledger.parts import RequestShare
from gpu_token_analytics.ledger.prices import PricePiece


@dataclass(frozen=True)
class CellContent:
    """What the ledger says about one cell. `sum(classes.values()) == cost_nusd`,
    `sum(class_us.values()) == owned_us`."""

    start_us: int
    cost_nusd: NanoUsd
    owned_us: int
    classes: dict[str, NanoUsd]
    class_us: dict[str, int]
    memory_unknown_us: int  # of warm and cold idle: classed without a reading of the memory
    energy_mj: int | None
    energy_observed_us: int
    lines: list[LedgerLine]
    samples: int
    requests_active: int
    shares: list[RequestShare] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class ComputedCell:
    """A cell's content and what identifies it besides."""

    gpu: GpuId
    content: CellContent
    host: str | None
    gpu_name: str | None
    card: GpuId | None  # the card of a MIG slice
    share: CardShare | None  # MIG: the part of the card's money that is this GPU's
    prices: Sequence[PricePiece]  # none where its GPU is not known
    known: bool
    silent: bool  # no sample in the minute and no request active in it
    # the samples' own price at the end of the minute, carried on to the next sample
    own_price: NanoUsd | None
    # what the first sample ever says of the time before it, where it is in this minute
    first_named: Carried | None
    last_end_us: int  # the last instant of the requests that end in the minute; -1: none does
    # a sample of a card says another price than was in force before the minute, or is the first
    # ever
    reprices_slices: bool
    # `_id` of the events behind content.shares[].request; empty without shares
    request_ids: Sequence[bytes]

    @property
    def carried(self) -> Carried:
        """What the minute's newest sample says of the minutes up to the next one."""
        return self.host, self.gpu_name, self.own_price

    def fields(self) -> CellFields:
        """What a cell document says of events, prices and parameters."""
        content = self.content
        return {
            "cost_nusd": content.cost_nusd,
            "owned_us": content.owned_us,
            "classes": content.classes,
            "class_us": content.class_us,
            "memory_unknown_us": content.memory_unknown_us,
            "energy_mj": content.energy_mj,
            "energy_observed_us": content.energy_observed_us,
            "lines": content.lines,
            "samples": content.samples,
            "requests_active": content.requests_active,
            "host": self.host,
            "gpu_name": self.gpu_name,
            "card": self.card,
            "price": self._price(),
            "default_price": any(piece.is_default for piece in self.prices),
            "price_rows": sorted({piece.row for piece in self.prices}),
            "silent": self.silent,
            "own_price": self.own_price,
        }

    def _price(self) -> CellPrice | None:
        if not self.prices:
            return None
        first = self.prices[0]
        return {"row": first.row, "nusd_per_hour": first.nusd_per_hour, "mode": first.mode.value}


@dataclass(frozen=True)
class ComputedRun:
    """The cells of one GPU at the minutes of one run, and what its events tell of the minutes
    around them."""

    gpu: GpuId
    cells: Sequence[ComputedCell]
    # minutes with evidence, ascending: all from the first cell to the last, and some around them
    heard_us: Sequence[int]
    samples_us: Sequence[int] = ()  # times of its samples, ascending: likewise
    on_two_hosts: bool = False  # its samples are of two cards (shared.py)

    @property
    def start_us(self) -> int:
        """The first minute."""
        return self.cells[0].content.start_us

    @property
    def last_us(self) -> int:
        """The last minute."""
        return self.cells[-1].content.start_us

    def heard_before(self, minute_us: int) -> int | None:
        """The last minute with evidence before one of its minutes; None: its events do not tell."""
        index = bisect_left(self.heard_us, minute_us) - 1
        if index < 0:
            return None
        heard = self.heard_us[index]
        return heard if heard >= self.start_us or heard == minute_us - US_PER_MINUTE else None

    def heard_after(self, minute_us: int) -> int | None:
        """The first minute with evidence after one of its minutes; None: its events do not tell."""
        index = bisect_right(self.heard_us, minute_us)
        if index == len(self.heard_us):
            return None
        heard = self.heard_us[index]
        return heard if heard <= self.last_us or heard == minute_us + US_PER_MINUTE else None
