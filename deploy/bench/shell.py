"""Running programs, with the failure's own words in the error."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# What `make vms ARGS=...` leaves in the environment. A Makefile run by the bench would take the
# bench's ARGS for its own.
_OF_MAKE = frozenset({"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS"})


class CommandFailed(Exception):
    """A program ended with another status than 0; the message holds the end of what it said."""


def run(
    command: Sequence[str],
    *,
    timeout_seconds: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs to the end with stdout and stderr together. Raises CommandFailed on a status other than
    0, or when time is up."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            timeout=timeout_seconds,
            env={
                **{name: value for name, value in os.environ.items() if name not in _OF_MAKE},
                **(env or {}),
            },
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError:
        done = subprocess.CompletedProcess(command, 127, f"{command[0]}: not found")
        if check:
            raise CommandFailed(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(
            f"{' '.join(command)}: not done after {timeout_seconds:.0f} s; {_end(late.stdout)}"
        ) from None
    if check and done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: exit {done.returncode}; {_end(done.stdout)}")
    return done


def _end(output: bytes | str | None) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return "it said: " + text.strip()[-3000:]


def wait(done: Callable[[], bool], timeout_seconds: float, otherwise: str) -> None:
    """Polls until `done`. Raises CommandFailed saying `otherwise` when time is up."""
    end = time.monotonic() + timeout_seconds
    while not done():
        if time.monotonic() > end:
            raise CommandFailed(f"{otherwise} after {timeout_seconds:.0f} s")
        time.sleep(0.2)
