"""What nobody caught is a problem of ours; a client that hangs up is none."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from gpu_token_analytics.api.errors import Unexpected
from gpu_token_analytics.api.handlers.events import _foreign
from gpu_token_analytics.wire.events import decode


def statuses_of(error: Exception) -> list[int]:
    """What is answered where the application ends with this error."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/v1/events",
        "method": "POST",
        "headers": [],
        "request_id": "r-1",
    }
    asyncio.run(Unexpected(app)(scope, None, send))  # type: ignore[arg-type]  # nothing is received
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def test_a_client_that_hangs_up_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Counted as a 500 it would set off the alerts of the service, and each would be forty lines of
    the log."""
    caplog.set_level(logging.INFO)
    assert statuses_of(ClientDisconnect()) == []
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert "r-1" in record.getMessage()


def test_any_other_error_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert statuses_of(ValueError("x")) == [500]
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_tenants_that_look_alike_are_told_apart() -> None:
    event = decode(
        b'{"schema":"token.usage.v1","event_id":"e","ts":"2026-01-31T12:00:00Z","host":"h",'
        b'"model":"m","request_id":"r",'
        b'"prompt_tokens":1,"completion_tokens":1,"gpu_index":0,"tenant":"cafe\\u0301"}'
    )
    said = _foreign(event, "caf\u00e9")
    assert said == "tenant=cafe\\u0301: this key is for tenant caf\\xe9 only"
