"""Lines of sums that stand in chunks, read by ranges of their names: a page of rows reads those in
which its groups are, whatever the hour holds besides."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpu_token_analytics.cells.line_chunks import LineChunks
from gpu_token_analytics.costs.query import Line, Names, Order, Stretch
from gpu_token_analytics.rollups.packed import line_count, names_at, only_of, part_of, unpack
from gpu_token_analytics.rollups.vectors import lines_less

Packed = Mapping[str, Any]


class StoredLines:
    """The lines of one section: packed in its document, or in chunks that it refers to."""

    def __init__(self, chunks: LineChunks, section: Packed) -> None:
        self._chunks = chunks
        self._section = section
        first = section["ref"]["first"] if "ref" in section else _first_of(section)
        self.starts: Sequence[Order] = [_order(names) for names in first]

    def between(
        self, low: Order | None, high: Order | None, models: Names, tenants: Names
    ) -> Iterator[Line]:
        """See Stretch."""
        begin = 0 if low is None else max(0, bisect_right(self.starts, low) - 1)
        end = len(self.starts) if high is None else bisect_left(self.starts, high)
        for first, last in self._runs(begin, end, models):
            for at, piece in enumerate(self._read(first, last), first):
                yield from unpack(only_of(self._inside(at, piece, low, high), tenants))

    def _runs(self, begin: int, end: int, models: Names) -> Iterator[tuple[int, int]]:
        """The chunks of [begin, end) that can hold one of these models, as ranges."""
        if not models or begin >= end or "model" not in self._names:
            yield begin, end
            return
        wanted = sorted(models)
        run: int | None = None
        for at in range(begin, end):
            here = bisect_left(wanted, self.starts[at][0][1])
            upto = self.starts[at + 1][0][1] if at + 1 < len(self.starts) else None
            holds = here < len(wanted) and (upto is None or wanted[here] <= upto)
            if holds and run is None:
                run = at
            elif not holds and run is not None:
                yield run, at
                run = None
        if run is not None:
            yield run, end

    @property
    def _names(self) -> Packed:
        """What names its lines have, as keys."""
        first: Packed = (
            self._section["ref"]["first"][0] if "ref" in self._section else self._section
        )
        return first

    def _read(self, first: int, last: int) -> Iterable[Packed]:
        if "ref" in self._section:
            return self._chunks.read_some(self._section["ref"], first, last)
        return [self._section][first:last]

    def _inside(self, at: int, piece: Packed, low: Order | None, high: Order | None) -> Packed:
        """The lines of the piece that are in [low, high)."""
        begin, end = 0, line_count(piece)
        if low is not None and self.starts[at] < low:
            begin = _place(piece, low)
        if high is not None and (at + 1 == len(self.starts) or self.starts[at + 1] > high):
            end = _place(piece, high)
        return piece if (begin, end) == (0, line_count(piece)) else part_of(piece, begin, end)


class Difference:
    """The lines of a whole less those of a part of it: of the first half of an hour."""

    def __init__(self, whole: Stretch, part: Stretch) -> None:
        self._whole, self._part = whole, part

    @property
    def starts(self) -> Sequence[Order]:
        """See Stretch."""
        return self._whole.starts

    def between(
        self, low: Order | None, high: Order | None, models: Names, tenants: Names
    ) -> Iterable[Line]:
        """See Stretch."""
        return lines_less(
            self._whole.between(low, high, models, tenants),
            self._part.between(low, high, models, tenants),
        )


def _first_of(section: Packed) -> list[dict[str, str]]:
    return [names_at(section, 0)] if line_count(section) else []


def _order(names: Mapping[str, str]) -> Order:
    """Where a line with these names is in the order of rows."""
    model = ((False, names["model"]),) if "model" in names else ()
    tenant = ((not names["tenant"], names["tenant"]),) if "tenant" in names else ()
    return (*model, *tenant)


def _place(piece: Packed, at: Order) -> int:
    """How many lines of a piece come before `at`."""
    return bisect_left(
        range(line_count(piece)), at, key=lambda index: _order(names_at(piece, index))
    )
