"""Every route of the process, in one place: path, who may call it, what it answers.

Deny by default: app.py adds routes only from this table, each with the check of its `access`, and a
test walks the finished application to see that nothing else answers.

Tenant keys: a key with a tenant sees attributed money, tokens and requests of that tenant only.
Idle money, other tenants' figures, GPUs, cells and prices would let it work out what others do, so
those routes answer 403 and those columns are null or 0. `tenant_keys` says which routes such a key
may call; the filter itself is part of the query (costs/), so a route cannot forget it.
"""

from __future__ import annotations

from gpu_token_analytics.api.handlers import (
    about,
    books,
    budgets,
    costs,
    events,
    ledger,
    owners,
    stream,
    teams,
    traces,
)
from gpu_token_analytics.api.route import Access, Route

READ, INGEST, ADMIN = Access.READ, Access.INGEST, Access.ADMIN
SSE = ("text/event-stream",)
OTLP = ("application/x-protobuf", "application/json")
EXPORT = ("text/csv", "application/vnd.apache.parquet")

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/me",
        Access.ANY_KEY,
        about.me,
        "The key in use and what it may do",
        tenant_keys=True,
    ),
    Route(
        "GET", "/v1/costs", READ, costs.costs, "Money, tokens and rates by group", tenant_keys=True
    ),
    Route(
        "GET",
        "/v1/costs/compared",
        READ,
        costs.costs_compared,
        "A range beside the period before",
        tenant_keys=True,
    ),
    Route(
        "GET",
        "/v1/costs/converted",
        READ,
        costs.costs_converted,
        "Money in another currency",
        tenant_keys=True,
    ),
    Route("GET", "/v1/dimensions", READ, costs.dimensions, "Values to filter by", tenant_keys=True),
    Route(
        "GET",
        "/v1/export",
        READ,
        costs.export,
        "The same rows as a file",
        tenant_keys=True,
        media_types=EXPORT,
    ),
    Route("GET", "/v1/break-even", READ, costs.break_even, "Own GPUs against an API price"),
    Route("GET", "/v1/gpus", READ, ledger.gpus, "Every GPU now"),
    Route("GET", "/v1/requests", READ, ledger.requests, "Requests of a GPU in a range"),
    Route(
        "GET",
        "/v1/requests/{request_id}",
        READ,
        ledger.request,
        "One request, traced",
        tenant_keys=True,
        names_existing=True,
    ),
    Route("GET", "/v1/ledger/cells", READ, ledger.cells, "Cells as stored"),
    Route("GET", "/v1/ledger/corrections", READ, ledger.corrections, "Cells corrected after final"),
    Route("GET", "/v1/audit", READ, ledger.audit, "Does the identity hold?"),
    Route("GET", "/v1/quality", READ, ledger.quality, "Coverage, late, corrected, dead letters"),
    Route("GET", "/v1/prices", READ, books.prices, "The price book"),
    Route("POST", "/v1/prices", ADMIN, books.add_price, "Append a price row", status=201),
    Route("GET", "/v1/rates", READ, books.rates, "What a USD is worth", tenant_keys=True),
    Route("POST", "/v1/rates", ADMIN, books.add_rate, "Append an exchange rate", status=201),
    Route("GET", "/v1/declarations", READ, books.declarations, "GPUs known without samples"),
    Route("POST", "/v1/declarations", ADMIN, books.declare, "Declare a GPU", status=201),
    Route(
        "POST",
        "/v1/declarations/retire",
        ADMIN,
        books.retire,
        "End a declaration",
        names_existing=True,
    ),
    Route(
        "POST",
        "/v1/declarations/withdraw",
        ADMIN,
        books.withdraw,
        "Take a declaration back",
        names_existing=True,
    ),
    Route("GET", "/v1/teams", READ, teams.teams, "Which team a tenant belongs to"),
    Route("POST", "/v1/teams", ADMIN, teams.add_team, "Say a tenant's team", status=201),
    Route("GET", "/v1/teams/costs", READ, teams.costs_of_teams, "Attributed money by team"),
    Route("GET", "/v1/owners", READ, owners.owners, "Who owns GPUs, hosts and models"),
    Route("POST", "/v1/owners", ADMIN, owners.add_owner, "Say an owner", status=201),
    Route(
        "GET", "/v1/owners/idle", READ, owners.idle_of_owners, "Idle money by owner, and shared out"
    ),
    Route(
        "GET", "/v1/hints", READ, owners.idle_hints, "What to give back, put together or scale down"
    ),
    Route(
        "GET", "/v1/budgets", READ, budgets.budgets, "Budgets and how they stand", tenant_keys=True
    ),
    Route("POST", "/v1/budgets", ADMIN, budgets.set_budget, "Set a budget", status=201),
    Route(
        "POST",
        "/v1/budgets/remove",
        ADMIN,
        budgets.remove_budget,
        "Remove a budget",
        names_existing=True,
    ),
    Route("GET", "/v1/budgets/alerts", READ, budgets.budget_alerts, "What was told of budgets"),
    Route("GET", "/v1/placements", READ, books.placements, "Which engine runs on which GPUs"),
    Route(
        "POST",
        "/v1/placements",
        Access.PLACEMENTS,
        books.add_placements,
        "Append placements",
        status=201,
    ),
    Route(
        "POST",
        "/v1/events",
        INGEST,
        events.events,
        "Send events",
        tenant_keys=True,
        body=events.BODY,
    ),
    Route(
        "POST",
        "/v1/traces",
        INGEST,
        traces.traces,
        "Send spans (OTLP)",
        tenant_keys=True,
        media_types=OTLP,
        body=traces.BODY,
    ),
    Route(
        "GET",
        "/v1/stream",
        READ,
        stream.stream,
        "Live figures (SSE)",
        tenant_keys=True,
        media_types=SSE,
    ),
    Route("GET", "/v1/openapi.json", Access.PUBLIC, about.openapi, "This interface as OpenAPI"),
)

# Outside /v1, without a key: probes and scrapes come from the platform. Expose only /v1 and the
# dashboard to users.
PLAIN_PATHS = ("/health", "/ready", "/metrics")
