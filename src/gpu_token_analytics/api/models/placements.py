"""/v1/placements: on which GPUs serving instances run, append-only and effective-dated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from gpu_token_analytics.api.models.base import Model, Page
from gpu_token_analytics.wire.fields import MAX_GPUS

GpuName = Annotated[str, Field(min_length=1, max_length=128)]


class NewPlacement(Model):
    """A row to append. Nothing is ever edited: a row with a later valid_from takes over."""

    instance: str = Field(
        min_length=1,
        max_length=2048,
        description="A URL or host:port, namespace/pod, service.name@host, or service.name, as the source names it.",
        examples=["http://node1:8000/v1"],
    )
    gpus: list[GpuName] = Field(
        max_length=MAX_GPUS,
        description="GPU UUIDs, or host/index for all; empty: from then on it is not known where the instance runs.",
        examples=[["GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"]],
    )
    host: str | None = Field(
        default=None, min_length=1, max_length=128, description="Where it runs; left out: as the GPUs or the source say."
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=256, description="What it serves, for sources that do not say."
    )
    counted_by: Literal["any", "engine"] = Field(
        default="any", description="`engine`: it tells of every request itself, so what clients tell of it is left out."
    )
    valid_from: AwareDatetime = Field(description="RFC 3339; may lie in the past.", examples=["2026-01-01T00:00:00Z"])
    valid_to: AwareDatetime | None = Field(default=None, description="Exclusive; null: until another row takes over.")


class Placement(Model):
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
    source: str = Field(examples=["api"])


class UnplacedInstance(Model):
    """An instance whose requests were stored without GPUs: their tokens are kept, their money is null."""

    instance: str
    tenant: str = Field(description="The tenant of the first such request.")
    first_named_at: datetime
    placed: bool = Field(description="A row in force names its GPUs by now: this is about older requests.")


class PlacementsResponse(Page):
    """Rows, newest valid_from first."""

    placements: list[Placement]
    unplaced: list[UnplacedInstance] = Field(description="Instances whose GPUs were unknown, the first 100.")


class AppendedPlacements(Model):
    """What became of the rows."""

    appended: list[Placement]
    unchanged: int = Field(ge=0, description="Rows that say what was said last of their instance from that time on.")
