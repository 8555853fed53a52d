"""Which cells a request can change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """The cells that a request can change: of each of its GPUs, all minutes that [start, end)
    meets."""

    names: tuple[str, ...]  # UUIDs or labels
    start_us: int
    end_us: int
    ended_us: int  # when the request ended: what its labels mean
