"""/v1/gpus: the state of every GPU now."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from gpu_token_analytics.costs.answers.base import Answer, Count, LocalTime, NanoUsd, Next, Share


class Liveness(StrEnum):
    """How fresh the newest sample of a GPU is."""

    LIVE = "live"  # within the gap limit
    STALE = "stale"  # older: its time is `unobserved` money
    SILENT = "silent"  # not heard of for SILENT_GPU_OWNED_MINUTES: no longer paid for


class GpuMoney(Answer):
    """Today's money of one GPU (from midnight in the asked time zone), by class."""

    attributed_nusd: NanoUsd
    unmetered_work_nusd: NanoUsd
    warm_idle_nusd: NanoUsd
    cold_idle_nusd: NanoUsd
    unobserved_nusd: NanoUsd
    total_nusd: NanoUsd


class GpuState(Answer):
    """One GPU, or one MIG slice."""

    gpu: Annotated[
        str, Meta(description="UUID, or host/index where none is known.", examples=["GPU-1f"])
    ]
    host: str | None
    gpu_index: int | None
    name: Annotated[str | None, Meta(examples=["NVIDIA H100 80GB HBM3"])]
    mig_profile: str | None
    parent_uuid: str | None
    state: Liveness
    sampled_at: datetime | None
    utilization: Share | None
    mem_used_mb: float | None
    mem_total_mb: float | None
    power_w: float | None
    temperature_c: float | None
    models: Annotated[
        list[str],
        Meta(
            description="Models attributed on it in its newest computed minutes, most money first."
        ),
    ]
    usd_per_hour: Annotated[
        float | None, Meta(description="Price in force in its newest computed cell.")
    ]
    price_row: str | None
    today: Annotated[GpuMoney | None, Meta(description="Null: no cell today.")]
    idle_share_today: Annotated[
        Share | None,
        Meta(description="(warm idle + cold idle + unobserved) / total, of today's money."),
    ]
    newest_minutes: Annotated[
        list[str | None],
        Meta(
            description=(
                "The class with most money in each of the last 60 minutes, oldest first; null: no "
                "cell."
            )
        ),
    ]


class GpusResponse(Answer):
    """All GPUs known, sorted by host and index."""

    as_of: datetime
    today_from: LocalTime
    total: Count
    gpus: list[GpuState]
    next: Next
