"""/v1/costs and what is computed from the same rows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import (
    Answer,
    Count,
    End,
    LocalTime,
    NanoUsd,
    Next,
    Part,
    Pieces,
    Share,
    Start,
    field,
)

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]


class Money(Part):
    """The money of a row, one column per class; the columns sum to `total_nusd`, the rows to the
    totals.

    In a row of a model or tenant, `warm_idle_nusd` is its share of the warm idle money: each cell's
    warm idle is shared among the models (then tenants) attributed on that GPU in that UTC hour, in
    proportion to their attributed money. What no model had a part in stays in the row whose model
    (tenant) is null. So it is with `unmetered_work_nusd`: a model has the part that its engine
    counted the tokens of, a tenant has none.
    """

    attributed_nusd: Annotated[
        NanoUsd | None,
        Meta(
            description=(
                "Null: unknown, since all of the row's requests ran on GPUs that nobody sampled or "
                "declared."
            )
        ),
    ]
    unmetered_work_nusd: NanoUsd
    warm_idle_nusd: NanoUsd
    cold_idle_nusd: NanoUsd
    unobserved_nusd: NanoUsd
    total_nusd: Annotated[NanoUsd | None, Meta(description="Null as `attributed_nusd`.")]


class Tokens(Part):
    """Inclusive counts: cached is a part of prompt, reasoning a part of completion. total = prompt
    + completion."""

    prompt: Count
    cached: Count
    completion: Count
    reasoning: Count
    total: Count


class Rates(Part):
    """Ratios of sums over the row; null where the divisor is 0 or not known."""

    active_usd_per_million: Annotated[
        float | None,
        Meta(
            description=(
                "(attributed + unmetered work of counted tokens) / tokens whose money is known"
            ),
            examples=[0.11],
        ),
    ]
    loaded_usd_per_million: Annotated[
        float | None,
        Meta(
            description="(attributed + share of warm idle) / tokens; null for a tenant's key",
            examples=[0.36],
        ),
    ]
    input_usd_per_million: Annotated[
        float | None,
        Meta(
            description=(
                "Prefill money / prompt tokens, over requests whose first token time is known."
            ),
            examples=[0.05],
        ),
    ]
    output_usd_per_million: Annotated[
        float | None,
        Meta(
            description="The rest of the money / completion tokens, over the same requests.",
            examples=[0.4],
        ),
    ]
    tokens_per_second: Annotated[
        float | None,
        Meta(description="Tokens / elapsed seconds of the bucket or range.", examples=[950]),
    ]
    joules_per_token: Annotated[
        float | None,
        Meta(
            description="Attributed energy / tokens, over the cells whose energy is known.",
            examples=[0.6],
        ),
    ]


class Quality(Part):
    """How far to trust a row."""

    provisional: Annotated[
        bool, Meta(description="Some of its cells may still change (they are not final yet).")
    ]
    corrected_cells: Annotated[Count, Meta(description="Cells changed after they were final.")]
    low_volume: Annotated[
        bool, Meta(description="Fewer tokens than LOW_VOLUME_TOKENS: read its rates with care.")
    ]
    unobserved_share: Annotated[
        Share | None,
        Meta(description="unobserved / total money; null on rows of a model or tenant."),
    ]
    coverage: Annotated[
        Share | None,
        Meta(description="Observed / owned GPU time; null on rows of a model or tenant."),
    ]
    memory_unknown_share: Annotated[
        Share | None,
        Meta(
            description=(
                "Idle GPU time whose class was found without a reading of the memory, by requests "
                "and utilisation / owned GPU time; null on rows of a model, tenant or class."
            )
        ),
    ]
    default_price_nusd: Annotated[
        NanoUsd,
        Meta(
            description=(
                "Money of GPU-minutes in which only the default price held: no row for the GPU, "
                "its "
                "host or name, and no price of its samples. Idle money counts in the row whose "
                "model is null."
            )
        ),
    ]
    unknown_gpu_requests: Annotated[
        Count,
        Meta(
            description="Requests on GPUs that nobody sampled or declared: their money is unknown."
        ),
    ]
    unknown_gpu_tokens: Annotated[
        Count, Meta(description="Their prompt and completion tokens; rates leave them out.")
    ]


class CostRow(Part):
    """One group in one bucket."""

    bucket: Annotated[
        LocalTime | None,
        Meta(description="Start of the bucket in the asked time zone; null with bucket=none."),
    ]
    group: Annotated[
        dict[str, str | None],
        Meta(
            description=(
                "The values of `group_by`. Null: no model (tenant) had a part in it; host or name "
                "unknown."
            ),
            examples=[{"model": "llama-3-8b"}],
        ),
    ]
    money: Money
    tokens: Tokens
    requests: Annotated[Count, Meta(description="Counted where they ended.")]
    gpu_seconds: Annotated[
        Seconds | None,
        Meta(description="Owned GPU time; null (not known) on rows of a model or tenant."),
    ]
    rates: Rates
    quality: Quality


class Scope(Answer):
    """How the selection stands in the whole: selected + left out = the money of the GPUs in the
    range, always."""

    cost_nusd: Annotated[
        NanoUsd | None,
        Meta(description="All money of the GPUs asked for; null for a tenant's key."),
    ]
    selected_nusd: Annotated[
        NanoUsd, Meta(description="Money of the rows: equals totals.money.total_nusd.")
    ]
    left_out_nusd: Annotated[
        NanoUsd | None,
        Meta(description="Money that a filter on model, tenant or class leaves out."),
    ]
    cells: Annotated[Count | None, Meta(description="GPU-minutes read; null for a tenant's key.")]
    cells_not_rolled: Annotated[
        Count,
        Meta(
            description=(
                "Cells whose newest content is not in the hourly sums yet: figures trail by these."
            )
        ),
    ]


class CostsResponse(Answer):
    """Rows by bucket then group; the null group comes last in its bucket."""

    from_: Start = field(name="from")
    to: End
    bucket: Annotated[str, Meta(examples=["1h"])]
    time_zone: Annotated[str, Meta(examples=["Europe/Berlin"])]
    group_by: Annotated[list[str], Meta(examples=[["model"]])]
    as_of: datetime
    rows: list[CostRow]
    totals: Annotated[
        CostRow, Meta(description="Over the whole range, all pages; bucket null, group empty.")
    ]
    scope: Scope
    next: Next
    changed: Annotated[
        bool,
        Meta(
            description="The bucket in which the page before ended is no longer what it was then: "
            "its rows on both pages are of two states. Whoever adds up pages begins anew. While it "
            "is false, all pages together are one answer, bucket by bucket.",
            examples=[False],
        ),
    ]
    row_count: Annotated[
        Count | None,
        Meta(
            description="How many rows there are in all: with `top`, the others together are "
            "`totals` less these rows. Null: they were not counted, since this is one of several "
            "pages, or `top` was reached before the last bucket.",
            examples=[160],
        ),
    ]


class DimensionsResponse(Answer):
    """The values that occur in a range: what a filter can offer. Sorted."""

    from_: Start = field(name="from")
    to: End
    next: Next
    models: list[str]
    tenants: list[str]
    gpus: list[str]
    hosts: list[str]
    gpu_names: list[str]


class BreakEvenRow(Answer):
    """Own GPUs against an API price, for one model, over the range."""

    model: Annotated[
        str | None, Meta(description="Null: all models together, with every idle dollar.")
    ]
    tokens: Count
    tokens_per_hour: float | None
    low_volume: Annotated[
        bool, Meta(description="Fewer tokens than LOW_VOLUME_TOKENS: read it with care.")
    ]
    own_usd_per_million: Annotated[
        float | None, Meta(description="Loaded rate (model rows), all money / tokens (null row).")
    ]
    input_usd_per_million: Annotated[
        float | None, Meta(description="Of the API's price list; null: none is given.")
    ]
    cached_usd_per_million: float | None
    output_usd_per_million: float | None
    api_usd_per_million: Annotated[
        float | None,
        Meta(
            description=(
                "What the API would bill for these tokens, per million; null: no price, or no "
                "tokens."
            )
        ),
    ]
    own_wins: Annotated[
        bool | None,
        Meta(description="Null where one side is not known, and where both cost the same."),
    ]
    saved_nusd: Annotated[
        NanoUsd | None,
        Meta(description="API bill for these tokens minus own money; negative: the API wins."),
    ]
    break_even_tokens_per_hour: Annotated[
        float | None,
        Meta(
            description=(
                "Tokens per hour from which own GPUs win at the present fixed cost per hour."
            )
        ),
    ]
    break_even_ratio: Annotated[
        float | None,
        Meta(
            description=(
                "Break-even over present tokens per hour: 0.5 means half the present load would do."
            )
        ),
    ]
    break_even_utilization: Annotated[
        Share | None,
        Meta(
            description=(
                "Share of paid GPU time that has to be attributed to break even at the present "
                "tokens per busy hour; null when it would pass 1 (own GPUs cannot win at this "
                "price) or nothing ran."
            )
        ),
    ]
    utilization: Annotated[Share | None, Meta(description="Attributed share of the money now.")]
    says: Annotated[
        str,
        Meta(description="The winner, by how much, and what would change it, in a sentence; USD."),
    ]
    sentence: Pieces


class BreakEvenResponse(Answer):
    """Break-even of own GPUs against an API."""

    from_: Start = field(name="from")
    to: End
    next: Next
    usd_per_gpu_hour: Annotated[
        float | None, Meta(description="The what-if price; null: the prices of the ledger.")
    ]
    own_usd_per_gpu_hour: Annotated[
        float | None, Meta(description="Average price paid in the range: money / owned GPU hours.")
    ]
    rows: list[BreakEvenRow]
