"""Records as they were read, and what is said of one that is no event: values, which nobody asks a
broker for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Message

NO_BROKER_TIME = -1


@dataclass(frozen=True, slots=True)
class Position:
    """The next offset to read of a partition, and the assignment (`epoch`) it was reached in."""

    offset: int
    epoch: int


@dataclass(slots=True)
class RecordBatch:
    """Records as columns: one list per field, the same index is the same record.

    `broker_ms` is the broker's clock when it took the record, NO_BROKER_TIME where the topic
    carries producers' clocks.
    """

    topic: str
    values: list[bytes | None] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    broker_ms: list[int] = field(default_factory=list)
    positions: dict[int, Position] = field(default_factory=dict)
    messages: Sequence[Message] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def key(self, index: int) -> bytes | None:
        """The key of one record."""
        return self.messages[index].key()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One bad record. (topic, partition, offset) is where it was read. `reason` is a `Reason`
    value.

    `cut_from_bytes` is the full length of a value that was too long to keep, else None.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    message: str
    field: str | None
    key: bytes | None
    value: bytes | None
    cut_from_bytes: int | None = None

    @property
    def at(self) -> str:
        """Where it was read, as the commands name it: `partition/offset`."""
        return f"{self.partition}/{self.offset}"
