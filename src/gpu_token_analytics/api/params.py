"""The query parameters of /v1, each declared once: name, type, limits, meaning."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import AwareDatetime, StringConstraints

from gpu_token_analytics.api.choices import Bucket, Dimension, ExportFormat, ExportLayout, MoneyClassName
from gpu_token_analytics.units import MAX_USD_PER_HOUR

Value = Annotated[str, StringConstraints(min_length=1, max_length=256)]

From = Annotated[
    AwareDatetime,
    Query(
        alias="from",
        description="Start, inclusive; RFC 3339 with offset, on a whole minute. Whole UTC hours answer fastest.",
        examples=["2026-01-31T00:00:00Z"],
    ),
]
To = Annotated[
    AwareDatetime,
    Query(description="End, exclusive; on a whole minute.", examples=["2026-02-01T00:00:00Z"]),
]
TimeZone = Annotated[
    str,
    Query(max_length=64, description="IANA name; where hours and days begin, DST included.", examples=["Europe/Berlin"]),
]
BucketOf = Annotated[
    Bucket, Query(description="Length of a row in time; hours and days are those of `time_zone`.", examples=["1h"])
]
GroupBy = Annotated[
    list[Dimension],
    Query(max_length=6, description="Repeatable: `group_by=model&group_by=tenant`.", examples=[["model"]]),
]
Models = Annotated[list[Value], Query(alias="model", max_length=50, description="Only these models. Repeatable.")]
Tenants = Annotated[list[Value], Query(alias="tenant", max_length=50, description="Only these tenants. Repeatable.")]
Gpus = Annotated[list[Value], Query(alias="gpu", max_length=50, description="Only these GPUs. Repeatable.")]
Hosts = Annotated[list[Value], Query(alias="host", max_length=50, description="Only these hosts. Repeatable.")]
GpuNames = Annotated[list[Value], Query(alias="gpu_name", max_length=50, description="Only these GPU names. Repeatable.")]
Classes = Annotated[
    list[MoneyClassName], Query(alias="class", max_length=5, description="Only money of these classes. Repeatable.")
]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Most rows in a page.")]
CellLimit = Annotated[int, Query(ge=1, le=1_000, description="Most cells in a page.")]
Cursor = Annotated[str | None, Query(max_length=2048, description="`next` of the page before.")]
RequestId = Annotated[str, Path(min_length=1, max_length=256, description="As the engine named it.")]
ApiPrice = Annotated[float, Query(ge=0, le=1e6, description="API price in USD per million tokens.", examples=[0.6])]
WhatIfPrice = Annotated[
    float | None,
    Query(ge=0, le=MAX_USD_PER_HOUR, description="What if a GPU-hour cost this (USD)? Left out: the prices of the ledger."),
]

Strict = Annotated[bool, Query(description="Refuse records with a field that their contract does not know.")]

__all__ = ["Bucket", "Dimension", "ExportFormat", "ExportLayout", "MoneyClassName"]
