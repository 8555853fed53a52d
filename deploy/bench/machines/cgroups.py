"""Control groups by prefix: the processes in them, and their removal. cgroup v1 hierarchies, v2, or
both."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.bench.shell import wait

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The top folder of every hierarchy of this machine that takes processes."""
    return [
        folder for folder in (ROOT, *sorted(ROOT.glob("*/"))) if (folder / "cgroup.procs").exists()
    ]


def make(name: str) -> list[Path]:
    """The group `name` in every hierarchy, made when it is missing. Its CPUs are those of its
    parent."""
    groups = []
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(parents=True, exist_ok=True)
        # v1: a new group has none, and no process can enter it
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (group / file).exists() and not (group / file).read_text().strip():
                (group / file).write_text((group.parent / file).read_text())
        groups.append(group)
    return groups


def share(groups: Sequence[Path], times: int) -> None:
    """Gives the groups `times` the processor time that a new group, or a session of this machine,
    gets when it is scarce."""
    for group in groups:
        for file, usual in (("cpu.shares", 1024), ("cpu.weight", 100)):  # v1, v2
            if (group / file).exists():
                (group / file).write_text(str(usual * times))


def enter(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """The command that enters the groups first."""
    script = 'for f in $1; do echo $$ >"$f"; done; shift; exec "$@"'
    return [
        "sh",
        "-c",
        script,
        "sh",
        " ".join(str(group / "cgroup.procs") for group in groups),
        *command,
    ]


def processes(marks: Sequence[str]) -> Iterator[int]:
    """Pids whose cgroup path holds one of `marks` (such as `/gtv-`): nothing but a bench puts a
    process there."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            groups = (folder / "cgroup").read_text()
            if any(mark in groups for mark in marks) and _state(folder) != "Z":
                yield int(folder.name)


def kill(marks: Sequence[str], timeout_seconds: float = 20) -> None:
    """SIGKILL to all of them, and again to what they started meanwhile. Raises CommandFailed when
    some do not end."""

    _thaw(marks)

    def none_left() -> bool:
        pids = list(processes(marks))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait(none_left, timeout_seconds, f"processes in cgroups named {', '.join(marks)} do not end")


def _thaw(marks: Sequence[str]) -> None:
    """A frozen process takes no signal, not even SIGKILL, before it is thawed (cgroup v1)."""
    for state in (ROOT / "freezer").rglob("freezer.state"):
        if any(mark in f"{state.parent}/" for mark in marks):
            with contextlib.suppress(OSError):
                state.write_text("THAWED")


def remove(prefix: str) -> None:
    """Removes every group whose name starts with `prefix`, at any depth. Raises CommandFailed when
    one stays in use."""
    # At any depth: an engine puts its containers below the cgroup that its own process was started
    # in.

    def gone() -> bool:
        busy = 0
        for top in list(ROOT.rglob(f"{prefix}*")):
            for group, _, _ in os.walk(top, topdown=False):
                try:
                    Path(group).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    busy += 1
        return busy == 0

    wait(gone, 20, f"cgroups named {prefix}* are still in use")


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]
