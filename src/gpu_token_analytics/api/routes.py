"""Every route of the process, in one place: path, who may call it, what it answers.

Deny by default: app.py adds routes only from this table, each with the check of its `access`, and a test walks the
finished application to see that nothing else answers.

Tenant keys: a key with a tenant sees attributed money, tokens and requests of that tenant only. Idle money, other
tenants' figures, GPUs, cells and prices would let it work out what others do, so those routes answer 403 and those
columns are null or 0. `tenant_keys` says which routes such a key may call; the filter itself is part of the query
(costs/), so a route cannot forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from gpu_token_analytics.api import models as m


class Access(StrEnum):
    """What a caller needs. PUBLIC: nothing (no data behind it)."""

    PUBLIC = "public"
    ANY_KEY = "any_key"
    READ = "read"
    INGEST = "ingest"
    ADMIN = "admin"


@dataclass(frozen=True)
class Route:
    """One line of the table. `handler` is a function of api/handlers of that name. `names_existing`: its path or body names
    something that has to be there, else 404."""

    method: Literal["GET", "POST"]
    path: str
    access: Access
    handler: str
    model: type[Any] | None
    summary: str
    tenant_keys: bool = False
    status: int = 200
    media_types: tuple[str, ...] = ("application/json",)
    names_existing: bool = False


JSON = ("application/json",)
SSE = ("text/event-stream",)
OTLP = ("application/x-protobuf", "application/json")
EXPORT = ("text/csv", "application/vnd.apache.parquet")

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/me", Access.ANY_KEY, "me", m.Me, "The key in use and what it may do", tenant_keys=True),
    Route("GET", "/v1/costs", Access.READ, "costs", m.CostsResponse, "Money, tokens and rates by group", tenant_keys=True),
    Route(
        "GET",
        "/v1/dimensions",
        Access.READ,
        "dimensions",
        m.DimensionsResponse,
        "Values to filter by",
        tenant_keys=True,
    ),
    Route(
        "GET",
        "/v1/export",
        Access.READ,
        "export",
        None,
        "The same rows as a file",
        tenant_keys=True,
        media_types=EXPORT,
    ),
    Route("GET", "/v1/break-even", Access.READ, "break_even", m.BreakEvenResponse, "Own GPUs against an API price"),
    Route("GET", "/v1/gpus", Access.READ, "gpus", m.GpusResponse, "Every GPU now"),
    Route("GET", "/v1/requests", Access.READ, "requests", m.RequestsResponse, "Requests of a GPU in a range"),
    Route(
        "GET",
        "/v1/requests/{request_id}",
        Access.READ,
        "request",
        m.RequestResponse,
        "One request, traced",
        tenant_keys=True,
        names_existing=True,
    ),
    Route("GET", "/v1/ledger/cells", Access.READ, "cells", m.CellsResponse, "Cells as stored"),
    Route(
        "GET",
        "/v1/ledger/corrections",
        Access.READ,
        "corrections",
        m.CorrectionsResponse,
        "Cells corrected after final",
    ),
    Route("GET", "/v1/audit", Access.READ, "audit", m.AuditResponse, "Does the identity hold?"),
    Route("GET", "/v1/quality", Access.READ, "quality", m.QualityResponse, "Coverage, late, corrected, dead letters"),
    Route("GET", "/v1/prices", Access.READ, "prices", m.PricesResponse, "The price book"),
    Route("POST", "/v1/prices", Access.ADMIN, "add_price", m.Price, "Append a price row", status=201),
    Route("GET", "/v1/declarations", Access.READ, "declarations", m.DeclarationsResponse, "GPUs known without samples"),
    Route("POST", "/v1/declarations", Access.ADMIN, "declare", m.Declaration, "Declare a GPU", status=201),
    Route("POST", "/v1/declarations/retire", Access.ADMIN, "retire", m.Declaration, "End a declaration", names_existing=True),
    Route(
        "POST",
        "/v1/declarations/withdraw",
        Access.ADMIN,
        "withdraw",
        m.Declaration,
        "Take a declaration back",
        names_existing=True,
    ),
    Route("GET", "/v1/placements", Access.READ, "placements", m.PlacementsResponse, "Which engine runs on which GPUs"),
    Route("POST", "/v1/placements", Access.ADMIN, "add_placements", m.AppendedPlacements, "Append placements", status=201),
    Route("POST", "/v1/events", Access.INGEST, "events", m.EventsResponse, "Send events", tenant_keys=True),
    Route(
        "POST",
        "/v1/traces",
        Access.INGEST,
        "traces",
        None,
        "Send spans (OTLP)",
        tenant_keys=True,
        media_types=OTLP,
    ),
    Route("GET", "/v1/stream", Access.READ, "stream", None, "Live figures (SSE)", tenant_keys=True, media_types=SSE),
    Route("GET", "/v1/openapi.json", Access.PUBLIC, "openapi", None, "This interface as OpenAPI"),
)

# Outside /v1, without a key: probes and scrapes come from the platform. Expose only /v1 and the dashboard to users.
PLAIN_PATHS = ("/health", "/ready", "/metrics")
