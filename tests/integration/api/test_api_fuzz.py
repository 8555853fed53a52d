"""Requests made up from the OpenAPI document (schemathesis): no 5xx, no answer outside its schema,
with and without a key.

The stream never ends by itself and is tested in test_api_access.py.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the fuzzer's own dependencies deprecate is theirs
    import schemathesis
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

from gpu_token_analytics.api.app import document
from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.route import Access
from gpu_token_analytics.api.routes import ROUTES

from .conftest import Api

FUZZED = [route for route in ROUTES if route.name != "stream"]
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.filterwarnings("ignore")  # the fuzzer and what it is built on
@pytest.mark.parametrize("route", FUZZED, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("key", ["admin", "tenant", "none"])
def test_no_made_up_request_breaks_a_route(api: Api, route: Any, key: str) -> None:
    schema = schemathesis.openapi.from_dict(document())
    operation = schema[route.path][route.method]
    scopes = {"admin": (KeyScope.ADMIN,), "tenant": (KeyScope.READ, KeyScope.INGEST), "none": ()}[
        key
    ]
    text = api.key(*scopes, tenant="tenant-01" if key == "tenant" else None) if scopes else None
    headers = {"Authorization": f"Bearer {text}"} if text else {}

    @given(case=operation.as_strategy())
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(case: Any) -> None:
        for name in ("Authorization", "X-API-Key"):
            case.headers.pop(name, None)
        response = case.call(base_url=api.url, headers=headers)
        case.validate_response(response, checks=CHECKS, headers=headers)
        if key == "none" and route.access is not Access.PUBLIC:
            assert response.status_code == 401
        if key == "tenant" and not route.tenant_keys and route.access is not Access.PUBLIC:
            assert response.status_code == 403
        assert "Traceback" not in response.text

    fuzz()
