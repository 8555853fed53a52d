"""An ASGI application on a loopback port, in a thread: real HTTP, real addresses, gone
afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gpu_token_analytics.http_server import in_thread


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve it for a block; yields its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=1
    )
    with in_thread(config, stop_seconds=15) as server:
        yield server.url
    assert not server.is_alive, "the server did not stop"
