"""/v1/declarations: GPUs that operators declared, and names that requests gave to GPUs nobody told of."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, Field

from gpu_token_analytics.api.models.base import Count, Model
from gpu_token_analytics.api.models.prices import PriceText

_GPU = "GPU id as requests name it: a UUID, or host/index."


class NewDeclaration(Model):
    """A GPU that sends no samples, and is paid for: its requests get money. Declared again, the new one replaces the old."""

    gpu: str = Field(min_length=1, max_length=256, description=_GPU, examples=["GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"])
    host: str = Field(min_length=1, max_length=256, description="Where it is: prices of hosts and reports by host use it.")
    name: str | None = Field(
        default=None, min_length=1, max_length=256, description="GPU name, as price rows have it.", examples=["NVIDIA H200"]
    )
    usd_per_hour: PriceText | None = Field(
        default=None, description="Also append a price row for this GPU and this time; else the price book decides."
    )
    valid_from: AwareDatetime | None = Field(default=None, description="First minute; null: since ever.")
    valid_to: AwareDatetime | None = Field(default=None, description="Exclusive; null: until it is retired.")


class Retirement(Model):
    """The end of a declared GPU."""

    gpu: str = Field(min_length=1, max_length=256, description=_GPU)
    valid_to: AwareDatetime = Field(description="From this minute on it is not known any more.")


class Withdrawal(Model):
    """A declaration that was a mistake: the GPU is unknown again, for all time."""

    gpu: str = Field(min_length=1, max_length=256, description=_GPU)


class Declaration(Model):
    """A GPU as it is declared."""

    gpu: str
    host: str
    name: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    declared_at: datetime
    source: str = Field(examples=["api"])
    withdrawn: bool
    pending: bool = Field(description="Its cells are not all marked for recomputation yet.")


class UnknownGpu(Model):
    """A name that requests gave to a GPU that nobody sampled or declared: their money is unknown."""

    name: str
    tenant: str = Field(description="The tenant that named it first.")
    first_named_at: datetime
    may_be: list[str] = Field(description="Known GPUs of which it may be another spelling: two or more, so none is guessed.")


class DeclarationsResponse(Model):
    """What is known without samples, and what is not known."""

    declarations: list[Declaration]
    unknown_count: Count = Field(description="Names of GPUs that nobody sampled or declared; at most 10,000 are counted.")
    unknown: list[UnknownGpu] = Field(description="The first of them.")
