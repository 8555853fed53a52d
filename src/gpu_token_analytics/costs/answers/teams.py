"""/v1/teams: which team a tenant belongs to, and what teams cost."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, End, NanoUsd, Start, field


class TeamRow(Answer):
    """A stored row; it holds until the tenant's next one."""

    id: str
    tenant: str
    team: Annotated[str | None, Meta(description="Null: from then on it belongs to none.")]
    valid_from: datetime
    created_at: datetime
    source: Annotated[str, Meta(examples=["api"])]


class TeamsResponse(Answer):
    """Every row, newest valid_from first."""

    teams: list[TeamRow]


class TeamCost(Answer):
    """What a team's tenants used while they belonged to it."""

    team: Annotated[str | None, Meta(description="Null: tenants of no team.")]
    tenants: Annotated[list[str], Meta(description="Those with usage in the range.")]
    attributed_nusd: Annotated[
        NanoUsd | None,
        Meta(description="Null: all of it ran on GPUs that nobody sampled or declared."),
    ]
    requests: Count
    tokens: Count
    unknown_gpu_tokens: Annotated[Count, Meta(description="Tokens whose money is unknown.")]


class TeamCostsResponse(Answer):
    """Attributed money by team. The rows sum to that of /v1/costs, to the nano-dollar; idle money
    is in none."""

    from_: Start = field(name="from")
    to: End
    rows: list[TeamCost]
    attributed_nusd: Annotated[
        NanoUsd | None, Meta(description="Of all rows; null: unknown in all of them.")
    ]
