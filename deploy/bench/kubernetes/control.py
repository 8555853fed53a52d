"""The control plane: etcd, API server, controller manager and scheduler as processes in the
namespace kp-cp."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.bench.kubernetes import topology
from deploy.bench.kubernetes.certificates import Authority
from deploy.bench.machines import cgroups, namespaces

_CGROUP = f"{topology.PREFIX}{topology.CONTROL_PLANE}"


def etcd(folder: Path) -> list[str]:
    """Without fsync: a crash of this whole machine ends the cluster anyway, and it saves seconds of
    every minute."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", client,
        "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--unsafe-no-fsync", "--log-level", "warn",
    ]  # fmt: skip


def api_server(authority: Authority) -> list[str]:
    """Authorisation by Node and RBAC, PodSecurity by namespace label, aggregation by pod address
    (no kube-proxy here)."""
    key, certificate = authority.key, authority.certificate
    flags = {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",
        "advertise-address": topology.CONTROL_ADDRESS,
        "service-cluster-ip-range": topology.SERVICES_CIDR,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "client-ca-file": certificate("ca"),
        "tls-cert-file": certificate("apiserver"),
        "tls-private-key-file": key("apiserver"),
        "kubelet-client-certificate": certificate("apiserver-kubelet"),
        "kubelet-client-key": key("apiserver-kubelet"),
        "kubelet-certificate-authority": certificate("ca"),
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-key-file": str(authority.folder / "sa.pub"),
        "service-account-signing-key-file": key("sa"),
        "service-account-issuer": f"https://kubernetes.default.svc.{topology.CLUSTER_DOMAIN}",
        "requestheader-client-ca-file": certificate("front"),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": certificate("front-client"),
        "proxy-client-key-file": key("front-client"),
        "enable-aggregator-routing": "true",
        # A node that lost power is evicted after 20 s instead of five minutes: else every power cut
        # would take that long.
        "default-not-ready-toleration-seconds": "20",
        "default-unreachable-toleration-seconds": "20",
    }
    return ["kube-apiserver", *(f"--{name}={value}" for name, value in flags.items())]


def controllers(authority: Authority) -> list[str]:
    """Faster than by default where a check would wait: lost nodes (16 s), autoscaler (every 5
    s)."""
    flags = {
        "root-ca-file": authority.certificate("ca"),
        "service-account-private-key-file": authority.key("sa"),
        "use-service-account-credentials": "true",
        "cluster-signing-cert-file": authority.certificate("ca"),
        "cluster-signing-key-file": authority.key("ca"),
        "requestheader-client-ca-file": authority.certificate("front"),
        "node-monitor-period": "2s",
        "node-monitor-grace-period": "16s",
        "horizontal-pod-autoscaler-sync-period": "5s",
        "horizontal-pod-autoscaler-initial-readiness-delay": "5s",
        "horizontal-pod-autoscaler-cpu-initialization-period": "15s",
    }
    return [
        *_client("kube-controller-manager", authority),
        *(f"--{name}={value}" for name, value in flags.items()),
    ]


def scheduler(authority: Authority) -> list[str]:
    """With its defaults."""
    return _client("kube-scheduler", authority)


def _client(program: str, authority: Authority) -> list[str]:
    config = authority.kubeconfig(program)
    flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [program, "--leader-elect=false", *(f"--{flag}={config}" for flag in flags)]


def start(kube: Path, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts one of the programs in the control plane's namespace and cgroups."""
    return spawn([str(kube), *arguments], log)


def spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts any program beside the control plane, found again by its cgroup."""
    groups = cgroups.make(_CGROUP)
    with log.open("ab") as output:
        return subprocess.Popen(
            cgroups.enter(groups, namespaces.enter(topology.namespace(topology.CONTROL_PLANE),
            command)),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=dict(os.environ),
        )  # fmt: skip
