"""/v1/costs and what is computed from the same rows."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gpu_token_analytics.api.models.base import Count, Model, NanoUsd, Ranged, Share


class Money(Model):
    """The money of a row, one column per class; the columns sum to `total_nusd`, the rows to the totals.

    In a row of a model or tenant, `warm_idle_nusd` is its share of the warm idle money: each cell's warm idle is shared
    among the models (then tenants) attributed on that GPU in that UTC hour, in proportion to their attributed money.
    What no model had a part in stays in the row whose model (tenant) is null.
    """

    attributed_nusd: NanoUsd | None = Field(
        description="Null: unknown, since all of the row's requests ran on GPUs that nobody sampled or declared."
    )
    unmetered_work_nusd: NanoUsd
    warm_idle_nusd: NanoUsd
    cold_idle_nusd: NanoUsd
    unobserved_nusd: NanoUsd
    total_nusd: NanoUsd | None = Field(description="Null as `attributed_nusd`.")


class Tokens(Model):
    """Inclusive counts: cached is a part of prompt, reasoning a part of completion. total = prompt + completion."""

    prompt: Count
    cached: Count
    completion: Count
    reasoning: Count
    total: Count


class Rates(Model):
    """Ratios of sums over the row; null where the divisor is 0 or not known."""

    active_usd_per_million: float | None = Field(description="attributed / tokens of GPUs that are known", examples=[0.11])
    loaded_usd_per_million: float | None = Field(
        description="(attributed + share of warm idle) / tokens; null for a tenant's key", examples=[0.36]
    )
    input_usd_per_million: float | None = Field(
        description="Prefill money / prompt tokens, over requests whose first token time is known.", examples=[0.05]
    )
    output_usd_per_million: float | None = Field(
        description="The rest of the money / completion tokens, over the same requests.", examples=[0.4]
    )
    tokens_per_second: float | None = Field(description="Tokens / elapsed seconds of the bucket or range.", examples=[950])
    joules_per_token: float | None = Field(
        description="Attributed energy / tokens, over the cells whose energy is known.", examples=[0.6]
    )


class Quality(Model):
    """How far to trust a row."""

    provisional: bool = Field(description="Some of its cells may still change (they are not final yet).")
    corrected_cells: Count = Field(description="Cells changed after they were final.")
    low_volume: bool = Field(description="Fewer tokens than LOW_VOLUME_TOKENS: read its rates with care.")
    unobserved_share: Share | None = Field(description="unobserved / total money; null on rows of a model or tenant.")
    coverage: Share | None = Field(description="Observed / owned GPU time; null on rows of a model or tenant.")
    memory_unknown_share: Share | None = Field(
        description="Idle GPU time whose class was found without a reading of the memory, by requests and utilisation / owned "
        "GPU time; null on rows of a model, tenant or class."
    )
    default_price_nusd: NanoUsd = Field(
        description="Money of GPU-minutes in which only the default price held: no row for the GPU, its host or name, and no "
        "price of its samples. Idle money counts in the row whose model is null."
    )
    unknown_gpu_requests: Count = Field(description="Requests on GPUs that nobody sampled or declared: their money is unknown.")
    unknown_gpu_tokens: Count = Field(description="Their prompt and completion tokens; rates leave them out.")


class CostRow(Model):
    """One group in one bucket."""

    bucket: datetime | None = Field(description="Start of the bucket in the asked time zone; null with bucket=none.")
    group: dict[str, str | None] = Field(
        description="The values of `group_by`. Null: no model (tenant) had a part in it; host or name unknown.",
        examples=[{"model": "llama-3-8b"}],
    )
    money: Money
    tokens: Tokens
    requests: Count = Field(description="Counted where they ended.")
    gpu_seconds: float | None = Field(ge=0, description="Owned GPU time; null (not known) on rows of a model or tenant.")
    rates: Rates
    quality: Quality


class Scope(Model):
    """How the selection stands in the whole: selected + left out = the money of the GPUs in the range, always."""

    cost_nusd: NanoUsd | None = Field(description="All money of the GPUs asked for; null for a tenant's key.")
    selected_nusd: NanoUsd = Field(description="Money of the rows: equals totals.money.total_nusd.")
    left_out_nusd: NanoUsd | None = Field(description="Money that a filter on model, tenant or class leaves out.")
    cells: Count | None = Field(description="GPU-minutes read; null for a tenant's key.")
    cells_not_rolled: Count = Field(
        description="Cells whose newest content is not in the hourly sums yet: figures trail by these."
    )


class CostsResponse(Ranged):
    """Rows by bucket then group; the null group comes last in its bucket."""

    bucket: str = Field(examples=["1h"])
    time_zone: str = Field(examples=["Europe/Berlin"])
    group_by: list[str] = Field(examples=[["model"]])
    as_of: datetime
    rows: list[CostRow]
    totals: CostRow = Field(description="Over the whole range, all pages; bucket null, group empty.")
    scope: Scope


class DimensionsResponse(Ranged):
    """The values that occur in a range: what a filter can offer. Sorted."""

    models: list[str]
    tenants: list[str]
    gpus: list[str]
    hosts: list[str]
    gpu_names: list[str]


class BreakEvenRow(Model):
    """Own GPUs against an API price, for one model, over the range."""

    model: str | None = Field(description="Null: all models together, with every idle dollar.")
    tokens: Count
    tokens_per_hour: float | None
    own_usd_per_million: float | None = Field(description="Loaded rate (model rows), all money / tokens (null row).")
    api_usd_per_million: float
    own_wins: bool | None = Field(description="Null without tokens.")
    saved_nusd: NanoUsd | None = Field(description="API bill for these tokens minus own money; negative: the API wins.")
    break_even_tokens_per_hour: float | None = Field(
        description="Tokens per hour from which own GPUs win at the present fixed cost per hour."
    )
    break_even_ratio: float | None = Field(
        description="Break-even over present tokens per hour: 0.5 means half the present load would do."
    )
    break_even_utilization: Share | None = Field(
        description="Share of paid GPU time that has to be attributed to break even at the present tokens per busy "
        "hour; null when it would pass 1 (own GPUs cannot win at this price) or nothing ran."
    )
    utilization: Share | None = Field(description="Attributed share of the money now.")


class BreakEvenResponse(Ranged):
    """Break-even of own GPUs against an API."""

    usd_per_gpu_hour: float | None = Field(description="The what-if price; null: the prices of the ledger.")
    own_usd_per_gpu_hour: float | None = Field(description="Average price paid in the range: money / owned GPU hours.")
    rows: list[BreakEvenRow]
