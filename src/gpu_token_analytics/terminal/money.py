"""In which currency a table shows money: at one rate, told once below it. JSON and CSV stay in USD.

The rate is the one that holds at the end of the range, or now where a command has none. `report
--currency` has each hour at its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from gpu_token_analytics.sentences import with_unit
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from gpu_token_analytics.costs.desk import Desk


def currency_code(text: str | None) -> str | None:
    """`eur` is EUR, USD is what is shown anyway: None."""
    code = None if text is None else text.upper()
    return None if code == "USD" else code


CurrencyOption = Annotated[
    str | None,
    typer.Option(
        "--currency",
        metavar="CODE",
        callback=currency_code,
        help="Tables in this one (`gpu-tokens rates`); JSON and CSV stay in USD.",
    ),
]
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Shown:
    """Writes nano-USD and rates in USD for people, in `code`."""

    code: str = "USD"
    units_per_usd: Decimal = Decimal(1)
    valid_from: datetime | None = None  # of the rate
    convert: Callable[[int], int] = int  # nano-USD to billionths of a unit
    changed: bool = False  # the rate, within the range

    def amount(self, nusd: int | None) -> str:
        """Money; `-` where it is not known."""
        return cli.dollars(None if nusd is None else self.convert(nusd))

    def worded(self, nusd: int) -> str:
        """Money within a sentence, with its currency."""
        return with_unit(self.convert(nusd), self.code)

    def ratio(self, usd: float | None, places: int = 3) -> str:
        """A rate in USD, such as that of a million tokens; `-` where it is not known."""
        return "-" if usd is None else f"{usd * float(self.units_per_usd):,.{places}f}"

    def per(self, unit: str) -> str:
        """`$/h`, as a heading."""
        return f"{'$' if self.valid_from is None else self.code}/{unit}"

    def notes(self) -> list[str]:
        """What to say below a table: nothing in USD."""
        if self.valid_from is None:
            return []
        always = self.valid_from.timestamp() <= 0
        since = "for all the history" if always else f"since {cli.instant(self.valid_from)}"
        said = f"in {self.code} at 1 USD = {self.units_per_usd} {self.code}, {since}"
        if not self.changed:
            return [said]
        return [
            f"{said}; the rate changed within this range: `gpu-tokens report --currency "
            f"{self.code}` has each hour at its own"
        ]


USD = Shown()


def shown_in(
    desk: Desk, currency: str | None, start: datetime | None = None, end: datetime | None = None
) -> Shown:
    """How a table of [start, end), else of now, shows money. None: USD. Raises Refused where no
    rate holds."""
    from gpu_token_analytics.costs.row_rates import rate_at

    if currency is None or currency == USD.code:
        return USD
    at = desk.now() if end is None else end - _MOMENT
    rate = rate_at(desk.rates.book(currency), currency, at)
    changed = start is not None and start < rate.valid_from
    return Shown(currency, rate.units_per_usd, rate.valid_from, rate.convert, changed)
