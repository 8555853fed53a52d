"""/v1/declarations: GPUs that operators declared, and names that requests gave to GPUs nobody told
of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count


class Declaration(Answer):
    """A GPU as it is declared."""

    gpu: str
    host: str
    name: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    declared_at: datetime
    source: Annotated[str, Meta(examples=["api"])]
    withdrawn: bool
    pending: Annotated[
        bool, Meta(description="Its cells are not all marked for recomputation yet.")
    ]


class UnknownGpu(Answer):
    """A name that requests gave to a GPU that nobody sampled or declared: their money is
    unknown."""

    name: str
    tenant: Annotated[str, Meta(description="The tenant that named it first.")]
    first_named_at: datetime
    may_be: Annotated[
        list[str],
        Meta(
            description=(
                "Known GPUs of which it may be another spelling: two or more, so none is guessed."
            )
        ),
    ]


class DeclarationsResponse(Answer):
    """What is known without samples, and what is not known."""

    declarations: list[Declaration]
    unknown_count: Annotated[
        Count,
        Meta(
            description="Names of GPUs that nobody sampled or declared; at most 10,000 are counted."
        ),
    ]
    unknown: Annotated[list[UnknownGpu], Meta(description="The first of them.")]
