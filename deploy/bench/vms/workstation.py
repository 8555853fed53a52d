"""The operator's side of the bench: a checkout with hosts.env filled in, and a `docker` that hands
out the built image."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploy.bench.sessions import Recorder, screens
from deploy.bench.shell import run
from deploy.bench.vms.machines import ADMIN_ADDRESS, USER, Bench
from deploy.flows import ROOT

# The bench's own settings. Machines here may open fewer files than MongoDB asks for, and share two
# cores and their memory.
_SETTINGS = """MONGO_OPEN_FILES=20000
KAFKA_HEAP=512m
MONGO_CACHE_GB=0.5
"""
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NO_IMAGE = "no image was built on this machine; this file was never loaded"

_DOCKER = """#!/bin/sh
# Stands for the Docker Engine of the operator's own machine. The image was built by the bench, from
# the same Dockerfile.
case $1 in
  build) echo "image built by the bench from this checkout's Dockerfile" ;;
  save) exec cat "{image}" ;;
  *) echo "the bench's docker cannot $1" >&2; exit 1 ;;
esac
"""


class Operator:
    """A copy of the checkout's deployment files, outside of which no secrets or addresses are
    written."""

    def __init__(self, bench: Bench, image: Path | None) -> None:
        self.bench = bench
        self.recorder: Recorder | None = None  # where pictures are wanted
        self.folder = bench.folder / "checkout"
        shutil.rmtree(self.folder, ignore_errors=True)
        private = shutil.ignore_patterns(
            "secrets.env", "hosts.env", "settings.env", ".terraform", "*.tfstate*"
        )
        for stage in ("CA0", "CA1", "deploy", "requirements"):
            if (ROOT / stage).exists():
                shutil.copytree(ROOT / stage, self.folder / stage, ignore=private, symlinks=True)
        shutil.copy(ROOT / ".env.example", self.folder)
        machines = bench.table.machines.values()
        hosts = [f"{m.name.split('-')[0].upper()}_ADDRESS={m.ip}" for m in machines]
        hosts += [f"ADMIN_CIDR={ADMIN_ADDRESS}/32", f"SSH_USER={USER}", f"SSH_KEY={bench.key}"]
        (self.folder / "CA0/hosts.env").write_text("\n".join(hosts) + "\n")
        (self.folder / "CA0/settings.env").write_text(_SETTINGS)
        shims = self.folder / "bin"
        shims.mkdir()
        (shims / "docker").write_text(_DOCKER.format(image=image or _NO_IMAGE))
        (shims / "docker").chmod(0o755)
        self.env = {
            "PATH": f"{shims}:{os.environ['PATH']}",
            "SSH_OPTIONS": " ".join(bench.ssh_options),
        }

    def do(self, command: str, *, timeout_seconds: float = 300, check: bool = True) -> str:
        """Runs a shell command at the checkout's root, as the README's reader would."""
        return run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            timeout_seconds=timeout_seconds,
            check=check,
        ).stdout

    def shown(self, command: str, picture: str, *, timeout_seconds: float = 300) -> str:
        """The same, and its last screen as a picture (STAGE/NAME), where pictures are wanted."""
        if self.recorder is None:
            return self.do(command, timeout_seconds=timeout_seconds)
        stage, name = picture.split("/")
        cast = self.bench.folder / f"{name}.cast"
        said = self.recorder.record(
            command, cast, cwd=self.folder, env=self.env, timeout_seconds=timeout_seconds
        )
        drawn = ROOT / stage / "docs/images" / f"{name}.svg"
        self.recorder.still(cast, drawn, screens(cast)[-1])
        return said

    def steps(self, readme: str, heading: str) -> list[str]:
        """The commands of a README's section."""
        return readme_steps((self.folder / readme).read_text(), heading)


def readme_steps(text: str, heading: str) -> list[str]:
    """The commands of a section, in order: the lines of its ```sh blocks that are no comments, as
    they stand."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for block in _BLOCK.findall(section) for line in block.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def authentication_methods(ip: str, user: str) -> Sequence[str]:
    """The login methods that sshd offers to someone without a key."""
    options = [
        "-o",
        "BatchMode=yes",
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ]
    said = run(
        ["ssh", *options, "-o", "PreferredAuthentications=password", f"{user}@{ip}", "true"],
        check=False,
    ).stdout
    found = re.search(r"Permission denied \(([^)]*)\)", said)
    return found[1].split(",") if found else [said.strip()]
