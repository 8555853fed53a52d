"""/v1/me and /v1/openapi.json."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse

from gpu_token_analytics import __version__
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.costs.answers import Me


def me(ask: AskDep) -> Me:
    """Which key is in use: its scopes and tenant."""
    who = ask.principal
    return Me(who.key, sorted(who.scopes), who.tenant, who.anonymous, __version__)


def openapi(request: Request) -> JSONResponse:
    """This document."""
    return JSONResponse(request.app.openapi())
