"""What /v1 says, as types: the OpenAPI document is made from these, and tests check every response
against them.

Rules: money is an integer of nano-USD (`_nusd`); a JSON reader that keeps integers as doubles is
exact up to 9 million USD in one number. Times are RFC 3339 with an offset. Unknown is null, never
0. Ratios are sum/sum.
"""

from gpu_token_analytics.costs.answers.access import KeyInfo, Me
from gpu_token_analytics.costs.answers.costs import (
    BreakEvenResponse,
    CostRow,
    CostsResponse,
    DimensionsResponse,
    Money,
    Quality,
    Rates,
    Tokens,
)
from gpu_token_analytics.costs.answers.declarations import Declaration, DeclarationsResponse
from gpu_token_analytics.costs.answers.events import EventOutcome, EventsResponse
from gpu_token_analytics.costs.answers.gpus import GpusResponse, GpuState
from gpu_token_analytics.costs.answers.ledger import (
    AuditResponse,
    Cell,
    CellsResponse,
    CorrectionsResponse,
    QualityResponse,
)
from gpu_token_analytics.costs.answers.live import Live
from gpu_token_analytics.costs.answers.placements import (
    AppendedPlacements,
    Placement,
    PlacementsResponse,
)
from gpu_token_analytics.costs.answers.prices import Price, PricesResponse
from gpu_token_analytics.costs.answers.requests import RequestResponse, RequestsResponse

__all__ = [
    "AppendedPlacements",
    "AuditResponse",
    "BreakEvenResponse",
    "Cell",
    "CellsResponse",
    "CorrectionsResponse",
    "CostRow",
    "CostsResponse",
    "Declaration",
    "DeclarationsResponse",
    "DimensionsResponse",
    "EventOutcome",
    "EventsResponse",
    "GpuState",
    "GpusResponse",
    "KeyInfo",
    "Live",
    "Me",
    "Money",
    "Placement",
    "PlacementsResponse",
    "Price",
    "PricesResponse",
    "Quality",
    "QualityResponse",
    "Rates",
    "RequestResponse",
    "RequestsResponse",
    "Tokens",
]
