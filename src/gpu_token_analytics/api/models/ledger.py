"""/v1/ledger, /v1/audit, /v1/quality: the ledger itself and whether it holds."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gpu_token_analytics.api.models.base import Count, Json, Model, NanoUsd, Ranged, Share
from gpu_token_analytics.api.models.declarations import UnknownGpu


class CellLine(Model):
    """The attributed part of a cell by model, tenant and method."""

    model: str
    tenant: str
    method: str
    requests: Count
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    cost_nusd: NanoUsd | None = Field(description="Null: nobody sampled or declared the GPU (method `unknown_gpu`).")
    prefill_cost_nusd: NanoUsd | None
    energy_mj: int | None
    busy_us: Count


class Cell(Model):
    """One GPU, one UTC minute, as stored."""

    cell: str = Field(examples=["GPU-1f|2026-01-31T12:00Z"])
    gpu: str
    minute: datetime
    host: str | None
    gpu_name: str | None
    state: str = Field(examples=["provisional"])
    cost_nusd: NanoUsd
    owned_us: Count
    classes: dict[str, int]
    class_us: dict[str, int]
    memory_unknown_us: Count = Field(
        description="Of warm_idle and cold_idle: classed by requests and utilisation, without a reading of the memory."
    )
    energy_mj: int | None
    energy_observed_us: Count
    lines: list[CellLine]
    lines_left_out: Count = Field(description="Lines of the cell that are not listed: of very many the first are.")
    price: Json
    samples: Count
    requests_active: Count
    params: str | None
    revision: Count
    due: bool = Field(description="A newer event touched it; it will be computed again.")
    computed_at: datetime | None
    corrections: list[Json] = Field(description="Changes after it was final, oldest first.")


class CellsResponse(Ranged):
    """Cells by minute, then GPU."""

    cells: list[Cell]


class CorrectionsResponse(Ranged):
    """Cells of the range that were changed after they were final."""

    cells: list[Cell]


class AuditFinding(Model):
    """One cell or sum that does not hold."""

    cell: str
    rule: str = Field(examples=["classes_sum_to_cost"])
    detail: str


class AuditResponse(Ranged):
    """The identity over the range: attributed + unmetered work + idle = price x owned time, in every cell and in total."""

    as_of: datetime
    holds: bool
    cells: Count
    cells_pending: Count = Field(description="Marked, not computed yet.")
    cells_not_rolled: Count
    cost_nusd: NanoUsd
    classes: dict[str, int]
    lines_nusd: NanoUsd = Field(description="Sum of all lines; equals classes.attributed.")
    rollups_nusd: NanoUsd | None = Field(description="The same money from the rollups; null: range not in whole hours.")
    default_price_nusd: NanoUsd = Field(description="Money of cells in which the default price held.")
    unknown_gpu_requests: Count = Field(description="Requests on GPUs that nobody sampled or declared: they have no money.")
    unknown_gpu_tokens: Count = Field(description="Their prompt and completion tokens.")
    findings: list[AuditFinding] = Field(description="At most 100.")
    checked: list[str] = Field(description="The rules that were checked.")


class HourQuality(Model):
    """One hour of the range."""

    hour: datetime
    cells: Count
    provisional_cells: Count
    corrected_cells: Count
    coverage: Share | None
    unobserved_nusd: NanoUsd


class SetAside(Model):
    """A cell or a sum that MongoDB refuses for good: it stays as it was, and everything else goes on."""

    document: str
    why: str
    since: datetime


class QualityResponse(Ranged):
    """How good the data of a range is."""

    as_of: datetime
    coverage: Share | None = Field(description="Observed / owned GPU time.")
    unobserved_share: Share | None = Field(description="unobserved / all money.")
    memory_unknown_share: Share | None = Field(
        description="Idle GPU time whose class was found without a reading of the memory, by requests and utilisation / owned "
        "GPU time."
    )
    cells: Count
    provisional_cells: Count
    corrected_cells: Count
    cells_pending: Count
    cells_not_rolled: Count
    sums_behind_since: datetime | None = Field(
        description="Since when the oldest cell that the hourly and daily sums do not hold is computed; null: they hold all."
    )
    set_aside_count: Count = Field(description="Cells and sums that MongoDB refuses for good.")
    set_aside: list[SetAside] = Field(description="The first of them.")
    unknown_gpu_count: Count = Field(
        description="Names that requests ever gave to GPUs nobody sampled or declared; at most 10,000 are counted."
    )
    unknown_gpus: list[UnknownGpu] = Field(description="The first of them.")
    unknown_gpu_requests: Count = Field(description="Requests of the range on such GPUs: their money is unknown, not 0.")
    unknown_gpu_tokens: Count = Field(description="Their prompt and completion tokens.")
    default_price_nusd: NanoUsd = Field(description="Money of the range at the default price: nobody priced these GPUs.")
    default_price_share: Share | None = Field(description="Its share of all money.")
    oldest_due_at: datetime | None = Field(description="Since when the longest waiting cell is due; null: none waits.")
    clock_skew_seconds: float = Field(
        description="MongoDB's clock less the API machine's; `gpu_tokens_clock_skew_seconds` is the same of each processor."
    )
    late_cells: Count | None = Field(
        description="Cells that changed again over 10 minutes after their minute; null: range longer than 2 days."
    )
    first_token_known: Share | None = Field(
        description="Share of attributed money whose requests named their first token: what input and output rates rest on."
    )
    dead_letters: dict[str, int] | None = Field(
        description="Records in the dead-letter topic by reason; null: this process cannot read the topic."
    )
    dead_letters_topic: str
    hours: list[HourQuality]
