"""The cluster: made from nothing, asked with kubectl, removed without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.bench.kubernetes import certificates, control, nodes, store, topology
from deploy.bench.machines import cgroups, leftovers, namespaces
from deploy.bench.shell import CommandFailed, run, wait

_HERE = Path(__file__).resolve().parent
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "openssl": "openssl",
    "pgrep": "procps",
    "sysctl": "procps",
    "mkfs.ext4": "e2fsprogs",
}
PACKAGES = sorted(
    {*_PROGRAMS.values(), "containernetworking-plugins", "prometheus", "prometheus-alertmanager"}
)
# Mount points that a node needs on the root that it shares with this host; removed again when they
# are empty.
_MOUNT_POINTS = (
    "/etc/cni/net.d",
    "/etc/cni",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/log/pods",
    "/var/log/containers",
)


def lacking() -> list[str]:
    """What this machine lacks to run the cluster, each with its remedy; empty when it can."""
    if os.geteuid() != 0:
        return ["root rights (sudo make kubernetes)"]
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if not Path("/usr/lib/cni/bridge").exists():
        missing.add("containernetworking-plugins")
    if missing:
        return [f"programs: apt-get install {' '.join(sorted(missing))}"]
    probe = f"{topology.PREFIX}probe"
    try:
        namespaces.make_switch(probe)
    except CommandFailed as error:
        return [f"network namespaces or bridges: {error}"]
    finally:
        run(["ip", "netns", "del", probe], check=False)
    return []


def remove_leftovers(folder: Path) -> None:
    """Everything with the cluster's prefix, then its folder and the mount points it needed."""
    leftovers.remove(topology.PREFIX, folder)
    shutil.rmtree(folder, ignore_errors=True)
    for mountpoint in _MOUNT_POINTS:
        with contextlib.suppress(OSError):
            Path(mountpoint).rmdir()


def left(folder: Path) -> list[str]:
    """What is still there after `remove_leftovers`, by its name; empty when nothing is."""
    namespaces_left = [line.split()[0] for line in run(["ip", "netns", "list"]).stdout.splitlines()]
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    loops = run(
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], check=False
    ).stdout.splitlines()
    return [
        *(f"namespace {name}" for name in namespaces_left if name.startswith(topology.PREFIX)),
        *(f"process {pid}" for pid in cgroups.processes([f"/{topology.PREFIX}"])),
        *(f"cgroup {path}" for path in cgroups.ROOT.glob(f"*/{topology.PREFIX}*")),
        *(f"mount {path}" for path in mounts if path.startswith(f"{folder}/")),
        *(f"loop device on {path}" for path in loops if path.strip().startswith(f"{folder}/")),
        *(
            f"folder {path}"
            for path in [folder, *map(Path, _MOUNT_POINTS)]
            if path.exists() and path.name != "cni"
        ),
    ]


class Cluster:
    """A control plane and three nodes. `kube` is the binary, `folder` holds all that they write,
    `images` the images' store."""

    def __init__(self, folder: Path, kube: Path, images: Path) -> None:
        self.folder = folder
        self.kube = kube
        self.images = images
        self.logs = folder / "log"
        self.bin = folder / "bin"
        self.authority = certificates.Authority(folder / "pki")

    # -- the whole

    def up(self) -> None:
        """Network, control plane, nodes; returns when the API server answers and three nodes are
        Ready."""
        self.logs.mkdir(parents=True)
        self._make_network()
        authority = self.authority = certificates.make(self.folder / "pki")
        self._make_kubectl()
        control.start(self.kube, control.etcd(self.folder), self.logs / "etcd.log")
        control.start(self.kube, control.api_server(authority), self.logs / "apiserver.log")
        for node in topology.NODES:
            nodes.prepare(self._of(node), node, authority, self.kube)
            store.copy(self.images, self._of(node) / "containerd")
        wait(self._api_answers, 90, f"the API server does not answer, see {self.logs}")
        control.start(self.kube, control.controllers(authority), self.logs / "controllers.log")
        control.start(self.kube, control.scheduler(authority), self.logs / "scheduler.log")
        self.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": _disks()}))
        self.kubectl("apply", "-f", str(_HERE / "addons"))
        for node in topology.NODES:
            nodes.start(self._of(node), node)
        self.wait_for_nodes(topology.NODES)

    def runs(self) -> bool:
        """Whether the cluster is there and answers."""
        return (self.bin / "kubectl").exists() and self._api_answers()

    def down(self) -> None:
        """Removes every trace of it."""
        remove_leftovers(self.folder)

    def keep_logs(self, target: Path) -> None:
        """Copies what the programs and pods wrote, for whoever looks at a failure."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for log in self.logs.glob("*.log"):
            shutil.copy(log, target)
        for node in topology.NODES:
            for log in self._of(node).glob("*.log"):
                shutil.copy(log, target / f"{node}-{log.name}")
            for log in (self._of(node) / "pods").rglob("*.log"):
                shutil.copy(
                    log, target / f"{node}-{log.parts[-3]}-{log.parts[-2]}-{log.name}"[-200:]
                )
        with contextlib.suppress(CommandFailed):
            for words in ("get pods -A -o wide", "get events -A --sort-by=.lastTimestamp"):
                (target / f"{words.split()[1]}.txt").write_text(self.kubectl(*words.split()))

    # -- questions and orders

    def kubectl(
        self,
        *arguments: str,
        timeout_seconds: float = 120,
        stdin: str | None = None,
        check: bool = True,
    ) -> str:
        """kubectl as the administrator. Raises CommandFailed with what it said."""
        command = [str(self.bin / "kubectl"), *arguments]
        return run(command, timeout_seconds=timeout_seconds, stdin=stdin, check=check).stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, parsed."""
        command = [str(self.bin / "kubectl"), "get", *arguments, "-o", "json"]
        # Warnings go to stderr, so it is kept apart.
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise CommandFailed(f"kubectl get {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def apply_text(self, manifest: str) -> str:
        """Applies a manifest that is no file."""
        return self.kubectl("apply", "-f", "-", stdin=manifest)

    def ready_nodes(self) -> set[str]:
        """The names of the nodes that are Ready."""
        return {item["metadata"]["name"] for item in self.get("nodes")["items"] if _is_ready(item)}

    def wait_for_nodes(self, names: Sequence[str], timeout_seconds: float = 120) -> None:
        """Until these nodes are Ready."""

        def ready() -> bool:
            with contextlib.suppress(CommandFailed):
                return set(names) <= self.ready_nodes()
            return False

        wait(ready, timeout_seconds, f"not Ready: some of {', '.join(names)}")

    def cut_power(self, node: str) -> None:
        """The node dies at once; its disks keep what was written."""
        nodes.cut_power(self._of(node), node)

    def power_on(self, node: str) -> None:
        """The node boots again with its disks."""
        nodes.start(self._of(node), node)

    def inside(
        self, node: str, *command: str, timeout_seconds: float = 60, check: bool = True
    ) -> str:
        """Runs a command on the node, as root."""
        return nodes.inside(self._of(node), command, timeout_seconds=timeout_seconds, check=check)

    def plug(self, node: str, *, connected: bool) -> None:
        """Pulls the node's network cable, or puts it back."""
        namespaces.plug(topology.SWITCH, node, connected=connected)

    def spawn(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """A program beside the control plane, reached at its address; it ends with the cluster."""
        return control.spawn(list(command), self.logs / log)

    # -- parts

    def _of(self, node: str) -> Path:
        return self.folder / "nodes" / node

    def _api_answers(self) -> bool:
        return self.kubectl("get", "--raw", "/readyz", check=False).strip() == "ok"

    def _make_network(self) -> None:
        namespaces.make_switch(topology.SWITCH)
        for machine in (topology.CONTROL_PLANE, *topology.NODES):
            namespaces.join(
                topology.SWITCH,
                topology.namespace(machine),
                f"{topology.address(machine)}/24",
                machine,
            )
        for node in topology.NODES:
            settings = [
                "net.ipv4.ip_forward=1",
                "net.bridge.bridge-nf-call-iptables=1",
                "net.ipv4.conf.all.rp_filter=0",
            ]
            namespaces.sysctl(topology.namespace(node), settings)
        for machine in (topology.CONTROL_PLANE, *topology.NODES):
            for node in topology.NODES:
                if machine != node:
                    route = [
                        "route",
                        "add",
                        topology.pods_cidr(node),
                        "via",
                        topology.address(node),
                    ]
                    run(["ip", "-n", topology.namespace(machine), *route])

    def _make_kubectl(self) -> None:
        """A `kubectl` for scripts and Makefiles: the real one, in the namespace from which the API
        server can be reached."""
        self.bin.mkdir()
        words = namespaces.enter(
            topology.namespace(topology.CONTROL_PLANE), [str(self.kube), "kubectl"]
        )
        config = self.authority.kubeconfig("admin")
        script = (
            f'#!/bin/sh\nexport KUBECONFIG="${{KUBECONFIG:-{config}}}"\nexec {" ".join(words)} '
            '"$@"\n'
        )
        (self.bin / "kubectl").write_text(script)
        (self.bin / "kubectl").chmod(0o755)


def _is_ready(node: dict[str, Any]) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", [])
    )


def _disks() -> list[dict[str, object]]:
    return [
        _disk(node, number)
        for node in topology.NODES
        for number in range(1, topology.DISKS_PER_NODE + 1)
    ]


def _disk(node: str, number: int) -> dict[str, object]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{node}-disk{number}"},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": {"path": f"/mnt/disk{number}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
