"""/v1/me, /v1/dimensions, /v1/openapi.json."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from gpu_token_analytics import __version__
from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.queries import check_cost, check_range, cost_query
from gpu_token_analytics.api.render import json_response, timestamp
from gpu_token_analytics.api.services import AskDep


def me(ask: AskDep) -> Response:
    """Which key is in use: its scopes and tenant."""
    who = ask.principal
    body: dict[str, Any] = {
        "key": who.key,
        "scopes": sorted(who.scopes),
        "tenant": who.tenant,
        "anonymous": who.anonymous,
        "version": __version__,
    }
    return json_response(body)


def dimensions(ask: AskDep, start: p.From, to: p.To) -> Response:
    """The models, tenants, GPUs, hosts and GPU names that occur in the hours of a range."""
    low, high = check_range(start, to)
    reads = ask.services.reads
    check_cost(cost_query(low, high, group_by=() if ask.tenant else ("gpu",)), reads.gpu_count())
    values = reads.values(low, high, ask.tenant)
    body = {
        "from": timestamp(low),
        "to": timestamp(high),
        "next": None,
        "models": sorted(values.models),
        "tenants": sorted(values.tenants),
        "gpus": sorted(values.gpus),
        "hosts": sorted(values.hosts),
        "gpu_names": sorted(values.gpu_names),
    }
    return json_response(body)


def openapi(request: Request) -> Response:
    """This document."""
    return json_response(request.app.openapi())
