"""What the routes of routes.py do. Each is a plain function: admitted request and checked parameters in, JSON out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_token_analytics.api.handlers import (
    costs,
    declarations,
    events,
    gpus,
    ledger,
    live,
    misc,
    placements,
    prices,
    requests,
    traces,
)
from gpu_token_analytics.api.handlers.export import export

HANDLERS: dict[str, Callable[..., Any]] = {
    "me": misc.me,
    "openapi": misc.openapi,
    "dimensions": misc.dimensions,
    "costs": costs.costs,
    "break_even": costs.break_even,
    "export": export,
    "gpus": gpus.gpus,
    "requests": requests.requests_of_gpu,
    "request": requests.request,
    "cells": ledger.cells,
    "corrections": ledger.corrections,
    "audit": ledger.audit,
    "quality": ledger.quality,
    "prices": prices.prices,
    "add_price": prices.add_price,
    "declarations": declarations.declarations,
    "declare": declarations.declare,
    "retire": declarations.retire,
    "withdraw": declarations.withdraw,
    "placements": placements.placements,
    "add_placements": placements.add_placements,
    "events": events.events,
    "traces": traces.traces,
    "stream": live.stream,
}
