"""/v1/events: the door for engines without a Kafka client."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count


class EventOutcome(Answer):
    """What became of one record that was not accepted."""

    index: Annotated[Count, Meta(description="Position in the request, from 0.")]
    status: Literal["invalid", "forbidden", "not_acknowledged"]
    event_id: str | None
    reason: Annotated[
        str,
        Meta(
            description="A dead-letter reason, `unknown_field`, `tenant` or `delivery`.",
            examples=["out_of_range"],
        ),
    ]
    field: str | None
    message: str


class EventWarning(Answer):
    """A field of an accepted record that its contract does not know: it was left out. `strict=true`
    refuses such records."""

    index: Annotated[Count, Meta(description="Position in the request, from 0.")]
    field: Annotated[str, Meta(examples=["tennant"])]
    message: str


class EventsResponse(Answer):
    """Kafka has acknowledged the accepted records. Sending one again is harmless (same
    event_id)."""

    accepted: Count
    rejected: Count
    errors: Annotated[list[EventOutcome], Meta(description="At most 1,000; `rejected` counts all.")]
    warnings: Annotated[
        list[EventWarning], Meta(description="About accepted records; at most 1,000.")
    ]
