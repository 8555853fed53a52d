"""The small HTTP server beside a process's own work: health, readiness and metrics, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.http_guard import MAX_CONNECTIONS, guarded
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

_START_SECONDS = 10.0
_JOIN_SECONDS = 10.0


@contextmanager
def serving(app: object, settings: Settings) -> Iterator[None]:
    """Serve an ASGI app on HTTP_HOST:HTTP_PORT for a block; signals stay with the main thread.

    Raises SettingsError when the port cannot be listened on.
    """
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI app
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        http=guarded(settings.http_max_connections_per_address, settings.http_silence_seconds),
        timeout_keep_alive=5,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    waited = threading.Event()
    for _ in range(int(_START_SECONDS * 20)):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.05)
    if not server.started:
        raise SettingsError(
            f"HTTP_HOST={settings.http_host} HTTP_PORT={settings.http_port} cannot be listened on; "
            "choose another port, or 0 for a free one"
        )
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    _log.info("listening on http://%s:%d", host, port)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_JOIN_SECONDS)
