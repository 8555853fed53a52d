"""Four systemd machines in network namespaces, on one bridge, with the flow table's names and
addresses.

    admin 198.51.100.10 (this host) ── gtvbr0 ──┬── vm1-kafka 10.0.1.11 ... vm4-producers 10.0.1.14
                                                └── outsider 10.0.1.99: a neighbour in no flow

Everything carries the prefix `gtv`, so that `remove_leftovers()` finds what an earlier run left
when it was killed: processes by the cgroup they were started in, then mounts, namespaces, the
bridge and the cgroups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bench.machines import leftovers, nspawn
from deploy.bench.machines.roots import mount_overlay
from deploy.bench.shell import CommandFailed, run, wait
from deploy.flows import FlowTable, Machine

PREFIX = "gtv"
BRIDGE = f"{PREFIX}br0"
GATEWAY = "10.0.1.1/24"
ADMIN_ADDRESS = "198.51.100.10"  # TEST-NET-2: an operator somewhere on the internet
OUTSIDER = "outsider"
OUTSIDER_ADDRESS = "10.0.1.99"
USER = "ubuntu"
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "make": "make",
}

# Bench only. A container engine needs writable cgroups, which nspawn mounts read-only on cgroup v1
# hosts.
_CGROUP_UNIT = """[Unit]
Description=cgroups writable for the container engine (test bench only)
Before=docker.service containerd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for i in 1 2 3 4 5; do \\
  ok=1; \\
  for d in /sys/fs/cgroup/*/; do mountpoint -q $d || continue; \\
    mount -o remount,bind,rw,nosuid,nodev,noexec $d || ok=0; done; \\
  [ $ok = 1 ] && exit 0; sleep 0.2; done; exit 1'
[Install]
WantedBy=multi-user.target
"""


def lacking() -> list[str]:
    """What this machine lacks to run the bench, each with its remedy; empty when it can."""
    lacks = [] if os.geteuid() == 0 else ["root rights (sudo make vms)"]
    missing = sorted(
        {package for program, package in _NEEDED.items() if shutil.which(program) is None}
    )
    if missing:
        lacks.append(f"programs: apt-get install {' '.join(missing)}")
    if lacks:
        return lacks
    probe = f"{PREFIX}-probe"
    try:
        run(["ip", "netns", "add", probe])
        run(["ip", "link", "add", probe, "type", "bridge"])
    except CommandFailed as error:
        lacks.append(f"network namespaces or bridges: {error}")
    finally:
        run(["ip", "link", "del", probe], check=False)
        run(["ip", "netns", "del", probe], check=False)
    return lacks


@dataclass
class Bench:
    """The machines of one run. `folder` holds their own layers and logs and is removed by `down()`;
    `layers` are shared."""

    table: FlowTable
    folder: Path
    layers: Sequence[Path]
    _pids: dict[str, int] = field(default_factory=dict)

    # -- the whole bench

    def up(self) -> None:
        """Network and all machines; returns when systemd says that each is up."""
        self.prepare()
        self._make_bridge()
        self._make_namespace(OUTSIDER, OUTSIDER_ADDRESS)
        for machine in self.table.machines.values():
            self._make_namespace(machine.name, machine.ip)
            self._make_root(machine)
            self.start(machine.name)
        for name in self.table.machines:
            self.wait_until_up(name)

    def prepare(self) -> None:
        """The folder and the administrator's key; no machine."""
        self.folder.mkdir(parents=True)
        run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "bench-admin",
                "-f",
                str(self.key),
            ]
        )

    def down(self) -> None:
        """Removes every trace but the cache. Never raises for what is already gone."""
        remove_leftovers(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def key(self) -> Path:
        """The administrator's private SSH key."""
        return self.folder / "id_admin"

    @property
    def ssh_options(self) -> list[str]:
        """For ssh and scp: this key only, the bench's own known_hosts."""
        known = f"UserKnownHostsFile={self.folder / 'known_hosts'}"
        words = [
            "StrictHostKeyChecking=accept-new",
            known,
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=5",
            "LogLevel=ERROR",
        ]
        return ["-i", str(self.key), *(word for option in words for word in ("-o", option))]

    # -- one machine

    def start(self, name: str) -> None:
        """Power on."""
        root, machine = self.folder / name / "root", self.table.machines[name]
        store = self.folder / name
        for engine in ("docker", "containerd"):
            (store / engine).mkdir(exist_ok=True)
        command = [
            "systemd-nspawn", "-q", "-D", str(root), "--boot", "-M", machine.name,
            f"--hostname={machine.name}",
            f"--network-namespace-path=/run/netns/{PREFIX}-{name}", "--register=no", "--keep-unit",
            "--link-journal=no",
            "--resolv-conf=off", "--timezone=off", "--capability=all", "--console=pipe",
            # An engine's overlay store cannot lie on an overlay.
            f"--bind={store / 'docker'}:/var/lib/docker",
            f"--bind={store / 'containerd'}:/var/lib/containerd",
            # read by systemd 256 and later on cgroup v1 hosts
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ]  # fmt: skip
        self._pids[name] = nspawn.spawn(f"{PREFIX}-{name}", command, store / "console.log")

    def kill(self, name: str) -> None:
        """Power loss: SIGKILL to the machine's PID 1 takes every process of it, at once."""
        pid = self.leader(name)
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not nspawn.alive(self._pids[name]), 20, f"{name} did not die")

    def leader(self, name: str) -> int:
        """This host's pid of the machine's PID 1. Raises CommandFailed when it is not running."""
        children = run(["pgrep", "-P", str(self._pids[name])], check=False).stdout.split()
        if not children:
            log = self.folder / name / "console.log"
            raise CommandFailed(
                f"{name} is not running; its console: {log.read_text(errors='replace')[-2000:]}"
            )
        return int(children[0])

    def _enter(self, name: str, *command: str) -> list[str]:
        """What runs a command in all namespaces of a machine."""
        namespaces = ("-m", "-n", "-p", "-i", "-u", "-C")
        return ["nsenter", "-t", str(self.leader(name)), *namespaces, "--", *command]

    def inside(
        self, name: str, *command: str, check: bool = True, timeout_seconds: float = 120
    ) -> str:
        """Runs a command in the machine as root, without the network."""
        return run(self._enter(name, *command), check=check, timeout_seconds=timeout_seconds).stdout

    def ssh(
        self, name: str, command: str, *, check: bool = True, timeout_seconds: float = 120
    ) -> str:
        """Runs a command in the machine over SSH, as the administrator's user."""
        target = f"{USER}@{self.table.machines[name].ip}"
        return run(
            ["ssh", *self.ssh_options, target, command],
            check=check,
            timeout_seconds=timeout_seconds,
        ).stdout

    def load(self, name: str, image: Path) -> None:
        """Loads a saved image into the machine's engine: what a pull from a registry does
        elsewhere."""
        enter = self._enter(name, "docker", "load", "-q")
        with image.open("rb") as file:
            done = subprocess.run(enter, stdin=file, capture_output=True, timeout=300, check=False)
        if done.returncode != 0:
            raise CommandFailed(f"docker load on {name}: {done.stderr.decode(errors='replace')}")

    def wait_until_up(self, name: str, timeout_seconds: float = 60) -> None:
        """Until systemd has finished starting and the container engine answers."""

        def is_up() -> bool:
            with contextlib.suppress(CommandFailed):
                state = self.inside(name, "systemctl", "is-system-running", check=False).strip()
                return state in ("running", "degraded") and "Server" in self.inside(
                    name, "docker", "version", check=False
                )
            return False

        wait(is_up, timeout_seconds, f"{name} is not up")
        state = self.inside(name, "systemctl", "is-system-running", check=False).strip()
        if state != "running":
            raise CommandFailed(
                f"{name} is {state}: "
                f"{self.inside(name, 'systemctl', '--failed', '--no-pager', check=False)}"
            )

    # -- parts

    def _make_bridge(self) -> None:
        # else this host's own FORWARD rules would judge the machines' traffic
        if _BRIDGE_FILTER.exists():
            (self.folder / _BRIDGE_FILTER.name).write_text(_BRIDGE_FILTER.read_text())
            _BRIDGE_FILTER.write_text("0")
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "addr", "add", GATEWAY, "dev", BRIDGE, "noprefixroute"])
        run(["ip", "addr", "add", f"{ADMIN_ADDRESS}/32", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])
        run(["ip", "route", "add", self.table.subnet_cidr, "dev", BRIDGE, "src", ADMIN_ADDRESS])

    def _make_namespace(self, name: str, address: str) -> None:
        namespace, host_end = f"{PREFIX}-{name}", f"{PREFIX}-{name}"[:15]
        gateway, prefix = GATEWAY.split("/")
        run(["ip", "netns", "add", namespace])
        run(
            [
                "ip",
                "link",
                "add",
                host_end,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                namespace,
            ]
        )
        run(["ip", "link", "set", host_end, "master", BRIDGE, "up"])
        for words in (
            f"addr add {address}/{prefix} dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {gateway}",
        ):
            run(["ip", "-n", namespace, *words.split()])

    def _make_root(self, machine: Machine) -> None:
        own = self.folder / machine.name
        root = own / "root"
        mount_overlay(self.layers, own / "layer", root, own / "work")
        (root / "etc/machine-id").write_text("")
        # apt's index counts as fresh: the machines have no way to a mirror
        os.utime(root / "var/lib/apt/lists")
        (root / "etc/hostname").write_text(machine.name + "\n")
        hosts = [f"{m.ip} {m.name}" for m in self.table.machines.values()]
        (root / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts]) + "\n")
        (root / "etc/default/docker").write_text(
            f'DOCKER_OPTS="--cgroup-parent=/{PREFIX}-{machine.name}/containers"\n'
        )
        (root / "etc/systemd/system/bench-cgroups.service").write_text(_CGROUP_UNIT)
        (root / "etc/systemd/system/multi-user.target.wants/bench-cgroups.service").symlink_to(
            "../bench-cgroups.service"
        )
        ssh = root / "home" / USER / ".ssh"
        ssh.mkdir(mode=0o700)
        (ssh / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        run(["chroot", str(root), "chown", "-R", f"{USER}:{USER}", f"/home/{USER}/.ssh"])


def remove_leftovers(folder: Path) -> None:
    """Ends and removes what carries the bench's prefix, and puts back the host's bridge filter."""
    leftovers.remove(f"{PREFIX}-", folder)
    saved = folder / _BRIDGE_FILTER.name
    if saved.exists():
        _BRIDGE_FILTER.write_text(saved.read_text())
    run(["ip", "link", "del", BRIDGE], check=False)
