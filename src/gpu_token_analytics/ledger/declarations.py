"""Which GPUs an operator declared, and from when to when they are his: money begins at a GPU that
is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.prices import FOREVER_US
from gpu_token_analytics.wire.times import to_us


@dataclass(frozen=True)
class Declaration:
    """A GPU that is known in the whole minutes of [from_us, to_us) though it never sent a
    sample."""

    gpu: GpuId
    host: str
    name: str | None
    from_us: int
    to_us: int

    @staticmethod
    def of(document: Mapping[str, Any]) -> Declaration:
        """The declaration in a document of `inventory`."""
        begin, end = document.get("valid_from"), document.get("valid_to")
        return Declaration(
            document["gpu"],
            document["host"],
            document.get("name"),
            0 if begin is None else to_us(begin),
            FOREVER_US if end is None else to_us(end),
        )

    def covers(self, minute_us: int) -> bool:
        """Whether it holds in the minute that starts then: it begins and ends with whole
        minutes."""
        return self.from_us <= minute_us and minute_us + US_PER_MINUTE <= self.to_us
