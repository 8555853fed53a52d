"""/v1/events: the door for engines without a Kafka client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gpu_token_analytics.api.models.base import Count, Model


class EventOutcome(Model):
    """What became of one record that was not accepted."""

    index: Count = Field(description="Position in the request, from 0.")
    status: Literal["invalid", "forbidden", "not_acknowledged"]
    event_id: str | None
    reason: str = Field(description="A dead-letter reason, `unknown_field`, `tenant` or `delivery`.", examples=["out_of_range"])
    field: str | None
    message: str


class EventWarning(Model):
    """A field of an accepted record that its contract does not know: it was left out. `strict=true` refuses such records."""

    index: Count = Field(description="Position in the request, from 0.")
    field: str = Field(examples=["tennant"])
    message: str


class EventsResponse(Model):
    """Kafka has acknowledged the accepted records. Sending one again is harmless (same event_id)."""

    accepted: Count
    rejected: Count
    errors: list[EventOutcome] = Field(description="At most 1,000; `rejected` counts all.")
    warnings: list[EventWarning] = Field(description="About accepted records; at most 1,000.")
