"""Which serving instance runs on which GPUs at a time: what operators said of it, effective-dated.

An instance is what sources know of an engine: its URL, its pod, its service's name
(wire/instances.py). A row without GPUs says that from then on it is not known where the instance
runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpu_token_analytics.wire.instances import canonical_instance
from gpu_token_analytics.wire.times import to_us

FOREVER_US = 2**62


class CountedBy(StrEnum):
    """Whose word counts for the requests of an instance."""

    ANY = "any"  # the engine's, and where it does not tell of a request, the client's
    # the engine's alone: it tells of every request, so what clients tell of it is left out
    ENGINE = "engine"


@dataclass(frozen=True)
class InstancePlacement:
    """One row: `instance` ran on `gpus` in [from_us, to_us). Names are canonical."""

    instance: str
    gpus: tuple[str, ...]
    host: str | None
    model: str | None  # what it serves, for engines that do not say
    counted_by: CountedBy = CountedBy.ANY
    from_us: int = 0
    to_us: int = FOREVER_US
    created_us: int = 0
    row: str = ""

    @staticmethod
    def of(document: Mapping[str, Any]) -> InstancePlacement:
        """The row in a document of `placements`."""
        until = document["valid_to"]
        return InstancePlacement(
            document["instance"],
            tuple(document["gpus"]),
            document["host"],
            document["model"],
            CountedBy(document["counted_by"]),
            to_us(document["valid_from"]),
            FOREVER_US if until is None else to_us(until),
            to_us(document["created_at"]),
            str(document["_id"]),
        )


class InstanceBook:
    """All rows, ready to be asked."""

    def __init__(self, rows: Iterable[InstancePlacement] = ()) -> None:
        self._rows: dict[str, list[InstancePlacement]] = {}
        for row in sorted(rows, key=_order):
            self._rows.setdefault(row.instance, []).append(row)

    def add(self, row: InstancePlacement) -> None:
        """One row more."""
        rows = self._rows.setdefault(row.instance, [])
        rows.append(row)
        rows.sort(key=_order)

    def at(self, names: Sequence[str], at_us: int) -> InstancePlacement | None:
        """What is said of an instance at a time: of the first of its names of which anything is. Of
        several rows in force the one that took effect last, then the one written last."""
        for name in names:
            for row in reversed(self._rows.get(canonical_instance(name), ())):
                if row.from_us <= at_us < row.to_us:
                    return row
        return None


def _order(row: InstancePlacement) -> tuple[int, int, str]:
    return row.from_us, row.created_us, row.row
