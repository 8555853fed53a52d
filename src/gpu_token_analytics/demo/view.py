"""The demo's figures in the terminal, all from the ledger.

tokens/s and spend now     the last whole minute
by model                   active $/M = attributed / tokens; loaded $/M = (attributed + its warm
                           idle) / tokens
the identity               attributed + unmetered work + idle by cause = price x time, to the
                           nano-dollar
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import NUSD_PER_USD, MoneyClass
from gpu_token_analytics.terminal.console import Column, FittedTable

_BAR_WIDTH = 60
_STYLE = {
    MoneyClass.ATTRIBUTED: "green",
    MoneyClass.UNMETERED_WORK: "magenta",
    MoneyClass.WARM_IDLE: "yellow",
    MoneyClass.COLD_IDLE: "blue",
    MoneyClass.UNOBSERVED: "bright_black",
}
_GLYPH = dict(zip(MoneyClass, "█▓▒░·", strict=True))


@dataclass(frozen=True)
class Figures:
    """What is shown, read at one moment."""

    start: datetime
    end: datetime
    total: Row
    models: list[Row]
    last_minute: Row
    low_volume_tokens: int

    @property
    def has_money(self) -> bool:
        """Whether there is anything to show yet."""
        return bool(self.total["cells"])


def read_figures(
    reads: CostReads, start: datetime, end: datetime, now: datetime, low_volume_tokens: int
) -> Figures:
    """The figures of [start, end), both whole minutes."""
    query = CostQuery(start, end, group_by=("model",))
    whole = now.replace(second=0, microsecond=0)
    return Figures(
        start,
        end,
        reads.total(query, now),
        [row for row in reads.rows(query, now) if row.key[0] is not None],
        reads.total(CostQuery(whole - timedelta(minutes=1), whole), now),
        low_volume_tokens,
    )


def classes_of(total: Row) -> dict[MoneyClass, int]:
    """The money of a total by class, in nano-USD."""
    return {
        MoneyClass.ATTRIBUTED: total["cost_nusd"],
        MoneyClass.UNMETERED_WORK: total["unmetered_work_nusd"],
        MoneyClass.WARM_IDLE: total["warm_idle_nusd"],
        MoneyClass.COLD_IDLE: total["cold_idle_nusd"],
        MoneyClass.UNOBSERVED: total["unobserved_nusd"],
    }


def render(figures: Figures, notes: list[str], dashboard: str = "") -> RenderableType:
    """Everything as one renderable. `dashboard`: the line with its address, which stands first and
    last."""
    address = [Text(dashboard, no_wrap=True)] if dashboard else []
    span = f"{figures.start:%Y-%m-%d %H:%M} to {figures.end:%H:%M} UTC"
    return Group(
        *address,
        Text(f"GPU Token Analytics   {span}", style="bold"),
        *(Text(note, style="dim") for note in notes),
        Text(""),
        _now(figures),
        Text(""),
        _models(figures),
        Text(""),
        _identity(figures),
        *address,
    )


def _now(figures: Figures) -> Text:
    last = figures.last_minute
    if not last["gpu_us"]:
        return Text("last whole minute: nothing yet")
    tokens = last["prompt_tokens"] + last["completion_tokens"]
    return Text(
        f"last whole minute: {tokens / 60:,.0f} tokens/s, {last['requests'] / 60:,.1f} requests/s, "
        f"{last.money_nusd * 60 / NUSD_PER_USD:,.2f} $/h"
    )


_COLUMNS = (
    Column("model", right=False),
    Column("requests", 4),
    Column("prompt", 3),
    Column("completion", 2),
    Column("$"),
    Column("active $/M"),
    Column("loaded $/M", 1),
    Column("J/token", 5),
)


def _models(figures: Figures) -> FittedTable:
    table = FittedTable("by model", _COLUMNS)
    for row in figures.models:
        table.add_row(
            str(row.key[0]),
            f"{row['requests']:,}",
            f"{row['prompt_tokens']:,}",
            f"{row['completion_tokens']:,}",
            f"{row['cost_nusd'] / NUSD_PER_USD:,.4f}",
            per_million(row.work_nusd, row.priced_tokens, figures.low_volume_tokens),
            per_million(row.loaded_nusd, row.priced_tokens, figures.low_volume_tokens),
            f"{row['energy_mj'] / 1000 / row['energy_tokens']:,.2f}"
            if row["energy_tokens"]
            else "-",
        )
    if not figures.models:
        table.add_row("(no request in the ledger yet)")
    return table


def per_million(money_nusd: int, tokens: int, low_volume_tokens: int) -> str:
    """$ per million tokens; `-` without tokens, marked `~` where they are few."""
    if not tokens:
        return "-"
    rate = money_nusd / NUSD_PER_USD / tokens * 1e6
    return f"{rate:,.3f}{'~' if tokens < low_volume_tokens else ''}"


def _identity(figures: Figures) -> Group:
    classes, money = classes_of(figures.total), figures.total.money_nusd
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for name, amount in classes.items():
        share = f"{amount / money:7.1%}" if money else "-"
        table.add_row(
            Text(f"{_GLYPH[name]} {name.value}", style=_STYLE[name]),
            f"{amount / NUSD_PER_USD:,.9f} $",
            share,
        )
    table.add_row(
        Text("= price x time", style="bold"),
        f"{money / NUSD_PER_USD:,.9f} $",
        "100.0%" if money else "-",
    )
    # in the table the bar made its first column wider than a terminal of 80 columns has room for
    return Group(table, _bar(classes, money))


def _bar(classes: dict[MoneyClass, int], money: int) -> Text:
    """One bar that always fills: each class's part of the money."""
    bar = Text(no_wrap=True, overflow="crop")
    done = drawn = 0
    for name, amount in classes.items():
        done += amount
        upto = round(_BAR_WIDTH * done / money) if money else 0
        bar.append(_GLYPH[name] * (upto - drawn), style=_STYLE[name])
        drawn = upto
    return bar
