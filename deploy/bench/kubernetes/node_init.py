"""python -m deploy.bench.kubernetes.node_init NODE.json: the first process of a node, in namespaces
that `unshare` made.

Mounts what the node writes, starts containerd, the kubelet, kube-proxy and kube-router, starts
again what ends, as a service manager would (kube-router ends while the node is not registered yet;
without it no policy is enforced), and reaps orphans.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_WRITTEN = {
    "kubelet": "/var/lib/kubelet",
    "containerd": "/var/lib/containerd",
    "cni": "/var/lib/cni",
    "net.d": "/etc/cni/net.d",
    "pods": "/var/log/pods",
    "containers": "/var/log/containers",
    "pv": "/mnt",
}
_DISK_BYTES = 2 << 30
# The kubelet would set these for the whole host. Here it finds them as it wants them, and writes
# nothing.
_KERNEL_PARAMETERS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(path: str) -> None:
    """Never returns."""
    node: dict[str, Any] = json.loads(Path(path).read_text())
    folder = Path(node["folder"])
    _mount(folder, node["node"], node["disks"])
    programs = dict(node["programs"])
    running = {_start("containerd", programs["containerd"], folder): "containerd"}
    _wait_for(Path("/run/containerd/containerd.sock"), 60)
    for name, command in programs.items():
        if name != "containerd":
            running[_start(name, command, folder)] = name
    while True:
        pid, status = os.wait()
        if name := running.pop(pid, ""):
            print(f"{time.time():.1f} {name} ended, status {status}; started again", flush=True)
            time.sleep(1)
            running[_start(name, programs[name], folder)] = name


def _mount(folder: Path, name: str, disks: int) -> None:
    _run("mount", "--make-rshared", "/")
    _run("hostname", name)
    for source, target in _WRITTEN.items():
        (folder / source).mkdir(exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(folder / source), target)
        _run("mount", "--make-shared", target)
    for number in range(1, disks + 1):
        _disk(folder / f"disk{number}.img", Path(f"/mnt/disk{number}"))
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for parameter, value in _KERNEL_PARAMETERS.items():
        file = folder / Path(parameter).name
        file.write_text(f"{value}\n")
        _run("mount", "--bind", str(file), f"/proc/sys/{parameter}")


def _disk(image: Path, mountpoint: Path) -> None:
    """A volume with an end: a sparse file with its own file system, which stays when the node loses
    power."""
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
    mountpoint.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", str(image), str(mountpoint))


def _start(name: str, command: list[str], folder: Path) -> int:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        ).pid


def _wait_for(socket: Path, timeout_seconds: float) -> None:
    end = time.monotonic() + timeout_seconds
    while not socket.exists():
        if time.monotonic() > end:
            sys.exit(f"no {socket} after {timeout_seconds:.0f} s")
        time.sleep(0.1)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
