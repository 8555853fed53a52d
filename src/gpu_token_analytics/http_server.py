"""HTTP servers in threads of their own; and the small one beside a process's work: health,
readiness and metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.http_guard import MAX_CONNECTIONS, guarded
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

_START_SECONDS = 30.0
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
    with in_thread(config):
        yield


@dataclass(frozen=True)
class Listening:
    """A server at work: where it listens, and whether it still does."""

    host: str
    port: int
    _thread: threading.Thread

    @property
    def url(self) -> str:
        """Where to ask it."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_alive(self) -> bool:
        """False once it ended by itself."""
        return self._thread.is_alive()


@contextmanager
def in_thread(config: uvicorn.Config, stop_seconds: float = _JOIN_SECONDS) -> Iterator[Listening]:
    """Run a server in a thread of its own for a block, at the end of which it has stop_seconds to
    answer what it was asked; signals stay with the main thread.

    Raises SettingsError when the port cannot be listened on.
    """
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    until = time.monotonic() + _START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    if not server.started:
        raise SettingsError(
            f"HTTP_HOST={config.host} HTTP_PORT={config.port} cannot be listened on: the port is "
            "taken, or the address is not "
            "of this machine; choose another port, or 0 for a free one"
        )
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    _log.info("listening on http://%s:%d", host, port)
    try:
        yield Listening(host, port, thread)
    finally:
        server.should_exit = True
        thread.join(stop_seconds)
