"""What requests have in common with many others: few different labels, again and again, so a column
of them is coded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.ledger.arrays import numbered
from gpu_token_analytics.ledger.money import Int64
from gpu_token_analytics.ledger.shared import SharedUuids


class Labels(NamedTuple):
    """Of one request."""

    host: str
    gpus: tuple[str, ...]  # sorted and distinct; `host/index` where no UUID was named
    model: str
    tenant: str


class LabelTable(tuple[Labels, ...]):
    """Different labels, each at a place of its own; columns that are parts of one share it."""

    @cached_property
    def by_name(self) -> dict[str, list[int]]:
        """The places of those that name a GPU."""
        by_name: dict[str, list[int]] = {}
        for place, labels in enumerate(self):
            for name in labels.gpus:
                by_name.setdefault(name, []).append(place)
        return by_name


@dataclass(frozen=True)
class LabelColumn:
    """The labels of n requests."""

    table: LabelTable  # those that occur, possibly more; one may come twice
    codes: Int64  # which of `table` each request has; shape (n,)

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def of(labels: Iterable[Labels]) -> LabelColumn:
        """One for each request, in this order."""
        places: dict[Labels, int] = {}
        codes = [places.setdefault(of_one, len(places)) for of_one in labels]
        return LabelColumn(LabelTable(places), np.array(codes, dtype=np.int64))

    @staticmethod
    def joined(parts: Sequence[LabelColumn]) -> LabelColumn:
        """Those of all parts, in their order."""
        places: dict[Labels, int] = {}
        codes = [
            part.each(lambda labels: places.setdefault(labels, len(places)), np.int64)
            for part in parts
        ]
        return LabelColumn(LabelTable(places), np.concatenate(codes))

    def take(self, where: Int64) -> LabelColumn:
        """Those of the requests at these places. Shape of where: (m,)."""
        return LabelColumn(self.table, self.codes[where])

    def compact(self) -> LabelColumn:
        """The same without labels that do not occur."""
        present, codes = numbered(self.codes, len(self.table))
        return LabelColumn(LabelTable(self.table[code] for code in present.tolist()), codes)

    def of_cards(self, shared: SharedUuids) -> LabelColumn:
        """The same with the names of the cards that are meant by UUIDs that several have; in the
        order of what was named."""
        table = LabelTable(
            one._replace(gpus=tuple(dict.fromkeys(shared.card(gpu, one.host) for gpu in one.gpus)))
            for one in self.table
        )
        return LabelColumn(table, self.codes)

    def each(self, value: Callable[[Labels], Any], dtype: type[Any]) -> NDArray[Any]:
        """`value` of the labels of each request, asked once for all that share them. Shape (n,)."""
        return np.array([value(labels) for labels in self.table], dtype=dtype)[self.codes]

    def at(self, index: int) -> Labels:
        """Those of one request."""
        return self.table[int(self.codes[index])]

    def gpus(self) -> list[tuple[str, ...]]:
        """The GPUs of each request."""
        return [self.table[code].gpus for code in self.codes.tolist()]

    def named(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each request ran on a GPU that it called one of `names`. Shape (n,)."""
        wanted = np.zeros(len(self.table), dtype=bool)
        for name in names:
            wanted[self.table.by_name.get(name, [])] = True
        return wanted[self.codes]
