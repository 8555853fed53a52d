"""What all models share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Closed both ways: a field that is not declared is neither taken nor given."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


NanoUsd = Annotated[int, Field(description="Nano-USD: 1,000,000,000 is one dollar.", examples=[23_236_074])]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, description="0 to 1.")]


class Page(Model):
    """One page of a longer answer."""

    next: str | None = Field(
        default=None, description="Give this as `cursor` to get the next page; null on the last one.", examples=[None]
    )


class Ranged(Page):
    """An answer about the time [from, to)."""

    from_: datetime = Field(alias="from", description="Start, inclusive.", examples=["2026-01-31T00:00:00Z"])
    to: datetime = Field(description="End, exclusive.", examples=["2026-02-01T00:00:00Z"])


Json = dict[str, Any]
