"""A span, whatever it came in (https://opentelemetry.io/docs/specs/otel/trace/api/#span)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

# what an attribute can be; maps and bytes are None
Value: TypeAlias = "str | bool | int | float | list[Value] | None"
Attributes: TypeAlias = Mapping[str, Value]


class SpanKind(IntEnum):
    """The numbers of OTLP."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


@dataclass(frozen=True)
class Span:
    """One finished span. Ids are lower-case hexadecimal, times nanoseconds since 1970 (0: not
    given)."""

    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    parent_id: str = ""
    name: str = ""
    kind: int = SpanKind.UNSPECIFIED
    attributes: Attributes = field(default_factory=dict)
    resource: Attributes = field(default_factory=dict)  # of the process that made it
    trace_state: str = ""  # W3C tracestate
    is_error: bool = False

    @property
    def address(self) -> tuple[str, str]:
        """What it is called by its children."""
        return self.trace_id, self.span_id
