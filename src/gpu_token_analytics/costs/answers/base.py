"""What all answers share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field


class Answer(Struct, forbid_unknown_fields=True):
    """Closed both ways: a field that is not declared is neither taken nor given. JSON has the
    fields in this order."""


class Part(Struct, gc=False, forbid_unknown_fields=True):
    """A part of a long answer, of which there are thousands: made by position, fast."""


NanoUsd: TypeAlias = Annotated[
    int, Meta(description="Nano-USD: 1,000,000,000 is one dollar.", examples=[23_236_074])
]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1, description="0 to 1.")]
# A time with the offset of the zone that was asked for: also in UTC `+00:00`.
LocalTime: TypeAlias = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Start: TypeAlias = Annotated[
    datetime, Meta(description="Start, inclusive.", examples=["2026-01-31T00:00:00Z"])
]
End: TypeAlias = Annotated[
    datetime, Meta(description="End, exclusive.", examples=["2026-02-01T00:00:00Z"])
]
Pieces: TypeAlias = Annotated[
    list[str | int],
    Meta(
        description=(
            "The same sentence in pieces, for readers that show another currency: text, and "
            "amounts as integer nano-USD."
        ),
        examples=[["tenant search cost ", 9_000_000_000, " on 2026-01-30."]],
    ),
]
Next: TypeAlias = Annotated[
    str | None,
    Meta(
        description="Give this as `cursor` to get the next page; null on the last one.",
        examples=[None],
        extra={"default": None},
    ),
]
Json: TypeAlias = dict[str, Any]


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC, with `Z`: how answers write times."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


__all__ = [
    "Answer",
    "Count",
    "End",
    "Json",
    "LocalTime",
    "NanoUsd",
    "Next",
    "Part",
    "Pieces",
    "Share",
    "Start",
    "field",
    "timestamp",
]
