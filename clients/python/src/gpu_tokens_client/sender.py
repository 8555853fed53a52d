"""The one thread that brings a buffer's records to the server."""

from __future__ import annotations

import logging
import random
import threading
import time
from pathlib import Path

from gpu_tokens_client.buffers import Buffer
from gpu_tokens_client.spool import Spool, keep_rejected
from gpu_tokens_client.transport import Delivered, Refused, Transport, Unavailable

_log = logging.getLogger("gpu_tokens_client")

BATCH_RECORDS = 500
BATCH_BYTES = 512 * 1024
LINGER_SECONDS = 0.5  # how long a record waits for company
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.25, 15.0
_ADOPT_SECONDS = 30.0
_WARN_SECONDS = 60.0


class Sender:
    """Sends batches from `buffer`, and from the folders of dead processes beside it, until
    closed."""

    def __init__(self, buffer: Buffer, transport: Transport, spool_root: Path | None) -> None:
        """Make a sender at rest; its thread starts with the first `wake`."""
        self.delivered = self.rejected = 0
        self.last_error: str | None = None
        self._buffer, self._transport, self._root = buffer, transport, spool_root
        self._orphans: list[Spool] = []
        self._adopt_at = 0.0
        self._max_records = BATCH_RECORDS
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._warned_at = -_WARN_SECONDS
        self._hurry = threading.Event()  # somebody waits: do not linger
        self._wanted = threading.Event()  # something was appended
        self._closing = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self, size_bytes: int) -> None:
        """Something was appended."""
        if self._thread is None:
            self._start()
        if not self._wanted.is_set():
            self._wanted.set()
        if self._buffer.pending_bytes - size_bytes >= BATCH_BYTES and not self._hurry.is_set():
            self._hurry.set()

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until nothing is pending. Folders of dead processes count, too, once they were
        found."""
        deadline = time.monotonic() + timeout_seconds
        if self._buffer.pending_bytes:
            self._start()
        while self._buffer.pending_bytes or self._orphans:
            self._hurry.set()
            self._wanted.set()
            if time.monotonic() >= deadline:
                return False
            self._idle.wait(0.02)
            time.sleep(0.005)
        return True

    def close(self, timeout_seconds: float) -> bool:
        """Flush, then end the thread and let go of the files. True: nothing was left."""
        done = (
            self.flush(timeout_seconds)
            if self._thread is not None
            else not self._buffer.pending_bytes
        )
        self._closing.set()
        self._hurry.set()
        self._wanted.set()
        thread = self._thread
        if thread is not None:
            # It may be inside a request to a dead server: it is a daemon, and sending again is
            # harmless.
            thread.join(0.2 if not done else timeout_seconds)
        if thread is None or not thread.is_alive():
            self._release()
        return done

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="gpu-tokens-client", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._once()
            except Exception:  # noqa: BLE001
                # Whatever it is, the caller's service must not notice: said in the log, and tried
                # again.
                _log.exception(
                    "the sender of usage events failed; it goes on in %s s", _LAST_RETRY_SECONDS
                )
                self._closing.wait(_LAST_RETRY_SECONDS)

    def _once(self) -> None:
        """Send one batch of each buffer that has any, or wait for one."""
        self._adopt()
        buffers = [buffer for buffer in (self._buffer, *self._orphans) if buffer.pending_bytes > 0]
        if not buffers:
            self._idle.set()
            self._wanted.wait(_ADOPT_SECONDS)
            self._wanted.clear()
            if not self._closing.is_set() and self._buffer.pending_bytes:
                self._idle.clear()
                self._hurry.wait(LINGER_SECONDS)
                self._hurry.clear()
            return
        self._idle.clear()
        for buffer in buffers:
            if not self._send(buffer):
                return

    def _send(self, buffer: Buffer) -> bool:
        """Send the head of a buffer. False: the server is not to be had now, and the wait for it is
        over."""
        batch = buffer.head(self._max_records, BATCH_BYTES)
        if not batch.records:
            return True
        match self._transport.send(batch.records):
            case Delivered(rejected):
                for index, reason in rejected.items():
                    self._set_aside(batch.records[index], reason)
                self.delivered += len(batch.records) - len(rejected)
                buffer.drop(batch)
                self._max_records = min(BATCH_RECORDS, self._max_records * 2)
                self._retry_seconds = _FIRST_RETRY_SECONDS
            case Refused(reason) if len(batch.records) == 1:
                self._set_aside(batch.records[0], reason)
                buffer.drop(batch)
            case Refused(reason):
                self.last_error = reason
                self._max_records = max(1, len(batch.records) // 2)
            case Unavailable(reason, retry_after_seconds):
                self._back_off(reason, retry_after_seconds)
                return False
        return True

    def _back_off(self, reason: str, retry_after_seconds: float | None) -> None:
        self.last_error = reason
        self._warn(f"usage events wait: {reason}")
        seconds = (
            self._retry_seconds
            if retry_after_seconds is None
            else max(retry_after_seconds, self._retry_seconds)
        )
        self._retry_seconds = min(_LAST_RETRY_SECONDS, self._retry_seconds * 2)
        # Many clients lost the same server at the same moment; they must not all return in the same
        # one.
        self._closing.wait(seconds * random.uniform(0.7, 1.3))

    def _set_aside(self, record: bytes, reason: str) -> None:
        self.rejected += 1
        self.last_error = reason
        kept = self._root is not None and keep_rejected(self._root, record, reason)
        where = f"kept in {self._root}/rejected.ndjson" if kept else "not kept"
        self._warn(f"the server refused an event for good ({where}): {reason}")

    def _adopt(self) -> None:
        """Look now and then for folders of dead processes, and let go of those that are sent."""
        if self._root is None:
            return
        for orphan in self._orphans:
            if orphan.pending_bytes <= 0:
                orphan.close()
        self._orphans = [orphan for orphan in self._orphans if orphan.pending_bytes > 0]
        if time.monotonic() >= self._adopt_at:
            self._adopt_at = time.monotonic() + _ADOPT_SECONDS
            self._orphans += Spool.orphans(self._root)

    def _release(self) -> None:
        self._buffer.close()
        for orphan in self._orphans:
            orphan.close()

    def _warn(self, message: str) -> None:
        if time.monotonic() - self._warned_at >= _WARN_SECONDS:
            self._warned_at = time.monotonic()
            _log.warning("%s", message)
