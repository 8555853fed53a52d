"""What a USD is worth in other currencies, and since when: append-only, effective-dated, as prices
are.

    {_id, currency (ISO 4217), units_per_usd (decimal text), valid_from, created_at, source}

A row begins on a whole UTC hour and holds until the next one of its currency. The ledger stays in
nano-USD; nothing stored depends on a rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from gpu_token_analytics.books.dated import DatedBook, DatedStore
from gpu_token_analytics.documents import Collection


class Rate(NamedTuple):
    """What holds at a time."""

    units_per_usd: Decimal
    valid_from: datetime

    def convert(self, nusd: int) -> int:
        """Nano-USD as billionths of a unit, rounded half to even.

        In integers: a Decimal has 28 digits, so a large sum at a long rate would be rounded twice.
        """
        numerator, denominator = self.units_per_usd.as_integer_ratio()
        whole, rest = divmod(nusd * numerator, denominator)
        return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


class Converted(NamedTuple):
    """All money of a row in billionths of a currency, at a rate (None: it is USD)."""

    currency: str
    nano: int
    units_per_usd: Decimal | None = None
    valid_from: datetime | None = None


class RateBook(DatedBook[str]):
    """What a USD was worth at any time."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(rows, lambda row: str(row["currency"]))

    def rate_of(self, currency: str, at: datetime) -> Rate | None:
        """The rate of a currency then; None: none was said."""
        row = self.row_at(currency, at)
        return None if row is None else Rate(Decimal(row["units_per_usd"]), row["valid_from"])


class RateStore(DatedStore):
    """The stored rows. Raises StoreError."""

    collection = Collection.EXCHANGE_RATES

    def book(self, currency: str) -> RateBook:
        """The book of one currency now."""
        return RateBook(row for row in self.rows() if row["currency"] == currency)
