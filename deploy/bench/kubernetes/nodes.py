"""The nodes: a network namespace, cgroups, and a first process with its own mounts, host name and
process numbers.

The root file system is this host's, with private folders mounted over the few that a node writes.
SIGKILL to the first process is a power cut: the kernel ends everything in its process namespace at
once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.bench.kubernetes import images, topology
from deploy.bench.kubernetes.certificates import Authority
from deploy.bench.machines import cgroups, namespaces
from deploy.bench.shell import CommandFailed, run, wait
from deploy.flows import ROOT

_SHARE = 3


def prepare(folder: Path, node: str, authority: Authority, kube: Path) -> None:
    """Writes the configuration of everything that runs on the node."""
    folder.mkdir(parents=True, exist_ok=True)
    network = folder / "net.d"
    network.mkdir(exist_ok=True)
    (network / "10-bridge.conflist").write_text(json.dumps(_pod_network(node)))
    (folder / "containerd.toml").write_text(_CONTAINERD)
    (folder / "resolv.conf").write_text("")
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(folder, node, authority)))
    (folder / "proxy.json").write_text(json.dumps(_proxy(authority)))
    (folder / "kube-router").unlink(missing_ok=True)
    (folder / "kube-router").symlink_to(kube)  # the binary looks at the name it is called by
    (folder / "node.json").write_text(json.dumps(_programs(folder, node, authority, kube)))


def start(folder: Path, node: str) -> None:
    """Power on. The node joins the cluster by itself."""
    group = f"{topology.PREFIX}{node}"
    # The kubelet's pods come below it. A node is some twenty programs: it must not get the time of
    # one beside other tests.
    cgroups.share(cgroups.make(group), _SHARE)
    groups = cgroups.make(f"{group}/system")
    machine = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
    "--",
               sys.executable, "-m", "deploy.bench.kubernetes.node_init",
               str(folder / "node.json")]  # fmt: skip
    with (folder / "node.log").open("ab") as output:
        supervisor = subprocess.Popen(
            cgroups.enter(groups, namespaces.enter(topology.namespace(node), machine)),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    _pid_file(folder).write_text(str(supervisor.pid))
    wait(lambda: bool(_children(folder)), 30, f"{node} did not start, see {folder / 'node.log'}")


def leader(folder: Path) -> int:
    """This host's number of the node's first process. Raises CommandFailed when the node is off."""
    children = _children(folder)
    if not children:
        raise CommandFailed(f"{folder.name} is off")
    return children[0]


def cut_power(folder: Path, node: str) -> None:
    """Everything on the node ends at once, without a word to anybody."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader(folder), signal.SIGKILL)
    wait(lambda: not _children(folder), 30, f"{node} did not die")
    group = f"{topology.PREFIX}{node}"
    cgroups.kill([f"/{group}/"])
    # The kubelet refuses nothing that is left here, but its counters would go on from the dead
    # pods' groups.
    with contextlib.suppress(CommandFailed):
        cgroups.remove(group)


def inside(
    folder: Path, command: Sequence[str], *, timeout_seconds: float = 60, check: bool = True
) -> str:
    """Runs a command on the node, as root."""
    enter = ["nsenter", "-t", str(leader(folder)), "-m", "-n", "-p", "-u", "--", *command]
    return run(enter, timeout_seconds=timeout_seconds, check=check).stdout


def _pid_file(folder: Path) -> Path:
    return folder / "supervisor.pid"


def _children(folder: Path) -> list[int]:
    """The node's first process, as a child of `unshare`; empty when it is off."""
    if not _pid_file(folder).exists():
        return []
    supervisor = _pid_file(folder).read_text()
    return [
        int(pid)
        for pid in run(
            ["pgrep", "-P", supervisor, "--runstates", "DRSTI"], check=False
        ).stdout.split()
    ]


def _pod_network(node: str) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": topology.pods_cidr(node)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _programs(folder: Path, node: str, authority: Authority, kube: Path) -> dict[str, object]:
    policies = [
        "--run-router=false",
        "--run-firewall=true",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
    ]
    return {
        "node": node,
        "folder": str(folder),
        "disks": topology.DISKS_PER_NODE,
        "programs": {
            "containerd": ["containerd", "--config", str(folder / "containerd.toml")],
            "kubelet": [str(kube), "kubelet", "--config", str(folder / "kubelet.json"),
            "--kubeconfig",
                        authority.kubeconfig(node), "--node-ip", topology.address(node),
                        "--hostname-override", node,
                        "--cert-dir", "/var/lib/kubelet/pki", "--node-labels",
                        f"topology.kubernetes.io/zone=zone-{node[1:]}"],
            "kube-proxy": [str(kube), "kube-proxy", "--config", str(folder / "proxy.json"),
            "--hostname-override", node],
            # Policies only; without it they would be accepted by the API server and silently not
            # enforced.
            "kube-router": [str(folder / "kube-router"), *policies, "--kubeconfig",
            authority.kubeconfig("kube-proxy"),
                            "--hostname-override", node, "--service-cluster-ip-range",
                            topology.SERVICES_CIDR],
        },
    }  # fmt: skip


def _kubelet(folder: Path, node: str, authority: Authority) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{topology.PREFIX}{node}",
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority.certificate("ca")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": authority.certificate(node),
        "tlsPrivateKeyFile": authority.key(node),
        "clusterDNS": [topology.DNS_SERVICE],
        "clusterDomain": topology.CLUSTER_DOMAIN,
        "resolvConf": str(folder / "resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "imageGCHighThresholdPercent": 100,  # a collected image could not be pulled again
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        # each of the three nodes sees this host's whole memory
        "systemReserved": {"memory": "17Gi"},
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "seccompDefault": True,
        "maxPods": 60,
        "shutdownGracePeriod": "0s",
    }  # fmt: skip


def _proxy(authority: Authority) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": topology.PODS_CIDR,
        "clientConnection": {"kubeconfig": authority.kubeconfig("kube-proxy")},
        # else it writes a parameter that only the host's own namespace has
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


_CONTAINERD = f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE_IMAGE}"
  tolerate_missing_hugetlb_controller = true
  # Without CAP_SYS_RESOURCE nobody may lower oom_score_adj, and runc would die of it: no pod
  # would start.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""
