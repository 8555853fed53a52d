"""/v1/costs/compared: a range beside the period before it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, End, NanoUsd, Part, Start, field
from gpu_token_analytics.costs.answers.costs import Money


class ComparedRow(Part):
    """One group in both periods."""

    group: dict[str, str | None]
    money: Annotated[Money | None, Meta(description="Null: the group does not occur in the range.")]
    before: Annotated[
        Money | None, Meta(description="Null: it does not occur in the period before.")
    ]
    changed_nusd: Annotated[
        NanoUsd | None,
        Meta(description="Total money less that of the period before; null where one is unknown."),
    ]
    changed_share: Annotated[
        float | None,
        Meta(description="`changed_nusd` / total before; null where that is 0 or unknown."),
    ]
    tokens: Count
    tokens_before: Count
    requests: Count
    requests_before: Count
    active_usd_per_million: float | None
    active_usd_per_million_before: float | None


class ComparedResponse(Answer):
    """Both periods by group. Each column sums to the totals, which are those of /v1/costs."""

    from_: Start = field(name="from")
    to: End
    before_from: Annotated[
        datetime,
        Meta(
            description=(
                "Start of the period before: whole months, weeks and days count by the calendar."
            )
        ),
    ]
    before_to: Annotated[datetime, Meta(description="Its end, exclusive.")]
    time_zone: Annotated[str, Meta(examples=["Europe/Berlin"])]
    group_by: Annotated[list[str], Meta(examples=[["model"]])]
    rows: list[ComparedRow]
    totals: ComparedRow
