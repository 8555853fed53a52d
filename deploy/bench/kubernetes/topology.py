"""Names and addresses of the cluster. Everything outside of its folder carries the prefix, so that
it can be found again.

kp-switch ─┬─ kp-cp  10.77.0.10   etcd, API server, controllers, scheduler
           ├─ kp-n1  10.77.0.11   containerd, kubelet, kube-proxy, kube-router; pods 10.244.1.0/24
           ├─ kp-n2  10.77.0.12
           └─ kp-n3  10.77.0.13
"""

from __future__ import annotations

PREFIX = "kp-"
SWITCH = f"{PREFIX}switch"
CONTROL_PLANE = "cp"
CONTROL_ADDRESS = "10.77.0.10"
NODES = ("n1", "n2", "n3")
SERVICES_CIDR = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
PODS_CIDR = "10.244.0.0/16"
CLUSTER_DOMAIN = "cluster.local"
DISKS_PER_NODE = 2


def namespace(machine: str) -> str:
    """The network namespace of `cp` or a node."""
    return f"{PREFIX}{machine}"


def address(machine: str) -> str:
    """The machine's address on the switch."""
    return CONTROL_ADDRESS if machine == CONTROL_PLANE else f"10.77.0.1{machine.removeprefix('n')}"


def pods_cidr(node: str) -> str:
    """The addresses of a node's pods."""
    return f"10.244.{node.removeprefix('n')}.0/24"
