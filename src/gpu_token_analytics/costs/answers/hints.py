"""/v1/hints: what could be given back, put together or scaled down, and what jumped; with money,
thresholds and cells."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, NanoUsd, Pieces


class Hint(Answer):
    """One thing to look at."""

    kind: Annotated[
        str,
        Meta(
            description=(
                "give_back, put_together, scale_down, price_jump, coverage_drop or spend_jump."
            ),
            examples=["give_back"],
        ),
    ]
    says: Annotated[str, Meta(description="What was seen and what to do, in a sentence; USD.")]
    sentence: Pieces
    subject: Annotated[
        str, Meta(description="The GPU, host, GPU type, model or tenant it is about.")
    ]
    gpus: list[str]
    models: list[str]
    hours: Annotated[
        list[int],
        Meta(description="scale_down: the quiet hours of the day, in `time_zone`, in order."),
    ]
    week_nusd: Annotated[
        NanoUsd | None, Meta(description="Money of the last 7 days it is about; null for coverage.")
    ]
    month_nusd: Annotated[
        NanoUsd | None, Meta(description="The same of the last 30 days; null for jumps.")
    ]
    value: Annotated[
        float | None,
        Meta(description="What was measured: a share, a price per GPU-hour, USD of a day."),
    ]
    before: Annotated[float | None, Meta(description="Jumps: the mean of the 7 days before.")]
    cells: Annotated[
        str, Meta(description="Path and query of /v1 that lists the cells or rows behind it.")
    ]


class HintThreshold(Answer):
    """A number that decides."""

    name: str
    value: float
    says: str


class HintsResponse(Answer):
    """Hints, most money first. Deterministic: the same ledger gives the same hints."""

    as_of: datetime
    to: Annotated[datetime, Meta(description="End of both times: the last whole UTC hour.")]
    week_from: datetime
    month_from: datetime
    time_zone: str
    gpus: Annotated[Count, Meta(description="GPUs with money in the last 7 days.")]
    gpus_known: Annotated[
        Count,
        Meta(
            description="Those of them that were owned long enough and seen enough of the time to "
            "say whether they are needed (`owned_hours`, `unseen`)."
        ),
    ]
    hints: list[Hint]
    thresholds: list[HintThreshold]
