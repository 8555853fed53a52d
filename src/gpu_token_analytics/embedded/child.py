"""One server as a child process: start, wait until ready, stop, and never outlive the parent.

start   own session (Ctrl-C in the terminal reaches us first, so clients can finish before their
        server goes)
        -> prctl(PDEATHSIG) and exec -> its log is watched until it says it is ready, dies, or the
        time is over
stop    SIGTERM, bounded wait, SIGKILL
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpu_token_analytics.errors import EmbeddedServiceError

LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
_PORT_ATTEMPTS = 100
_POLL_SECONDS = 0.05
_ROTATE_LOG_BYTES = 16 * 1024 * 1024
_TAIL_LINES = 12
# Kafka's levels and stack traces; mongod's JSON
_ERROR_LINE = re.compile(r'\b(ERROR|FATAL)\b|Exception:|"s":"[EF]"')

# Runs in a fresh interpreter and becomes the server by exec. Not a preexec_fn: that runs Python
# between fork and exec, where a lock held by another thread (librdkafka's, numpy's) never opens
# again. 1 is PR_SET_PDEATHSIG; it survives exec. The parent may have died before the call, hence
# the second look.
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago; somebody else can still take it before it
    is used.

    Not the system's own pick (bind to 0): that lies in the range of outgoing connections (Linux
    32768-60999, macOS 49152 up), so while a server is down any of them can take its port - even a
    client of that server, which then talks to itself.
    """
    for _ in range(_PORT_ATTEMPTS):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise EmbeddedServiceError(
        f"no free port found on loopback between {_PORTS.start} and {_PORTS.stop}; give one"
    )


def port_from(first: int) -> int:
    """The first TCP port of loopback from `first` on that is free now, of a hundred; any free one
    where all are taken."""
    for port in range(first, min(first + _PORT_ATTEMPTS, 65_536)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # as servers do: closed connections do not hold it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    return free_port()


class ChildServer:
    """A server process whose output goes to `log_file` (appended; the previous log is kept once it
    is large).

    On Linux the server gets SIGTERM when the THREAD that called start() ends, kill -9 of this
    process included, so start from a thread that lives as long as the server. Elsewhere the system
    offers nothing like it: after a kill -9 of this process the server has to be stopped by hand.
    """

    def __init__(self, name: str, log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # offset of this run's first byte in the log

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return (
            self._process.pid
            if self._process is not None and self._process.poll() is None
            else None
        )

    def start(
        self,
        command: Sequence[str],
        is_ready: Callable[[str], bool],
        timeout_seconds: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command` (its first item an absolute path) and wait until `is_ready(this run's
        log)`.

        Raises EmbeddedServiceError with the tail of its log when it dies or is not ready in time;
        it is stopped then.
        """
        if self.pid is not None:
            raise EmbeddedServiceError(f"{self.name} runs already (pid {self.pid})")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > _ROTATE_LOG_BYTES:
            self.log_file.replace(self.log_file.with_name(self.log_file.name + ".1"))
        if sys.platform == "linux":
            command = [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _EXEC_TIED_TO_PARENT,
                str(os.getpid()),
                *command,
            ]
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        try:
            self._wait_ready(is_ready, timeout_seconds)
        except BaseException:  # Ctrl-C while waiting must not leave a server behind
            self.stop(grace_seconds=5)
            raise

    def _wait_ready(self, is_ready: Callable[[str], bool], timeout_seconds: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_seconds
        while True:
            code = self._process.poll()
            if code is None and is_ready(self.log()):
                return
            if code is not None:
                raise EmbeddedServiceError(
                    f"{self.name} ended at once ({_describe_exit(code)}). {self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServiceError(
                    f"{self.name} was not ready within {timeout_seconds:g} s. {self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, grace_seconds: float = 20) -> None:
        """SIGTERM, then SIGKILL after `grace_seconds`. Does nothing when it is not running."""
        self._end(signal.SIGTERM, grace_seconds)

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer does it; for tests of what survives."""
        self._end(signal.SIGKILL, 10)

    def _end(self, first: signal.Signals, grace_seconds: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(first)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self) -> str:
        """What this run has written so far."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """This run's first errors and last lines, under the name of their file; for the error of a
        server that died.

        The errors apart, because Kafka says many lines more before it is gone.
        """
        lines = [line[:400] for line in self.log().splitlines()]
        errors = [line for line in lines[:-_TAIL_LINES] if _ERROR_LINE.search(line)][:_TAIL_LINES]
        return f"From {self.log_file}:\n" + "\n".join([*errors, *lines[-_TAIL_LINES:]])


def _describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
