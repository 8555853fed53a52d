"""The one error shape: RFC 9457 problem details, media type application/problem+json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Closed both ways: a field that is not declared is neither taken nor given."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class FieldProblem(Model):
    """What is wrong with one field of the request."""

    field: str = Field(description="Query parameter, header or body field.", examples=["bucket"])
    message: str = Field(
        description="The rule it breaks.", examples=["bucket=5m is not one of none, 1m, 1h, 1d"]
    )


class Nearest(Model):
    """The nearest request that would be accepted, to be used as it is."""

    from_: str = Field(alias="from", examples=["2026-01-31T06:00:00Z"])
    to: str = Field(examples=["2026-01-31T12:00:00Z"])
    bucket: str = Field(examples=["1m"])


class Problem(Model):
    """An error. `code` is stable and meant for programs, `detail` for people: it names field, value
    and fix."""

    type: str = Field(examples=["urn:gpu-token-analytics:problem:range_too_long"])
    title: str = Field(examples=["The range is too long for this bucket"])
    status: int = Field(ge=400, le=599, examples=[400])
    code: str = Field(examples=["range_too_long"])
    detail: str = Field(examples=["bucket=1m spans 30 days; with 1m at most 6 hours are answered"])
    instance: str = Field(
        description="Id of this request, also in logs and `X-Request-Id`.", examples=["0197c9"]
    )
    errors: list[FieldProblem] = Field(default_factory=list)
    nearest: Nearest | None = Field(
        default=None, description="Only with range_too_long and range_too_fine."
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="More facts about this kind of error."
    )
