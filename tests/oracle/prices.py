"""Which price is in force, and the money of a time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tests.oracle.numbers import EPOCH, HOUR_US, Doc, as_nusd, as_us, round_half_up


@dataclass(frozen=True)
class Price:
    row: str
    nusd_per_hour: int
    mode: str
    energy_nusd_per_kwh: int


class Book:
    """Which price holds when: gpu > host > name > the sample's own > default; the row that began
    last, then written last."""

    def __init__(
        self, rows: list[Doc], gpu: str, host: str | None, name: str | None, samples: list[Doc]
    ) -> None:
        self._scopes = [("gpu", gpu), ("host", host), ("name", name)]
        self._rows = rows
        self._samples = samples

    def at(self, at_us: int) -> Price:
        for scope, key in self._scopes:
            row = self._latest(
                [row for row in self._rows if row["scope"] == scope and row["key"] == key], at_us
            )
            if row is not None:
                return row
        own = [doc.get("price_per_hour_usd") for doc in self._samples if doc["ts_us"] <= at_us]
        if own and own[-1] is not None:
            return Price("sample", as_nusd(own[-1]), "on_demand", 0)
        row = self._latest([row for row in self._rows if row["scope"] == "default"], at_us)
        return row or Price("none", 0, "on_demand", 0)

    def pieces(self, start_us: int, until_us: int) -> list[tuple[int, int, Price]]:
        """(from, to, price), neighbours that say the same joined."""
        cuts = {
            start_us,
            *(as_us(row["valid_from"]) for row in self._rows),
            *(doc["ts_us"] for doc in self._samples),
        }
        cuts |= {as_us(row["valid_to"]) for row in self._rows if row.get("valid_to") is not None}
        found: list[tuple[int, int, Price]] = []
        for at in sorted(cut for cut in cuts if start_us <= cut < until_us):
            price = self.at(at)
            if not found or found[-1][2] != price:
                found.append((at, until_us, price))
        return [
            (begin, found[i + 1][0] if i + 1 < len(found) else until_us, price)
            for i, (begin, _, price) in enumerate(found)
        ]

    @staticmethod
    def _latest(rows: list[Doc], at_us: int) -> Price | None:
        valid = [
            row
            for row in rows
            if as_us(row["valid_from"]) <= at_us
            and (row.get("valid_to") is None or at_us < as_us(row["valid_to"]))
        ]
        if not valid:
            return None
        row = max(
            valid, key=lambda row: (row["valid_from"], row.get("created_at") or EPOCH, row["_id"])
        )
        per_kwh = (
            float(row["usd_per_kwh"] or 0) * float(row.get("pue") or 1)
            if row.get("usd_per_kwh") is not None
            else 0.0
        )
        priced = row["mode"] == "owned"
        return Price(
            str(row["_id"]),
            as_nusd(row["usd_per_hour"]),
            row["mode"],
            round(per_kwh * 1e9) if priced else 0,
        )


def money_of(nusd_per_hour: int, begin: int, end: int) -> int:
    """R(end) - R(begin), R(t) = round(price x t)."""
    return round_half_up(Fraction(nusd_per_hour * end, HOUR_US)) - round_half_up(
        Fraction(nusd_per_hour * begin, HOUR_US)
    )
