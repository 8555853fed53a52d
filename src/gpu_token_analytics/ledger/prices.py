"""The price book: which price is in force for a GPU at a time.

Rows are effective-dated, half-open [valid_from, valid_to), never changed once written. The most
specific wins: gpu > host > gpu name > the sample's own price_per_hour_usd > default. Among rows of
one scope the one that took effect last wins, then the one written last. History keeps the price of
its day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpu_token_analytics.documents import NUSD_PER_USD, NanoUsd
from gpu_token_analytics.ledger.money import nusd_per_hour
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host, host_and_uuid
from gpu_token_analytics.wire.times import to_us

FOREVER_US = 2**62
MJ_PER_KWH = 3_600_000_000


class PriceScope(StrEnum):
    """What a price row is about; most specific first."""

    GPU = "gpu"
    HOST = "host"
    NAME = "name"
    DEFAULT = "default"


class PriceMode(StrEnum):
    """How the GPU is paid for. Energy has a price of its own only when it is owned."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"
    SPOT = "spot"
    OWNED = "owned"


SAMPLE_ROW = "sample"
NO_ROW = "none"


def canonical_key(scope: PriceScope, key: str | None) -> str | None:
    """What a row is about, in the spelling of cells."""
    if key is None:
        return None
    return {PriceScope.GPU: canonical_gpu, PriceScope.HOST: canonical_host}.get(scope, str)(key)


@dataclass(frozen=True)
class PriceRow:
    """One row of the price book. Prices in nano-USD per hour and, for owned GPUs, nano-USD per kWh
    times PUE."""

    row: str
    scope: PriceScope
    key: str | None
    nusd_per_hour: NanoUsd
    mode: PriceMode = PriceMode.ON_DEMAND
    energy_nusd_per_kwh: NanoUsd = 0
    from_us: int = 0
    to_us: int = FOREVER_US
    created_us: int = 0

    @staticmethod
    def of(document: Mapping[str, Any]) -> PriceRow:
        """The row in a document of the `prices` collection."""
        per_kwh = document.get("usd_per_kwh")
        owned = document["mode"] == PriceMode.OWNED
        energy = (
            0.0
            if per_kwh is None or not owned
            else float(per_kwh) * float(document.get("pue") or 1.0)
        )
        until = document.get("valid_to")
        created = document.get("created_at")
        return PriceRow(
            row=str(document["_id"]),
            scope=PriceScope(document["scope"]),
            key=canonical_key(PriceScope(document["scope"]), document.get("key")),
            nusd_per_hour=nusd_per_hour(document["usd_per_hour"]),
            mode=PriceMode(document["mode"]),
            energy_nusd_per_kwh=round(energy * NUSD_PER_USD),
            from_us=to_us(document["valid_from"]),
            to_us=FOREVER_US if until is None else to_us(until),
            created_us=0 if created is None else to_us(created),
        )


@dataclass(frozen=True)
class PricePiece:
    """A price that holds from `from_us` to the next piece."""

    from_us: int
    row: str
    nusd_per_hour: NanoUsd
    mode: PriceMode
    energy_nusd_per_kwh: NanoUsd = 0
    is_default: bool = False  # a row of scope `default`: nobody priced this GPU


class PriceBook:
    """All rows, ready to be asked."""

    def __init__(self, rows: Iterable[PriceRow]) -> None:
        self._rows: dict[tuple[PriceScope, str | None], list[PriceRow]] = {}
        for row in sorted(rows, key=lambda row: (row.from_us, row.created_us, row.row)):
            self._rows.setdefault((row.scope, row.key), []).append(row)
        # asked for each minute of a GPU; as many as there are GPUs
        self._found: dict[tuple[str, str | None, str | None], list[list[PriceRow]]] = {}

    def pieces(
        self,
        gpu: str,
        host: str | None,
        name: str | None,
        start_us: int,
        end_us: int,
        sample_prices: Iterable[tuple[int, NanoUsd | None]] = (),
    ) -> list[PricePiece]:
        """The prices in force over [start_us, end_us), in time order, the first from start_us;
        equal neighbours joined.

        sample_prices: (from_us, nano-USD per hour or None) as the GPU's own samples named them, in
        time order. Where no row and no sample has a price, the piece is `none` at 0: unpriced,
        which the audit reports.
        """
        samples = list(sample_prices)
        by_scope = self._by_scope(gpu, host, name)
        cuts = {start_us}
        cuts.update(
            at
            for rows in by_scope
            for row in rows
            for at in (row.from_us, row.to_us)
            if start_us < at < end_us
        )
        cuts.update(at for at, _ in samples if start_us < at < end_us)
        pieces: list[PricePiece] = []
        for at in sorted(cuts):
            piece = self._at(by_scope, samples, at)
            if not pieces or _terms(pieces[-1]) != _terms(piece):
                pieces.append(piece)
        return pieces

    def _by_scope(self, gpu: str, host: str | None, name: str | None) -> list[list[PriceRow]]:
        """The rows that can be about a GPU, most specific first; scopes without a row are left
        out."""
        asked = gpu, host, name
        found = self._found.get(asked)
        if found is None:
            keys = self._keys(gpu, host, name)
            found = self._found[asked] = [self._rows[key] for key in keys if key in self._rows]
        return found

    @staticmethod
    def _keys(gpu: str, host: str | None, name: str | None) -> list[tuple[PriceScope, str | None]]:
        pair = host_and_uuid(gpu)  # a row for a UUID holds for all cards that have it
        uuid = [] if pair is None else [(PriceScope.GPU, pair[1])]
        return [
            (PriceScope.GPU, gpu),
            *uuid,
            (PriceScope.HOST, host),
            (PriceScope.NAME, name),
            (PriceScope.DEFAULT, None),
        ]

    @staticmethod
    def _at(
        by_scope: list[list[PriceRow]], samples: list[tuple[int, NanoUsd | None]], at_us: int
    ) -> PricePiece:
        sampled = next((price for since, price in reversed(samples) if since <= at_us), None)
        for rows in by_scope:
            if rows[0].scope is PriceScope.DEFAULT and sampled is not None:
                break
            for row in reversed(rows):
                if row.from_us <= at_us < row.to_us:
                    default = row.scope is PriceScope.DEFAULT
                    return PricePiece(
                        at_us,
                        row.row,
                        row.nusd_per_hour,
                        row.mode,
                        row.energy_nusd_per_kwh,
                        default,
                    )
        if sampled is not None:
            return PricePiece(at_us, SAMPLE_ROW, sampled, PriceMode.ON_DEMAND)
        return PricePiece(at_us, NO_ROW, 0, PriceMode.ON_DEMAND)


def _terms(piece: PricePiece) -> tuple[str, int, str, int]:
    return piece.row, piece.nusd_per_hour, piece.mode, piece.energy_nusd_per_kwh
