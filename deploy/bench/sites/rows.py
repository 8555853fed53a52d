"""A row of the drill's table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """One row of the table; None is not measured in this row."""

    name: str
    acknowledged: int = 0
    lost: int = 0
    doubled_in_topic: int | None = None
    doubled_in_store: int = 0
    rpo: str = "-"
    mongodb_rto_seconds: float | None = None
    rto_seconds: float | None = None
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """As the table shows it."""
        seconds = [
            "-" if value is None else f"{value:.1f} s"
            for value in (self.mongodb_rto_seconds, self.rto_seconds)
        ]
        topic = "-" if self.doubled_in_topic is None else str(self.doubled_in_topic)
        numbers = [f"{self.acknowledged:,}", str(self.lost), topic, str(self.doubled_in_store)]
        return [self.name, *numbers, self.rpo, *seconds, "; ".join(self.notes)]


HEADER = (
    "row", "acknowledged", "lost", "doubled in B's topic", "doubled in store", "RPO",
    "RTO MongoDB", "RTO end to end", "notes",
)  # fmt: skip
