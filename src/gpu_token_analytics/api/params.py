"""The query parameters of /v1: each declared once - name, type, limits, meaning - and for each
route one model of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field, StringConstraints

from gpu_token_analytics.costs.choices import (
    Bucket,
    Dimension,
    ExportFormat,
    ExportLayout,
    MoneyClassName,
    ShareRule,
)
from gpu_token_analytics.costs.cursors import MAX_CURSOR
from gpu_token_analytics.costs.entries import Instant
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.costs.questions import cost_query
from gpu_token_analytics.units import MAX_USD_PER_HOUR

Value = Annotated[str, StringConstraints(min_length=1, max_length=256)]

From = Annotated[
    Instant,
    Field(
        alias="from",
        description=(
            "Start, inclusive; RFC 3339 with offset, on a whole minute. Whole UTC hours answer "
            "fastest."
        ),
        examples=["2026-01-31T00:00:00Z"],
    ),
]
To = Annotated[
    Instant,
    Field(description="End, exclusive; on a whole minute.", examples=["2026-02-01T00:00:00Z"]),
]
TimeZone = Annotated[
    str,
    Field(
        max_length=64,
        description="IANA name; where hours and days begin, DST included.",
        examples=["Europe/Berlin"],
    ),
]
BucketOf = Annotated[
    Bucket,
    Field(
        description="Length of a row in time; hours and days are those of `time_zone`.",
        examples=["1h"],
    ),
]
GroupBy = Annotated[
    list[Dimension],
    Field(
        max_length=6,
        description="Repeatable: `group_by=model&group_by=tenant`.",
        examples=[["model"]],
    ),
]
Models = Annotated[
    list[Value], Field(alias="model", max_length=50, description="Only these models. Repeatable.")
]
Tenants = Annotated[
    list[Value], Field(alias="tenant", max_length=50, description="Only these tenants. Repeatable.")
]
Gpus = Annotated[
    list[Value], Field(alias="gpu", max_length=50, description="Only these GPUs. Repeatable.")
]
Hosts = Annotated[
    list[Value], Field(alias="host", max_length=50, description="Only these hosts. Repeatable.")
]
GpuNames = Annotated[
    list[Value],
    Field(alias="gpu_name", max_length=50, description="Only these GPU names. Repeatable."),
]
Classes = Annotated[
    list[MoneyClassName],
    Field(alias="class", max_length=5, description="Only money of these classes. Repeatable."),
]
Limit = Annotated[int, Field(ge=1, le=10_000, description="Most rows in a page.")]
ShortLimit = Annotated[int, Field(ge=1, le=1_000, description="Most rows in a page.")]
CellLimit = Annotated[int, Field(ge=1, le=1_000, description="Most cells in a page.")]
Cursor = Annotated[
    str | None, Field(max_length=MAX_CURSOR, description="`next` of the page before.")
]
RequestId = Annotated[
    str, Path(min_length=1, max_length=256, description="As the engine named it.")
]
ApiPrice = Annotated[
    float | None,
    Field(
        ge=0,
        le=1e6,
        description="API price in USD per million tokens, of any kind.",
        examples=[0.6],
    ),
]
ApiPriceList = Annotated[
    list[Value],
    Field(
        alias="price",
        max_length=50,
        description=(
            "`MODEL=INPUT/CACHED/OUTPUT` in USD per million tokens; `*` is every other model. "
            "Repeatable."
        ),
        examples=[["llama-3-8b=0.10/0.05/0.40"]],
    ),
]
WhatIfPrice = Annotated[
    float | None,
    Field(
        ge=0,
        le=MAX_USD_PER_HOUR,
        description="What if a GPU-hour cost this (USD)? Left out: the prices of the ledger.",
    ),
]

ChangesOnly = Annotated[
    bool,
    Field(
        description=(
            "Leave out rows that hold at their time anyway; model and counted_by that a row leaves "
            "out stay."
        )
    ),
]
Strict = Annotated[
    bool, Field(description="Refuse records with a field that their contract does not know.")
]
GpuOfRequests = Annotated[
    str, Field(min_length=1, max_length=256, description="GPU id, as in /v1/gpus.")
]
FileFormat = Annotated[ExportFormat, Field(alias="format", description="Kind of file.")]
Layout = Annotated[
    ExportLayout,
    Field(description="`focus` fixes grouping and bucket (hours) and needs a key for all tenants."),
]
BillingAccount = Annotated[
    str, Field(min_length=1, max_length=64, description="FOCUS BillingAccountId and -Name.")
]


Share = Annotated[
    ShareRule | None,
    Field(
        description=(
            "Also share idle money out among teams: by attributed money, in equal parts, or to who "
            "owns it."
        )
    ),
]
_CURRENCY = r"^[A-Z]{3}$"
CurrencyOf = Annotated[
    str, Field(pattern=_CURRENCY, description="ISO 4217, one of /v1/rates.", examples=["EUR"])
]
AlsoCurrency = Annotated[
    str | None,
    Field(
        pattern=_CURRENCY,
        description=(
            "Also in this currency (ISO 4217, one of /v1/rates), at the rate of each row's start; "
            "up to hours."
        ),
    ),
]
AlertLimit = Annotated[int, Field(ge=1, le=1_000, description="Most alerts.")]
OfBudget = Annotated[str | None, Field(max_length=64, description="Only alerts of this budget.")]


class Range(BaseModel):
    """A time: [start, to)."""

    start: From
    to: To


class BookPage(BaseModel):
    """Of /v1/prices and /v1/placements: most books are whole on the first page."""

    limit: ShortLimit = 1000
    cursor: Cursor = None


class Selection(BaseModel):
    """What /v1/costs and /v1/export are asked in the same words: grouping, zone and filters."""

    group_by: GroupBy = []
    time_zone: TimeZone = "UTC"
    models: Models = []
    tenants: Tenants = []
    gpus: Gpus = []
    hosts: Hosts = []
    gpu_names: GpuNames = []
    classes: Classes = []

    def query(
        self, start: datetime, end: datetime, bucket: Bucket, tenant_lock: str | None
    ) -> CostQuery:
        """The query. tenant_lock: the only tenant that may be seen. Raises Refused for what cannot
        be asked."""
        filters = {
            name: getattr(self, name)
            for name in ("models", "tenants", "gpus", "hosts", "gpu_names", "classes")
        }
        return cost_query(
            start, end, bucket, self.time_zone, self.group_by, **filters, tenant_lock=tenant_lock
        )


class Rows(Range):
    """A page of rows."""

    bucket: BucketOf = Bucket.NONE
    limit: Limit = 1000
    cursor: Cursor = None


Top = Annotated[
    int | None,
    Field(
        ge=1,
        le=1000,
        description=(
            "Only so many rows: bucket by bucket those with the most money, dearest first. Without "
            "`cursor`."
        ),
        examples=[100],
    ),
]


class CostsAsked(Selection, Rows):
    """Of /v1/costs."""

    top: Top = None


class ComparedAsked(Selection, Range):
    """Of /v1/costs/compared."""


class ConvertedAsked(Selection, Range):
    """Of /v1/costs/converted."""

    currency: CurrencyOf


class File(Range):
    """A file of rows."""

    file_format: FileFormat = ExportFormat.CSV
    layout: Layout = ExportLayout.COSTS
    bucket: BucketOf = Bucket.HOUR
    billing_account: BillingAccount = "self-hosted"
    currency: AlsoCurrency = None


class ExportAsked(Selection, File):
    """Of /v1/export."""


class BreakEvenAsked(Range):
    """Of /v1/break-even."""

    api_usd_per_million: ApiPrice = None
    prices: ApiPriceList = []
    usd_per_gpu_hour: WhatIfPrice = None
    models: Models = []


class IdleAsked(Range):
    """Of /v1/owners/idle."""

    share: Share = None


class HintsAsked(BaseModel):
    """Of /v1/hints."""

    time_zone: TimeZone = "UTC"


class GpusAsked(BaseModel):
    """Of /v1/gpus."""

    time_zone: TimeZone = "UTC"
    gpus: Gpus = []
    hosts: Hosts = []
    limit: ShortLimit = 200
    cursor: Cursor = None


class RequestsAsked(Range):
    """Of /v1/requests."""

    gpu: GpuOfRequests
    limit: ShortLimit = 100


class CellsAsked(Range):
    """Of /v1/ledger/cells and /v1/ledger/corrections."""

    gpus: Gpus = []
    limit: CellLimit = 200
    cursor: Cursor = None


class AlertsAsked(BaseModel):
    """Of /v1/budgets/alerts."""

    limit: AlertLimit = 100
    budget: OfBudget = None


class PlacementsAsked(BaseModel):
    """Of POST /v1/placements."""

    changes_only: ChangesOnly = False


class EventsAsked(BaseModel):
    """Of POST /v1/events."""

    strict: Strict = False
