"""The container images of the bench, built by a Docker Engine in a fifth machine that shares this
host's network.

Nothing of that engine touches this host: no bridge, no firewall rules, its store lies in the cache
folder. Built images are saved as files, which the machines load the way others pull from a
registry. See images/README.md for what is real in them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.images import servers
from deploy.bench.machines import nspawn
from deploy.bench.machines.roots import mount_overlay
from deploy.bench.report import NotChecked
from deploy.bench.shell import CommandFailed, run, wait
from deploy.flows import ROOT

_BUILDER = "builder"
_GROUP = "gtv-builder"  # of the prefix that the vms topology removes
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_CONF = Path("/etc/pip.conf")


@contextmanager
def builder(
    folder: Path, cache: Path, contexts: Path, layers: Sequence[Path]
) -> Iterator[Callable[..., str]]:
    """A Docker Engine for the time of the block; yields a function that runs a command beside
    it."""
    own = folder / _BUILDER
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    (cache / "engine").mkdir(exist_ok=True)
    (cache / "images").mkdir(exist_ok=True)
    mount_overlay(layers, own / "layer", own / "root", own / "work")
    start = (
        "for d in /sys/fs/cgroup/*/; do mount -o remount,bind,rw,nosuid,nodev,noexec $d; done "
        "2>/dev/null; "
        "exec dockerd --iptables=false --ip6tables=false --ip-forward=false --bridge=none "
        f"--cgroup-parent=/{_GROUP}/containers"
    )
    command = [
        "systemd-nspawn", "-q", "-D", str(own / "root"), "--as-pid2", "-M", _BUILDER,
        "--register=no", "--keep-unit",
        "--link-journal=no", "--resolv-conf=replace-host", "--timezone=off", "--capability=all",
        "--console=pipe",
        f"--bind={cache / 'engine'}:/var/lib/docker", f"--bind={cache / 'images'}:/images",
        f"--bind-ro={contexts}:/contexts", f"--bind-ro={ROOT}:/repository",
        *(f"--bind-ro={path}:/host{path}" for path in (_CA_BUNDLE, _PIP_CONF) if path.exists()),
        "bash", "-c", start,
    ]  # fmt: skip
    pid = nspawn.spawn(_GROUP, command, own / "console.log")
    leader = run(["pgrep", "-P", str(pid)]).stdout.split()[0]

    def beside(*words: str, timeout_seconds: float = 600, check: bool = True) -> str:
        enter = ["nsenter", "-t", leader, "-m", "-p", "-i", "-u", "--", *words]
        return run(enter, timeout_seconds=timeout_seconds, check=check).stdout

    try:
        wait(
            lambda: "Server" in beside("docker", "version", check=False),
            60,
            "the builder's engine does not answer",
        )
        yield beside
    except CommandFailed as error:
        raise CommandFailed(
            f"{error}\nthe engine's log: "
            f"{(own / 'console.log').read_text(errors='replace')[-1500:]}"
        ) from None
    finally:
        nspawn.end(_GROUP)
        run(["umount", "-l", str(own / "root")], check=False)


def build(folder: Path, cache: Path, layers: Sequence[Path]) -> dict[str, Path]:
    """Builds what is new; returns the file of each image by its name. Raises NotChecked when this
    machine lacks something."""
    if lacks := servers.lacking():
        raise NotChecked(f"images cannot be built, this machine lacks: {'; '.join(lacks)}")
    names = servers.versions()
    contexts = servers.contexts(names["KAFKA_IMAGE"].partition(":")[2])
    plan = [
        ("python:3.12-slim", "/contexts/python", []),
        (names["KAFKA_IMAGE"], "/contexts/kafka", []),
        (names["MONGO_IMAGE"], "/contexts/mongo", []),
        (names["GPU_TOKENS_IMAGE"], "/repository", _mirror_secrets()),
    ]
    minimal = layers[-1]
    files = {}
    with builder(folder, cache, contexts, layers) as beside:
        if "debian" not in beside("docker", "image", "ls", "debian"):
            unneeded = [
                "./usr/share/doc",
                "./usr/share/locale",
                "./var/cache/apt",
                "./var/lib/apt/lists",
            ]
            tar = [
                "tar",
                "-C",
                str(minimal),
                *(f"--exclude={path}/*" for path in unneeded),
                "-cf",
                str(cache / "images/base.tar"),
                ".",
            ]
            run(tar)
            beside("docker", "import", "/images/base.tar", "debian:13-slim")
            (cache / "images/base.tar").unlink()
        for name, context, extra in plan:
            beside(
                "docker",
                "build",
                "--progress=plain",
                "--network=host",
                *extra,
                "-t",
                name,
                context,
                timeout_seconds=900,
            )
            identity = beside("docker", "image", "inspect", "-f", "{{.Id}}", name).strip()
            file = f"{hashlib.sha256(f'{name} {identity}'.encode()).hexdigest()[:16]}.tar"
            if not (cache / "images" / file).exists():
                beside("docker", "save", "-o", f"/images/{file}.part", name)
                (cache / "images" / f"{file}.part").rename(cache / "images" / file)
            files[name] = cache / "images" / file
    for old in set((cache / "images").glob("*.tar")) - set(files.values()):
        old.unlink()
    return files


def _mirror_secrets() -> list[str]:
    """How this machine reaches its package index, for the product's Dockerfile; nothing of it stays
    in a layer."""
    found = [("ca_bundle", _CA_BUNDLE), ("pip_conf", _PIP_CONF)]
    return [
        word
        for name, path in found
        if path.exists()
        for word in ("--secret", f"id={name},src=/host{path}")
    ]
