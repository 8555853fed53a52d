"""/v1/placements: on which GPUs serving instances run, append-only and effective-dated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Next


class Placement(Answer):
    """A stored row, with names in their one spelling."""

    id: str
    instance: str
    gpus: list[str]
    host: str | None
    model: str | None
    counted_by: str
    valid_from: datetime
    valid_to: datetime | None
    created_at: datetime
    source: Annotated[str, Meta(examples=["api"])]


class UnplacedInstance(Answer):
    """An instance whose requests were stored without GPUs: their tokens are kept, their money is
    null."""

    instance: str
    tenant: Annotated[str, Meta(description="The tenant of the first such request.")]
    first_named_at: datetime
    placed: Annotated[
        bool,
        Meta(description="A row in force names its GPUs by now: this is about older requests."),
    ]


class PlacementsResponse(Answer):
    """Rows, newest valid_from first."""

    placements: list[Placement]
    unplaced: Annotated[
        list[UnplacedInstance],
        Meta(description="Instances whose GPUs were unknown, the first 100."),
    ]
    next: Next


class AppendedPlacements(Answer):
    """What became of the rows."""

    appended: list[Placement]
    unchanged: Annotated[
        int,
        Meta(
            ge=0,
            description="Rows that say what was said last of their instance from that time on.",
        ),
    ]
