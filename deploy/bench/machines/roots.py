"""File systems of the machines, as overlay layers that stay in the cache folder:

    minimal   debootstrap's minbase           (also the base of the container images)
    machine   + systemd, sshd, ufw, Docker Engine and Compose, as Debian packages them
    builder   + buildx, for building images

A machine's own layer comes on top and is thrown away with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.shell import run

SUITE = "trixie"  # Debian 13: its Docker Engine and Compose v2 are what Ubuntu 24.04 has too
MIRROR = os.environ.get("DEBIAN_MIRROR", "")  # empty: debootstrap's own default
_MACHINE_PACKAGES = [
    *(
        "systemd",
        "systemd-sysv",
        "dbus",
        "openssh-server",
        "sudo",
        "ufw",
        "iptables",
        "nftables",
        "iproute2",
        "procps",
    ),
    *(
        "ca-certificates",
        "python3",
        "python3-apt",
        "docker.io",
        "docker-cli",
        "docker-compose",
        "make",
        "curl",
        "openssl",
    ),
]
_BUILDER_PACKAGES = ["docker-buildx"]
_CLOUD_USER = "ubuntu"


def ensure(cache: Path) -> list[Path]:
    """Makes the layers that are missing; returns [minimal, machine, builder]. Takes about 90 s from
    nothing, 0 s after."""
    cache.mkdir(parents=True, exist_ok=True)
    minimal, machine, builder = (
        cache / f"{name}-{SUITE}" for name in ("minimal", "machine", "builder")
    )
    if not minimal.exists():
        part = cache / "minimal.part"
        shutil.rmtree(part, ignore_errors=True)
        mirror = [MIRROR] if MIRROR else []
        run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates",
                SUITE,
                str(part),
                *mirror,
            ],
            timeout_seconds=600,
        )
        (part / "etc/resolv.conf").unlink(missing_ok=True)
        part.rename(minimal)
    if not machine.exists():
        _add_packages(cache, [minimal], machine, _MACHINE_PACKAGES, _CLOUD_IMAGE)
    if not builder.exists():
        _add_packages(cache, [machine, minimal], builder, _BUILDER_PACKAGES, "true")
    return [minimal, machine, builder]


# What a cloud's image has when it is handed over: one user with sudo, and password logins still
# possible, so that the bench can show that hardening makes a difference.
_CLOUD_IMAGE = f"""
useradd -m -s /bin/bash {_CLOUD_USER}
echo '{_CLOUD_USER}:{_CLOUD_USER}' | chpasswd
echo 'root:root' | chpasswd
echo '{_CLOUD_USER} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-cloud-init-users
printf 'PasswordAuthentication yes\\nPermitRootLogin yes\\n' \\
  >/etc/ssh/sshd_config.d/50-cloud-init.conf
systemctl mask systemd-modules-load.service systemd-networkd-wait-online.service
: >/etc/machine-id
"""


def _add_packages(
    cache: Path, below: Sequence[Path], layer: Path, packages: Sequence[str], then: str
) -> None:
    part = cache / f"{layer.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with overlay(below, part, cache / "mnt", cache / "work") as root:
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        # nothing may start while it is only a folder
        (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (root / "usr/sbin/policy-rc.d").chmod(0o755)
        script = (
            "set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; "
            f"apt-get install -y -qq --no-install-recommends {' '.join(packages)}; apt-get "
            f"clean\n{then}"
        )
        run(["chroot", str(root), "bash", "-c", script], timeout_seconds=600)
        (root / "usr/sbin/policy-rc.d").unlink()
        (root / "etc/resolv.conf").unlink()
    part.rename(layer)


@contextmanager
def overlay(below: Sequence[Path], upper: Path, mountpoint: Path, work: Path) -> Iterator[Path]:
    """The layers as one tree, for as long as the block lasts."""
    mount_overlay(below, upper, mountpoint, work)
    try:
        yield mountpoint
    finally:
        run(["umount", "-l", str(mountpoint)])
        shutil.rmtree(work, ignore_errors=True)


def mount_overlay(below: Sequence[Path], upper: Path, mountpoint: Path, work: Path) -> None:
    """Mounts `upper` over the layers `below`, the topmost first."""
    for folder in (upper, mountpoint, work):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(map(str, below))},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "gpu-tokens-vms", "-o", options, str(mountpoint)])
