"""A systemd-nspawn machine's supervisor, in cgroups of its own so that the whole machine can be
found and ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.bench.machines import cgroups
from deploy.bench.shell import run, wait

_children: list[subprocess.Popen[bytes]] = []


def spawn(group: str, command: Sequence[str], log: Path) -> int:
    """Starts a machine's supervisor in the cgroups `group` (prefix and name); returns its pid on
    this host."""
    tops = (cgroups.ROOT / "systemd", cgroups.ROOT / "unified", cgroups.ROOT)
    groups = [top / group for top in tops if (top / "cgroup.procs").exists()]
    for folder in groups:
        folder.mkdir(exist_ok=True)
    # `network`: sysctls of the machine's own network namespace are writable, as an engine needs; no
    # others are.
    env = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network", "SYSTEMD_SECCOMP": "0"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            cgroups.enter(groups, command),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True,
        )  # fmt: skip
    _children.append(process)
    wait(
        lambda: bool(run(["pgrep", "-P", str(process.pid)], check=False).stdout.split()),
        20,
        f"{group} did not start",
    )
    return process.pid


def alive(pid: int) -> bool:
    """Whether a supervisor that `spawn` started still runs."""
    return any(process.pid == pid and process.poll() is None for process in _children)


def end(group: str) -> None:
    """Ends a supervisor that `spawn` started, and everything below it."""
    cgroups.kill([f"/{group}"])
    reap()


def reap() -> None:
    """Takes note of supervisors that have ended, so that none stays a zombie."""
    for process in _children:
        process.poll()
