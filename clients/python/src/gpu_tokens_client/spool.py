"""Events in files, so that they outlive the process that emitted them.

    <spool_dir>/<pid>-<random>/     one folder per process; whoever holds its lock owns it
        lock                        flock: released by the kernel when the process ends, however it
                                    ends
        00000001.ndjson ...         records, one a line, oldest segment first
        sent                        "<segment> <offset>": everything before it is acknowledged
    <spool_dir>/rejected.ndjson     what the server will never take, with its reason

A record is written with one write() before `emit` returns: it is in the kernel's page cache then
and survives `kill -9` of the process (not a power cut: no fsync, which would make callers wait for
the disk). `sent` is written after the server's acknowledgment; a crash in between sends a batch
again, under the same event ids, which counts once.
A folder whose process has died is adopted by the next client that looks (`Spool.orphans`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from gpu_tokens_client.buffers import EMPTY, Batch

SEGMENT_BYTES = 8 * 1024 * 1024
_REJECTED_BYTES = 16 * 1024 * 1024
_SUFFIX = ".ndjson"


class Spool:
    """The folder of one process: a Buffer on disk."""

    def __init__(self, folder: Path, lock: int, max_bytes: int) -> None:
        """Use `create` or `orphans`. lock: a descriptor that holds the folder's flock."""
        self._folder, self._lock_fd, self._max_bytes = folder, lock, max_bytes
        # Held by callers of emit, so the sender takes it for sums alone: under it, no file is
        # renamed and none is read. Re-entrant: a signal handler may emit while its thread is in
        # here.
        self._lock = threading.RLock()
        self._writer: int | None = None
        self._segment, self._offset = self._read_sent()
        existing = self._segments()
        self._last = existing[-1] if existing else self._segment
        self._last_bytes = 0
        self._pending = sum(self._size(segment) for segment in existing) - (
            self._offset if existing else 0
        )

    @classmethod
    def create(cls, root: Path, max_bytes: int) -> Spool:
        """Make the folder of this process below `root`. Raises OSError."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        hidden, folder = root / f".{name}", root / name
        hidden.mkdir(parents=True, mode=0o700)
        lock = _try_lock(hidden)  # before others can see it, or one of them might adopt it
        assert lock is not None
        hidden.rename(folder)
        return cls(folder, lock, max_bytes)

    @classmethod
    def orphans(cls, root: Path) -> Iterator[Spool]:
        """Yield the folders below `root` whose processes have ended; each is locked for this one
        until `close`."""
        for folder in sorted(
            path for path in root.iterdir() if path.is_dir() and path.name[0] != "."
        ):
            lock = _try_lock(folder)
            if lock is not None:
                yield cls(folder, lock, 0)

    def append(self, record: bytes) -> bool:
        """See Buffer. Raises OSError where the disk refuses; then nothing of the record is left in
        a readable line."""
        line = record + b"\n"
        with self._lock:
            if self._pending + len(line) > self._max_bytes:
                return False
            if self._writer is None or self._last_bytes >= SEGMENT_BYTES:
                self._open_segment()
            assert self._writer is not None
            written = os.write(self._writer, line)
            if written != len(line):
                # A full disk takes a part. A line end would make that part a line: cut it off
                # again.
                os.ftruncate(self._writer, self._last_bytes)
                raise OSError(
                    f"{self._folder}: {written} of {len(line)} bytes written; is the disk full?"
                )
            self._last_bytes += len(line)
            self._pending += len(line)
            return True

    def head(self, max_records: int, max_bytes: int) -> Batch:
        """See Buffer."""
        while True:
            data = self._read(max_bytes)
            end = data.rfind(b"\n") + 1
            lines = data[:end].split(b"\n")[:-1][:max_records]
            if lines:
                return Batch(lines, sum(len(line) + 1 for line in lines))
            if not self._next_segment():
                if self._writer is None:
                    # of a dead process: what is left is a torn line, whose emit never returned
                    self._pending = 0
                return EMPTY

    def drop(self, batch: Batch) -> None:
        """See Buffer."""
        self._offset += batch.size_bytes
        self._write_sent()
        with self._lock:
            self._pending -= batch.size_bytes

    @property
    def pending_bytes(self) -> int:
        """See Buffer."""
        return self._pending

    def close(self) -> None:
        """Stop taking records and let go of the folder; an empty one is removed."""
        with self._lock:
            self._max_bytes = 0
            if self._writer is not None:
                os.close(self._writer)
                self._writer = None
            if self._lock_fd < 0:
                return
            if self._pending <= 0:
                shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def abandon(self) -> None:
        """In a forked child: forget the folder, which is the parent's. Its lock stays: the parent
        holds it, too."""
        for descriptor in (self._writer, self._lock_fd):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._writer, self._lock_fd, self._max_bytes = None, -1, 0

    def _read(self, max_bytes: int) -> bytes:
        """Bytes from the head on: at least one whole line where there is one, however long."""
        path = self._path(self._segment)
        if not path.exists():
            return b""
        size = max(max_bytes, 1)
        with path.open("rb") as file:
            while True:
                file.seek(self._offset)
                data = file.read(size)
                if b"\n" in data or len(data) < size:
                    return data
                size *= 2

    def _next_segment(self) -> bool:
        """Go on to the segment after a finished one, which is removed. False: there is none."""
        later = [segment for segment in self._segments() if segment > self._segment]
        if not later:
            return False
        # What is left of a finished segment is a torn last line: its emit never returned.
        finished = self._path(self._segment)
        torn = self._size(self._segment) - self._offset if finished.exists() else 0
        self._segment, self._offset = later[0], 0
        self._write_sent()
        finished.unlink(missing_ok=True)
        with self._lock:
            self._pending -= torn
        return True

    def _open_segment(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        self._last += 1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._writer = os.open(self._path(self._last), flags, 0o600)
        self._last_bytes = os.fstat(self._writer).st_size

    def _segments(self) -> list[int]:
        return sorted(
            int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()
        )

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}{_SUFFIX}"

    def _size(self, segment: int) -> int:
        return self._path(segment).stat().st_size

    def _read_sent(self) -> tuple[int, int]:
        try:
            segment, offset = (self._folder / "sent").read_text().split()
            return int(segment), int(offset)
        except (FileNotFoundError, ValueError):
            first = self._segments()
            return (first[0] if first else 0), 0

    def _write_sent(self) -> None:
        temporary = self._folder / "sent.new"
        temporary.write_text(f"{self._segment} {self._offset}")
        temporary.replace(self._folder / "sent")


def keep_rejected(root: Path, record: bytes, reason: str) -> bool:
    """Append a record that the server will never take to `rejected.ndjson`. False: the file is
    full."""
    path = root / "rejected.ndjson"
    entry = b'{"reason": %s, "record": %s}\n' % (json.dumps(reason).encode(), record)
    if path.exists() and path.stat().st_size + len(entry) > _REJECTED_BYTES:
        return False
    with path.open("ab") as file:
        file.write(entry)
    return True


def _try_lock(folder: Path) -> int | None:
    """A descriptor with the folder's lock, or None where a living process holds it or the folder is
    gone."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not (folder / "lock").exists():  # its owner removed the folder between open and lock
        os.close(descriptor)
        return None
    return descriptor
