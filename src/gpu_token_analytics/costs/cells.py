"""Minutes that no rollup holds: sums of single cells, as coarse as the query allows before they are
grouped.

A cell has few lines, but its warm idle money is shared among everybody attributed on its GPU in
that hour. So cells are summed within a UTC hour and a bucket first, and the shares of all cells of
a GPU are made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import add
from typing import TypeAlias

from gpu_token_analytics.costs.query import FLEET, WARM_IDLE, CostQuery, Piece, Place, settled
from gpu_token_analytics.ledger.document import SUMMED_FIELDS, CellDocument, projection
from gpu_token_analytics.rollups.documents import cell_version
from gpu_token_analytics.rollups.spans import HOUR, Span, floor
from gpu_token_analytics.rollups.sums import cell_lines, cell_space, price_mode
from gpu_token_analytics.rollups.vectors import ZERO_SPACE, add_into, add_warm
from gpu_token_analytics.rollups.warm import WarmShares

SharesOfHour: TypeAlias = Callable[[datetime], Mapping[str, WarmShares]]
CELL_FIELDS = projection((*SUMMED_FIELDS, "revision"))


@dataclass(slots=True)
class _Sum:
    """Cells of one place."""

    space: list[int] = field(default_factory=lambda: list(ZERO_SPACE))
    lines: dict[tuple[str | None, str | None], list[int]] = field(default_factory=dict)
    # by GPU: of each cell that has some
    warm_nusd: dict[str, list[int]] = field(default_factory=dict)
    state: int = 0  # grows with any change: of a cell the revision does, and when it turns final


def cell_pieces(
    query: CostQuery, span: Span, cells: Iterable[CellDocument], shares: SharesOfHour, now: datetime
) -> Iterator[Piece]:
    """Pieces of the cells of a span, which come in order of time. shares: of each GPU in the UTC
    hour that starts then."""
    cuts = _slices(query, span)
    start, end = next(cuts)
    places: dict[Place, _Sum] = {}
    detail, by_place = query.detail, query.by_place
    for cell in cells:
        while cell["minute"] >= end:
            yield from _close(start, places, detail, shares)
            (start, end), places = next(cuts), {}
        at = (cell["gpu"], cell["host"], cell["gpu_name"], price_mode(cell)) if by_place else FLEET
        summed = places.get(at)
        if summed is None:
            summed = places[at] = _Sum()
        summed.space = list(
            map(add, summed.space, settled(cell_space(cell), cell.get("final_at"), now))
        )
        summed.state += cell_version(cell)
        for (model, tenant), vector in cell_lines(cell):
            add_into(summed.lines, _line_key(detail, model, tenant), vector)
        warm_nusd = cell["classes"][WARM_IDLE]
        if warm_nusd:
            summed.warm_nusd.setdefault(cell["gpu"], []).append(warm_nusd)
    yield from _close(start, places, detail, shares)


def _slices(query: CostQuery, span: Span) -> Iterator[tuple[datetime, datetime]]:
    """The span cut at the borders of buckets, of UTC hours, and where the books say something
    new."""
    for start, end in query.slices(span.start, span.end):
        at = start
        while at < end:
            until = min(end, floor(at, HOUR) + HOUR)
            yield at, until
            at = until


def _close(
    start: datetime, places: Mapping[Place, _Sum], detail: str, shares: SharesOfHour
) -> Iterator[Piece]:
    """The pieces of one slice, which begins at `start`, with the shares of warm idle money where
    lines tell whose."""
    of_gpu = shares(floor(start, HOUR)) if places and detail != "total" else {}
    for at, summed in places.items():
        for gpu, amounts_nusd in summed.warm_nusd.items():
            if gpu in of_gpu:
                for (model, tenant), nusd in of_gpu[gpu].of_all(
                    amounts_nusd, by_tenant=detail != "by_model"
                ):
                    add_warm(summed.lines, _line_key(detail, model, tenant), nusd)
        lines = [(*key, vector) for key, vector in summed.lines.items()]
        yield Piece(start, at, summed.space, lines, summed.state)


def _line_key(detail: str, model: str, tenant: str | None) -> tuple[str | None, str | None]:
    """By what lines are summed: no finer than the query can tell apart."""
    if detail == "lines":
        return model, tenant or None
    if detail == "by_tenant":
        return None, tenant or None
    return (model, None) if detail == "by_model" else (None, None)
