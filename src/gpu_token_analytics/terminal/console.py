"""The terminal's doors: a console and tables in which text of others is text - no markup, no emoji codes, no controls."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpu_token_analytics.foreign_text import visible, visible_lines


def plain_console(**options: Any) -> Console:
    """A console that takes no markup from what it prints: `[/b]` is a name like any other."""
    return Console(highlight=False, markup=False, emoji=False, **options)


class PlainTable(Table):
    """A table whose cells are shown as they are, whoever named what is in them."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """As rich's, for texts of others."""
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: Any) -> Any:
    if isinstance(cell, str):
        return Text(visible(cell))
    if isinstance(cell, Text) and visible(cell.plain) != cell.plain:
        return Text(visible(cell.plain), cell.style)
    return cell


def plain_line(text: str) -> Text:
    """A line that quotes names of others, for console.print()."""
    return Text(visible_lines(text))
