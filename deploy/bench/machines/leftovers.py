"""Removal of everything that carries a topology's prefix, also after the run that made it was
killed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from deploy.bench.machines import cgroups, nspawn
from deploy.bench.shell import CommandFailed, run


def remove(prefix: str, folder: Path) -> None:
    """Ends the processes, then removes mounts below `folder`, links, network namespaces and
    cgroups.

    `prefix` ends with a dash, such as `gtv-`. Never raises for what is already gone; raises
    CommandFailed for cgroups that stay in use.
    """
    with suppress(CommandFailed):
        cgroups.kill([f"/{prefix}"])
    unmount_below(folder)
    for line in run(["ip", "-o", "link", "show", "type", "veth"], check=False).stdout.splitlines():
        if (link := line.split()[1].split("@")[0]).startswith(prefix):
            run(["ip", "link", "del", link], check=False)
    for line in run(["ip", "netns", "list"], check=False).stdout.splitlines():
        if line.startswith(prefix):
            run(["ip", "netns", "del", line.split()[0]], check=False)
    cgroups.remove(prefix)
    nspawn.reap()


def unmount_below(folder: Path) -> None:
    """Unmounts what is mounted below `folder`, the deepest first, and what was mounted over it."""
    for _ in range(3):
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mountpoint in sorted(
            (m for m in mounts if m.startswith(f"{folder}/")), key=len, reverse=True
        ):
            run(["umount", "-l", mountpoint], check=False)
