"""/v1/ledger, /v1/audit, /v1/quality: the ledger itself and whether it holds."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import (
    Answer,
    Count,
    End,
    Json,
    NanoUsd,
    Next,
    Share,
    Start,
    field,
)
from gpu_token_analytics.costs.answers.declarations import UnknownGpu


class CountedLine(Answer):
    """What an engine counted in the cell, beside what requests tell: unexplained tokens are those
    of the line itself."""

    instance: str
    engine: str
    prompt_tokens: Count
    completion_tokens: Count
    more_prompt_tokens: Annotated[
        Count, Meta(description="Requests tell of so many more than the engine counted.")
    ]
    more_completion_tokens: Count
    unmetered_nusd: Annotated[
        NanoUsd | None,
        Meta(
            description="The model's part of unmetered_work; null where utilisation is not known."
        ),
    ]


class CellLine(Answer):
    """The attributed part of a cell by model, tenant and method; or the tokens of no request that
    an engine counted."""

    model: str
    tenant: Annotated[str | None, Meta(description="Null: of no request (method `counter`).")]
    method: str
    requests: Count
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    cost_nusd: Annotated[
        NanoUsd | None,
        Meta(description="Null: nobody sampled or declared the GPU (method `unknown_gpu`)."),
    ]
    prefill_cost_nusd: NanoUsd | None
    energy_mj: int | None
    busy_us: Count
    counted: CountedLine | None = None


class Cell(Answer):
    """One GPU, one UTC minute, as stored."""

    cell: Annotated[str, Meta(examples=["GPU-1f|2026-01-31T12:00Z"])]
    gpu: str
    minute: datetime
    state: Annotated[str, Meta(examples=["provisional"])]
    cost_nusd: NanoUsd
    owned_us: Count
    classes: dict[str, int]
    class_us: dict[str, int]
    memory_unknown_us: Annotated[
        Count,
        Meta(
            description=(
                "Of warm_idle and cold_idle: classed by requests and utilisation, without a "
                "reading of the memory."
            )
        ),
    ]
    energy_observed_us: Count
    host: str | None
    gpu_name: str | None
    energy_mj: int | None
    params: str | None
    lines: list[CellLine]
    lines_left_out: Annotated[
        Count,
        Meta(description="Lines of the cell that are not listed: of very many the first are."),
    ]
    price: Json
    samples: Count
    requests_active: Count
    revision: Count
    due: Annotated[bool, Meta(description="A newer event touched it; it will be computed again.")]
    computed_at: datetime | None
    corrections: Annotated[
        list[Json], Meta(description="Changes after it was final, oldest first.")
    ]


class CellsResponse(Answer):
    """Cells by minute, then GPU."""

    from_: Start = field(name="from")
    to: End
    cells: list[Cell]
    next: Next


class CorrectionsResponse(Answer):
    """Cells of the range that were changed after they were final."""

    from_: Start = field(name="from")
    to: End
    cells: list[Cell]
    next: Next


class AuditFinding(Answer):
    """One cell or sum that does not hold."""

    cell: str
    rule: Annotated[str, Meta(examples=["classes_sum_to_cost"])]
    detail: str


class AuditResponse(Answer):
    """The identity over the range: attributed + unmetered work + idle = price x owned time, in
    every cell and in total."""

    from_: Start = field(name="from")
    to: End
    next: Next
    as_of: datetime
    holds: bool
    cells: Count
    cells_pending: Annotated[Count, Meta(description="Marked, not computed yet.")]
    cells_not_rolled: Count
    cost_nusd: NanoUsd
    classes: dict[str, int]
    lines_nusd: Annotated[NanoUsd, Meta(description="Sum of all lines; equals classes.attributed.")]
    rollups_nusd: Annotated[
        NanoUsd | None,
        Meta(description="The same money from the rollups; null: range not in whole hours."),
    ]
    default_price_nusd: Annotated[
        NanoUsd, Meta(description="Money of cells in which the default price held.")
    ]
    unknown_gpu_requests: Annotated[
        Count,
        Meta(description="Requests on GPUs that nobody sampled or declared: they have no money."),
    ]
    unknown_gpu_tokens: Annotated[Count, Meta(description="Their prompt and completion tokens.")]
    findings: Annotated[list[AuditFinding], Meta(description="At most 100.")]
    checked: Annotated[list[str], Meta(description="The rules that were checked.")]


class HourQuality(Answer):
    """One hour of the range."""

    hour: datetime
    cells: Count
    provisional_cells: Count
    corrected_cells: Count
    coverage: Share | None
    unobserved_nusd: NanoUsd


class SetAside(Answer):
    """A cell or a sum that MongoDB refuses for good: it stays as it was, and everything else goes
    on."""

    document: str
    why: str
    since: datetime


class SharedUuid(Answer):
    """A UUID that several cards have."""

    uuid: str
    gpus: Annotated[list[str], Meta(description="The cards, as host/UUID; at most 20 of them.")]


class EngineCoverage(Answer):
    """Which part of what an engine counted requests tell of."""

    instance: str
    engine: str
    counted_tokens: Annotated[
        Count, Meta(description="Prompt and completion tokens by its counters.")
    ]
    unexplained_tokens: Annotated[
        Count, Meta(description="Of these the ones that no request tells of: unmetered work.")
    ]
    more_tokens: Annotated[
        Count, Meta(description="Tokens that requests tell of beyond what it counted.")
    ]
    coverage: Annotated[
        Share | None,
        Meta(description="(counted - unexplained) / counted, of sums; null: it counted nothing."),
    ]
    gpus_known: Annotated[
        bool, Meta(description="False: it has no placement, so its tokens have no money.")
    ]
    to_do: Annotated[str | None, Meta(description="What would make it better; null: nothing.")]


class QualityResponse(Answer):
    """How good the data of a range is."""

    from_: Start = field(name="from")
    to: End
    next: Next
    as_of: datetime
    coverage: Annotated[Share | None, Meta(description="Observed / owned GPU time.")]
    unobserved_share: Annotated[Share | None, Meta(description="unobserved / all money.")]
    memory_unknown_share: Annotated[
        Share | None,
        Meta(
            description=(
                "Idle GPU time whose class was found without a reading of the memory, by requests "
                "and utilisation / owned GPU time."
            )
        ),
    ]
    cells: Count
    provisional_cells: Count
    corrected_cells: Count
    cells_pending: Annotated[
        Count,
        Meta(
            description=(
                "Cells that wait to be computed, those that are still to be marked included."
            )
        ),
    ]
    cells_not_rolled: Count
    sums_behind_since: Annotated[
        datetime | None,
        Meta(
            description=(
                "Since when the oldest cell that the hourly and daily sums do not hold is "
                "computed; "
                "null: they hold all."
            )
        ),
    ]
    set_aside_count: Annotated[
        Count, Meta(description="Cells and sums that MongoDB refuses for good.")
    ]
    set_aside: Annotated[list[SetAside], Meta(description="The first of them.")]
    unknown_gpu_count: Annotated[
        Count,
        Meta(
            description=(
                "Names that requests ever gave to GPUs nobody sampled or declared; at most 10,000 "
                "are counted."
            )
        ),
    ]
    unknown_gpus: Annotated[list[UnknownGpu], Meta(description="The first of them.")]
    unknown_gpu_requests: Annotated[
        Count,
        Meta(description="Requests of the range on such GPUs: their money is unknown, not 0."),
    ]
    unknown_gpu_tokens: Annotated[Count, Meta(description="Their prompt and completion tokens.")]
    shared_uuid_count: Annotated[
        Count,
        Meta(
            description=(
                "UUIDs ever sampled on several hosts at once: each host's card is paid, as "
                "host/UUID."
            )
        ),
    ]
    shared_uuids: Annotated[list[SharedUuid], Meta(description="The first of them.")]
    engine_count: Annotated[
        Count | None,
        Meta(
            description="Engines whose counters are in the range; null: it is longer than two days."
        ),
    ]
    engines: Annotated[
        list[EngineCoverage], Meta(description="Those of which requests explain least, at most 50.")
    ]
    default_price_nusd: Annotated[
        NanoUsd,
        Meta(description="Money of the range at the default price: nobody priced these GPUs."),
    ]
    default_price_share: Annotated[Share | None, Meta(description="Its share of all money.")]
    oldest_due_at: Annotated[
        datetime | None,
        Meta(description="Since when the longest waiting cell is due; null: none waits."),
    ]
    clock_skew_seconds: Annotated[
        float,
        Meta(
            description=(
                "MongoDB's clock less the API machine's; `gpu_tokens_clock_skew_seconds` is the "
                "same of each processor."
            )
        ),
    ]
    late_cells: Annotated[
        Count | None,
        Meta(
            description=(
                "Cells that changed again over 10 minutes after their minute; null: range longer "
                "than 2 days."
            )
        ),
    ]
    first_token_known: Annotated[
        Share | None,
        Meta(
            description=(
                "Share of attributed money whose requests named their first token: what input and "
                "output rates rest on."
            )
        ),
    ]
    dead_letters: Annotated[
        dict[str, int] | None,
        Meta(
            description=(
                "Records in the dead-letter topic by reason; null: this process cannot read the "
                "topic."
            )
        ),
    ]
    dead_letters_topic: str
    hours: list[HourQuality]
