"""Programs that tests start as processes of their own: their output in a log, ended at the end of a
block."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GPU_TOKENS = (sys.executable, "-m", "gpu_token_analytics")
END_SECONDS = 30.0

Child = subprocess.Popen[bytes]


def start(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Child:
    """Start a program; what it says is added to the log. environment: on top of this process's.
    folder: where it runs."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def end(child: Child, seconds: float = END_SECONDS) -> int:
    """SIGTERM, and SIGKILL when that does not end it in time. Returns its exit code."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait(10)


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Child]:
    """A program that runs for a block."""
    child = start(command, log, environment, folder)
    try:
        yield child
    finally:
        end(child)
