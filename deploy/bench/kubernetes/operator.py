"""The operator's side of the cluster: a copy of the checkout, and a `kubectl` that reaches the API
server."""

from __future__ import annotations

import os
import shutil
import subprocess

from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.shell import CommandFailed, run
from deploy.flows import ROOT

_STAGES = ("CA0", "CA2", "CA3", "deploy", "scripts")


class Operator:
    """A copy of the deployment files, outside of which no secret is written."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.folder = cluster.folder / "checkout"
        shutil.rmtree(self.folder, ignore_errors=True)
        tracked = run(
            [
                "git",
                "-C",
                str(ROOT),
                "ls-files",
                "--",
                *_STAGES,
                ".env.example",
                "Makefile",
                "pyproject.toml",
            ]
        ).stdout
        for name in tracked.splitlines():
            if (ROOT / name).exists():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target, follow_symlinks=False)
        self.env = {"PATH": f"{cluster.bin}:{os.environ['PATH']}"}

    def do(self, command: str, *, timeout_seconds: float = 300, check: bool = True) -> str:
        """Runs a shell command at the checkout's root, as the README's reader would."""
        done = self.tell(command, timeout_seconds=timeout_seconds)
        if check and done.returncode != 0:
            raise CommandFailed(
                f"{command}: exit {done.returncode}; it said: {done.stdout.strip()[-3000:]}"
            )
        return done.stdout

    def tell(
        self, command: str, *, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """The same, with the exit status, whatever that is. Raises CommandFailed when time is
        up."""
        return run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            timeout_seconds=timeout_seconds,
            check=False,
        )
