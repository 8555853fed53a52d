"""What a process has used, as Linux counts it."""

from __future__ import annotations

import os
from pathlib import Path

_HZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time so far, user and system, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _HZ


def rss_mb(pid: int) -> float:
    """Resident memory now, in MiB."""
    return _status_mb(pid, "VmRSS")


def peak_rss_mb(pid: int) -> float:
    """Highest resident memory so far, in MiB."""
    return _status_mb(pid, "VmHWM")


def _status_mb(pid: int, name: str) -> float:
    """NaN where the process is over but not waited for: it has no memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(
        (int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), float("nan")
    )
