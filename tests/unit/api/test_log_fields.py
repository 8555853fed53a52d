"""Lines of the log that an API request causes say which request, and which trace of the caller, it
was."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gpu_token_analytics import logs
from gpu_token_analytics.api.limits import Envelope
from gpu_token_analytics.settings import load

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def line_of(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """What an application behind the envelope logs during a request with these headers."""
    out = io.StringIO()
    logging.root.handlers[:] = []
    logs.configure(load(log_format="json"), out)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        logging.getLogger("app").warning("at work on %s", scope["request_id"])

    scope = {"type": "http", "path": "/v1/me", "headers": list(headers)}
    asyncio.run(Envelope(app)(scope, None, None))  # type: ignore[arg-type]  # nothing is received or sent
    found: dict[str, Any] = json.loads(out.getvalue())
    assert found["message"].endswith(found["request_id"])
    return found


def test_a_line_says_its_request_and_the_callers_trace() -> None:
    assert (
        line_of((b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode()))["trace_id"] == TRACE
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"00-zz-1-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01".encode(),
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
    ],
)
def test_what_is_no_trace_is_left_out(sent: bytes) -> None:
    assert "trace_id" not in line_of((b"traceparent", sent))
    assert "trace_id" not in line_of()
