"""The terminal's doors: a console and tables in which text of others is text - no markup, no emoji
codes, no controls.

terminal      as wide as it is; a FittedTable leaves its least needed columns out, a name is never
              cut
pipe, file    as wide as what is shown: every column, no line is broken
NO_COLOR      no escape code at all: no colour, no bold, nothing is drawn over
              (https://no-color.org)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from gpu_token_analytics.foreign_text import visible, visible_lines

_NO_LIMIT = 100_000  # columns: of a pipe or a file
_GAP = 1


def no_color() -> bool:
    """Whether the user asked for text without escape codes."""
    return bool(os.environ.get("NO_COLOR"))


def on_terminal() -> bool:
    """Whether a person reads standard output as it comes."""
    return sys.stdout.isatty()


def plain_console(**options: Any) -> Console:
    """A console that takes no markup from what it prints: `[/b]` is a name like any other."""
    if no_color():
        options = {"color_system": None, "force_terminal": False, **options}
    return Console(highlight=False, markup=False, emoji=False, **options)


def wide_console() -> Console:
    """Standard output for tables: on a terminal as wide as that, else without a limit."""
    return plain_console() if on_terminal() else plain_console(width=_NO_LIMIT)


class PlainTable(Table):
    """A table whose cells are shown as they are, whoever named what is in them."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """As rich's, for texts of others."""
        super().add_row(*map(_plain, cells), **options)


@dataclass(frozen=True)
class Column:
    """A column of a FittedTable. rank: 0 is always shown; of the others the highest goes first
    where there is no room."""

    heading: str
    rank: int = 0
    right: bool = True


class FittedTable:
    """A table with one line a row that shows what there is room for: whole columns, never parts of
    a cell."""

    def __init__(
        self, title: str, columns: Sequence[Column], *, wide: bool = False, empty: str = "none"
    ) -> None:
        """wide: every column, whatever the room is. empty: what stands there without a row."""
        self._title, self._columns, self._wide, self._empty = title, columns, wide, empty
        self._rows: list[tuple[list[Text], str | None]] = []

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        """One cell for each column."""
        assert len(cells) in (1, len(self._columns)), "a cell for each column, or a remark alone"
        texts = [Text(visible(cell)) if isinstance(cell, str) else _plain(cell) for cell in cells]
        self._rows.append((texts + [Text()] * (len(self._columns) - len(texts)), style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._rows:  # headings over nothing do not say whether that is all
            yield Text.assemble(plain_line(self._title), style="italic")
            yield plain_line(self._empty)
            return
        shown = self._shown(_NO_LIMIT if self._wide else options.max_width)
        made = PlainTable(header_style="bold", box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for index in shown:
            column = self._columns[index]
            made.add_column(
                plain_line(column.heading),
                justify="right" if column.right else "left",
                no_wrap=True,
                min_width=self._widths()[index],
            )
        for cells, style in self._rows:
            made.add_row(*(cells[index] for index in shown), style=style)
        yield Text.assemble(plain_line(self._title), style="italic")
        needed = sum(self._widths()[index] + _GAP for index in shown)
        yield from console.render(made, options.update(width=max(needed, options.max_width)))

    def _widths(self) -> list[int]:
        return [
            max((cell_len(column.heading), *(cells[index].cell_len for cells, _ in self._rows)))
            for index, column in enumerate(self._columns)
        ]

    def _shown(self, room: int) -> list[int]:
        widths = self._widths()
        places = [
            index for index, column in enumerate(self._columns) if not column.rank or widths[index]
        ]
        while sum(widths[index] + _GAP for index in places) - _GAP > room:
            least = max(places, key=lambda index: (self._columns[index].rank, index))
            if not self._columns[least].rank:
                break
            places.remove(least)
        return places


def _plain(cell: Any) -> Any:
    if isinstance(cell, str):
        return Text(visible(cell))
    if isinstance(cell, Text) and visible(cell.plain) != cell.plain:
        return Text(visible(cell.plain), cell.style)
    return cell


def plain_line(text: str) -> Text:
    """A line that quotes names of others, for console.print()."""
    return Text(visible_lines(text))
