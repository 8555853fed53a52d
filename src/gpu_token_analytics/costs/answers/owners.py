"""/v1/owners: who owns GPUs, hosts and models, what of theirs is idle, and idle money shared out
among teams."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, End, NanoUsd, Start, field
from gpu_token_analytics.costs.answers.costs import Seconds


class OwnerRow(Answer):
    """A stored row; it holds until the next one of its scope and key."""

    id: str
    scope: Annotated[str, Meta(description="model, gpu, host or default.", examples=["host"])]
    key: Annotated[str | None, Meta(description="Null: the default row.", examples=["node-1"])]
    team: Annotated[
        str | None,
        Meta(description="Null with `cost_centre` null: from then on this row names nobody."),
    ]
    cost_centre: str | None
    valid_from: datetime
    created_at: datetime
    source: Annotated[str, Meta(examples=["api"])]


class OwnersResponse(Answer):
    """Every row, newest valid_from first."""

    owners: list[OwnerRow]


class OwnerIdle(Answer):
    """What nobody used of an owner's models and GPUs while it owned them."""

    owner: Annotated[str | None, Meta(description="The owning team; null: none is named.")]
    cost_centre: str | None
    warm_idle_nusd: NanoUsd
    cold_idle_nusd: NanoUsd
    unobserved_nusd: NanoUsd
    idle_nusd: Annotated[NanoUsd, Meta(description="The three before.")]
    unmetered_work_nusd: Annotated[
        NanoUsd, Meta(description="Busy without a known request: not idle, never shared out.")
    ]
    gpu_seconds: Annotated[
        Seconds | None, Meta(description="Owned GPU time; null where only models are owned.")
    ]


class SharedIdle(Answer):
    """A team's part of the idle money, beside what its tenants used. Never a part of
    `attributed`."""

    team: Annotated[
        str | None,
        Meta(description="Null: nobody's - tenants of no team, or idle money that has no owner."),
    ]
    attributed_nusd: Annotated[
        NanoUsd, Meta(description="Of its tenants, as /v1/teams/costs has it.")
    ]
    shared_idle_nusd: Annotated[NanoUsd, Meta(description="Its part of the idle money by `rule`.")]
    with_shared_idle_nusd: Annotated[NanoUsd, Meta(description="Both together.")]


class SharedOut(Answer):
    """The idle money of the whole range, shared out among teams: exact, by the largest remainder,
    ties by name."""

    rule: Annotated[str, Meta(examples=["by_use"])]
    says: Annotated[str, Meta(description="The rule in a sentence.")]
    rows: list[SharedIdle]
    attributed_nusd: NanoUsd
    shared_idle_nusd: Annotated[NanoUsd, Meta(description="Of all rows: equals `idle_nusd`.")]


class IdleResponse(Answer):
    """Idle money by owner. The rows sum to that of /v1/costs, to the nano-dollar."""

    from_: Start = field(name="from")
    to: End
    rows: list[OwnerIdle]
    idle_nusd: Annotated[NanoUsd, Meta(description="Of all rows.")]
    unmetered_work_nusd: Annotated[NanoUsd, Meta(description="Of all rows.")]
    shared_out: Annotated[
        SharedOut | None, Meta(description="Null: sharing out was not asked for.")
    ]
