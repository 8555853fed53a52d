"""Network namespaces on a switch that has a namespace of its own: this host's interfaces and
firewall are not touched."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.bench.shell import run

BRIDGE = "br0"


def make_switch(name: str) -> None:
    """A namespace with nothing but a bridge in it."""
    run(["ip", "netns", "add", name])
    for words in (f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up", "link set lo up"):
        run(["ip", "-n", name, *words.split()])
    # Else packets between machines would also pass the switch's own (empty) firewall, with
    # connection tracking.
    sysctl(name, ["net.bridge.bridge-nf-call-iptables=0"])


def join(switch: str, namespace: str, address: str, port: str) -> None:
    """A namespace with `eth0` at `address` (with prefix length), plugged into the switch; `port`
    names the switch's end."""
    run(["ip", "netns", "add", namespace])
    run(
        [
            "ip",
            "-n",
            namespace,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            port,
            "netns",
            switch,
        ]
    )
    run(["ip", "-n", switch, "link", "set", port, "master", BRIDGE, "up"])
    for words in (
        f"addr add {address} dev eth0",
        "link set eth0 up",
        "link set lo up",
        "route add default dev eth0",
    ):
        run(["ip", "-n", namespace, *words.split()])


def plug(switch: str, port: str, *, connected: bool) -> None:
    """Pulls a machine's cable out of the switch, or puts it back."""
    run(["ip", "-n", switch, "link", "set", port, "up" if connected else "down"])


def enter(namespace: str, command: Sequence[str]) -> list[str]:
    """The command that runs `command` in the namespace. (`ip netns exec` would hide
    /sys/fs/cgroup.)"""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *command]


def sysctl(namespace: str, settings: Sequence[str]) -> None:
    """Sets kernel parameters of one network namespace."""
    run(enter(namespace, ["sysctl", "-qw", *settings]))
