"""The client: `emit` puts an event into a bounded buffer, one thread brings it to the server.

emit -> encode -> buffer (memory, or files) -> sender thread -> batch -> transport
    -> acknowledged: dropped from the buffer
    -> unavailable: again, later
    -> refused: halved; one record: set aside
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from gpu_tokens_client.buffers import Buffer, MemoryBuffer
from gpu_tokens_client.event import Usage, encode, new_event_id, now
from gpu_tokens_client.sender import Sender
from gpu_tokens_client.spool import Spool
from gpu_tokens_client.transport import HttpTransport, Transport

_log = logging.getLogger("gpu_tokens_client")

MAX_MEMORY_BYTES = 16 * 1024 * 1024  # some 40,000 events
MAX_SPOOL_BYTES = 1024 * 1024 * 1024  # some 2.5 million events
CLOSE_SECONDS = 2.0
_WARN_SECONDS = 60.0


@dataclass(frozen=True)
class Stats:
    """What became of the events so far. `dropped`: the buffer was full or the disk refused;
    `invalid`: no JSON form."""

    emitted: int
    delivered: int
    rejected: int
    dropped: int
    invalid: int
    pending_bytes: int
    last_error: str | None


class UsageClient:
    """Sends usage events. One object per process and server; safe for threads, coroutines and
    forks."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        transport: Transport | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        max_memory_bytes: int = MAX_MEMORY_BYTES,
        max_spool_bytes: int = MAX_SPOOL_BYTES,
        host: str | None = None,
        gpu_uuids: Sequence[str] = (),
        gpu_index: int | None = None,
        model: str | None = None,
        tenant: str = "default",
    ) -> None:
        """Make a client for the server at `url`, or behind another `transport`.

        url, api_key, spool_dir, host: by default GPU_TOKENS_URL, GPU_TOKENS_API_KEY,
        GPU_TOKENS_SPOOL_DIR, GPU_TOKENS_HOST. spool_dir: a folder that several processes may share;
        without it events wait in memory and are lost with the process. host, gpu_uuids, gpu_index,
        model, tenant: what an event says where `emit` is not told.

        Raises ValueError where neither url nor transport is known. Starts no thread and opens
        nothing before the first event.
        """
        if transport is None:
            address = url or os.environ.get("GPU_TOKENS_URL")
            if not address:
                raise ValueError(
                    "url is missing: give the server's base address, or set GPU_TOKENS_URL"
                )
            transport = HttpTransport(address, api_key or os.environ.get("GPU_TOKENS_API_KEY"))
        directory = spool_dir or os.environ.get("GPU_TOKENS_SPOOL_DIR")
        self._spool_root = Path(directory) if directory else None
        self._transport = transport
        self._max_memory_bytes, self._max_spool_bytes = max_memory_bytes, max_spool_bytes
        self._host = host or os.environ.get("GPU_TOKENS_HOST") or os.uname().nodename
        self._gpu_uuids, self._gpu_index = list(gpu_uuids), gpu_index
        self._model, self._tenant = model, tenant
        self._emitted = self._dropped = self._invalid = 0
        self._warned_at = -_WARN_SECONDS
        self._closed = False
        self._buffer = self._new_buffer()
        self._sender = Sender(self._buffer, transport, self._spool_root)
        _live.add(self)

    def emit(
        self,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        model: str | None = None,
        tenant: str | None = None,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        latency_ms: float | None = None,
        queue_ms: float | None = None,
        ttft_ms: float | None = None,
        finish_reason: str | None = None,
        request_id: str | None = None,
        event_id: str | None = None,
        ended_at: datetime | None = None,
        host: str | None = None,
        gpu_uuids: Sequence[str] | None = None,
        gpu_index: int | None = None,
    ) -> str | None:
        """Take the event of one finished request and return its id; None where it was not taken
        (`stats` says why).

        Never raises and never waits for the network, so coroutines call it as it is. Counts are
        inclusive: cached tokens are part of prompt_tokens, reasoning tokens of completion_tokens.
        ended_at: an aware datetime, by default now. Give a stable event_id where one request may be
        reported twice: it then counts once.
        """
        try:
            identity = event_id or new_event_id()
            usage = Usage(
                event_id=identity,
                ts=ended_at or now(),
                host=host or self._host,
                model=model or self._model or "",
                request_id=request_id or identity,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                gpu_uuids=self._gpu_uuids if gpu_uuids is None else list(gpu_uuids),
                gpu_index=self._gpu_index if gpu_index is None else gpu_index,
                tenant=tenant or self._tenant,
                cached_tokens=cached_tokens,
                reasoning_tokens=reasoning_tokens,
                latency_ms=latency_ms,
                queue_ms=queue_ms,
                ttft_ms=ttft_ms,
                finish_reason=finish_reason,
            )
            record = encode(usage)
        except Exception as error:  # noqa: BLE001  # whatever the caller's own objects raise
            self._invalid += 1
            named, why = _shown(model), _shown(error)
            self._warn(f"an event of model {named} cannot be encoded and was left out: {why}")
            return None
        return identity if self._take(record) else None

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until the server has all that was emitted. False: something still waits, after
        `timeout_seconds`."""
        return self._sender.flush(timeout_seconds)

    async def aflush(self, timeout_seconds: float = 10.0) -> bool:
        """`flush` for coroutines."""
        return await asyncio.to_thread(self.flush, timeout_seconds)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what can be sent in `timeout_seconds` and stop. What is left stays in the spool, or
        is lost from memory."""
        if self._closed:
            return
        self._closed = True
        if not self._sender.close(timeout_seconds) and self._spool_root is None:
            _log.warning(
                "closed with %d bytes of events unsent, which are lost: no spool_dir",
                self._buffer.pending_bytes,
            )
        self._transport.close()

    async def aclose(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """`close` for coroutines."""
        await asyncio.to_thread(self.close, timeout_seconds)

    def stats(self) -> Stats:
        """Return what became of the events so far."""
        sender = self._sender
        return Stats(
            emitted=self._emitted,
            delivered=sender.delivered,
            rejected=sender.rejected,
            dropped=self._dropped,
            invalid=self._invalid,
            pending_bytes=self._buffer.pending_bytes,
            last_error=sender.last_error,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _take(self, record: bytes) -> bool:
        if self._closed:
            taken, reason = False, "the client is closed"
        else:
            try:
                taken, reason = self._buffer.append(record), "the buffer is full"
            except OSError as error:
                taken, reason = False, str(error)
        if not taken:
            self._dropped += 1
            self._warn(f"an event was dropped: {reason} ({self._dropped} so far)")
            return False
        self._emitted += 1
        self._sender.wake(len(record))
        return True

    def _new_buffer(self) -> Buffer:
        if self._spool_root is None:
            return MemoryBuffer(self._max_memory_bytes)
        try:
            return Spool.create(self._spool_root, self._max_spool_bytes)
        except OSError as error:
            # The caller's service must start even so; what is at stake is said once, loudly.
            _log.error(
                "spool_dir=%s cannot be used (%s): events wait in memory instead",
                self._spool_root,
                error,
            )
            self._spool_root = None
            return MemoryBuffer(self._max_memory_bytes)

    def _warn(self, message: str) -> None:
        if time.monotonic() - self._warned_at >= _WARN_SECONDS:
            self._warned_at = time.monotonic()
            _log.warning("%s", message)

    def _after_fork(self) -> None:
        """In a child: what waits is the parent's to send; threads, locks and connections did not
        come along."""
        if isinstance(self._buffer, Spool):
            self._buffer.abandon()
        self._emitted = self._dropped = self._invalid = 0
        self._transport.after_fork()
        self._buffer = self._new_buffer()
        self._sender = Sender(self._buffer, self._transport, self._spool_root)


def _shown(value: object) -> str:
    """A value in the log; its type where it cannot be written."""
    try:
        return (str(value) if isinstance(value, Exception) else repr(value))[:200]
    except Exception:  # noqa: BLE001  # see emit
        return f"<{type(value).__name__}>"


_live: weakref.WeakSet[UsageClient] = weakref.WeakSet()


def _close_all() -> None:
    for client in list(_live):
        client.close()


def _renew_all() -> None:
    for client in list(_live):
        client._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_renew_all)
