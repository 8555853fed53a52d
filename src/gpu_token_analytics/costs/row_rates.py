"""The exchange rates of rows: which holds, and the money of a row by class in another currency."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gpu_token_analytics.books.rates import Converted, Rate, RateBook
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import FIRST
from gpu_token_analytics.costs.query import COLUMN_OF_CLASS, CostQuery, Row
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import Step

USD = "USD"
CLASS_COLUMNS = tuple(COLUMN_OF_CLASS.values())  # in the order of ConvertedMoney


def rate_at(book: RateBook, currency: str, at: datetime) -> Rate:
    """The rate that holds then; a USD is one USD. Raises Refused: none was said."""
    if currency == USD:
        return Rate(Decimal(1), FIRST)
    rate = book.rate_of(currency, at)
    if rate is None:
        said = (
            f"currency={currency}: there is no rate of it at {at:%Y-%m-%dT%H:%MZ}; append one: "
            f"`gpu-tokens rates add {currency} UNITS_PER_USD --from TIME`"
        )
        raise Refused("invalid_parameter", said, "currency")
    return rate


def classes_in(rate: Rate, row: Row) -> list[int]:
    """The money of a row by class, in billionths of a unit."""
    return [rate.convert(row[name]) for name in CLASS_COLUMNS]


@dataclass(frozen=True)
class RowRates:
    """The rates of a file: each row has that of its start."""

    currency: str
    book: RateBook

    @staticmethod
    def over(desk: Desk, currency: str | None, query: CostQuery) -> RowRates | None:
        """Those of a query's rows; None: USD. Raises Refused for rows longer than an hour, or
        without a rate at the start."""
        if currency is None or currency == USD:
            return None
        if query.step not in (Step.HOUR, Step.MINUTE):
            raise Refused(
                "invalid_parameter",
                f"a file in {currency} has a rate for each row: give bucket=1h or 1m",
                "currency",
            )
        book = desk.rates.book(currency)
        rate_at(book, currency, query.start)
        return RowRates(currency, book)

    def of(self, row: Row) -> Rate:
        """The rate of a row."""
        return rate_at(self.book, self.currency, row.start)

    def total_of(self, row: Row) -> Converted:
        """All money of a row."""
        rate = self.of(row)
        return Converted(
            self.currency, sum(classes_in(rate, row)), rate.units_per_usd, rate.valid_from
        )
