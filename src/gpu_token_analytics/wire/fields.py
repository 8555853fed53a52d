"""Types of fields and the bounds of their values; what more than one kind of event uses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from gpu_token_analytics.units import (
    MAX_CELSIUS,
    MAX_GPU_INDEX,
    MAX_JOULES,
    MAX_MEGABYTES,
    MAX_USD_PER_HOUR,
    MAX_WATTS,
    MIN_CELSIUS,
)

MAX_TOKENS = 100_000_000
MAX_LATENCY_MS = 6 * 3600 * 1000
MAX_GPUS = 128

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
# "/" is what tells a label (`host/index`) from a UUID.
GpuUuid: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[^/]+$")]
EventId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Label: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Timestamp: TypeAlias = Annotated[datetime, Meta(tz=True)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_LATENCY_MS)]
GpuIndex: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_GPU_INDEX)]
Ratio: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Megabytes: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_MEGABYTES)]
Watts: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_WATTS)]
Celsius: TypeAlias = Annotated[float, Meta(ge=MIN_CELSIUS, le=MAX_CELSIUS)]
Joules: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_JOULES)]
UsdPerHour: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_USD_PER_HOUR)]
Source: TypeAlias = Literal["nvml", "nvidia-smi", "dcgm-exporter", "amd-exporter", "seed", "replay"]
