"""What /v1 says, as types: the OpenAPI document is made from these, and tests check every response against them.

Rules: money is an integer of nano-USD (`_nusd`); a JSON reader that keeps integers as doubles is exact up to 9
million USD in one number. Times are RFC 3339 with an offset. Unknown is null, never 0. Ratios are sum/sum.
"""

from gpu_token_analytics.api.models.access import KeyInfo, Me
from gpu_token_analytics.api.models.costs import (
    BreakEvenResponse,
    CostRow,
    CostsResponse,
    DimensionsResponse,
    Money,
    Quality,
    Rates,
    Tokens,
)
from gpu_token_analytics.api.models.declarations import Declaration, DeclarationsResponse
from gpu_token_analytics.api.models.events import EventOutcome, EventsResponse
from gpu_token_analytics.api.models.gpus import GpusResponse, GpuState
from gpu_token_analytics.api.models.ledger import (
    AuditResponse,
    Cell,
    CellsResponse,
    CorrectionsResponse,
    QualityResponse,
)
from gpu_token_analytics.api.models.live import Live
from gpu_token_analytics.api.models.placements import AppendedPlacements, NewPlacement, Placement, PlacementsResponse
from gpu_token_analytics.api.models.prices import NewPrice, Price, PricesResponse
from gpu_token_analytics.api.models.problem import Problem
from gpu_token_analytics.api.models.requests import RequestResponse, RequestsResponse

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
    "NewPlacement",
    "NewPrice",
    "Placement",
    "PlacementsResponse",
    "Price",
    "PricesResponse",
    "Problem",
    "Quality",
    "QualityResponse",
    "Rates",
    "RequestResponse",
    "RequestsResponse",
    "Tokens",
]
