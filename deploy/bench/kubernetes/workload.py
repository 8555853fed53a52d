"""What runs on the cluster, as the checks see it: objects, pods and their processes on this
host."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.bench.kubernetes import topology
from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.machines import cgroups
from deploy.bench.shell import CommandFailed, run, wait

NAMESPACE = "gpu-tokens"
_NAME = "app.kubernetes.io/name"
_KINDS = ("statefulset", "deployment")
REPLAY = "replay-"  # jobs of the bench itself, which come and go


class Workload:
    """The objects of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str = NAMESPACE) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(
        self,
        *arguments: str,
        timeout_seconds: float = 120,
        stdin: str | None = None,
        check: bool = True,
    ) -> str:
        """kubectl in the namespace."""
        return self.cluster.kubectl(
            "-n",
            self.namespace,
            *arguments,
            timeout_seconds=timeout_seconds,
            stdin=stdin,
            check=check,
        )

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json` in the namespace."""
        return self.cluster.get("-n", self.namespace, *arguments)

    def pods(self, name: str = "") -> list[dict[str, Any]]:
        """The pods of the workload `name` that are not on their way out, or all such pods."""
        selector = ["-l", f"{_NAME}={name}"] if name else []
        items: list[dict[str, Any]] = self.get("pods", *selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def unready(self) -> list[str]:
        """Which workloads are not at full strength and in their newest form, each with its numbers;
        empty when all is well."""
        lacking = [
            said
            for kind in _KINDS
            for item in self.get(kind)["items"]
            if (said := lack(kind, item))
        ]
        for job in self.get("jobs")["items"]:
            name = job["metadata"]["name"]
            if not job["status"].get("succeeded") and not name.startswith(REPLAY):
                lacking.append(f"job/{name} not done")
        return lacking

    def wait_until_ready(self, timeout_seconds: float) -> float:
        """Until nothing is unready; returns the seconds it took. Raises CommandFailed with what is
        still unready."""
        started = time.monotonic()
        last: list[str] = ["nothing asked yet"]

        def ready() -> bool:
            with contextlib.suppress(CommandFailed):
                last[:] = self.unready()
                if not last:
                    return True
            time.sleep(1)
            return False

        try:
            wait(ready, timeout_seconds, "not ready")
        except CommandFailed:
            raise CommandFailed(
                f"after {timeout_seconds:.0f} s: {'; '.join(last)}\n{self.troubles()}"
            ) from None
        return time.monotonic() - started

    def troubles(self) -> str:
        """The pods that are not Ready and the last events, for an error message."""
        pods = [
            line
            for line in self.kubectl("get", "pods", "-o", "wide", check=False).splitlines()
            if "Completed" not in line
        ]
        events = self.kubectl(
            "get", "events", "--sort-by=.lastTimestamp", check=False
        ).splitlines()[-12:]
        return "\n".join([*pods, *events])

    def process_of(self, pod: dict[str, Any]) -> int:
        """This host's number of a process of the pod. Raises CommandFailed when it has none."""
        mark = f"pod{pod['metadata']['uid']}"
        pid = next(cgroups.processes([mark]), None)
        if pid is None:
            raise CommandFailed(f"{pod['metadata']['name']} has no process on this host")
        return pid

    def programs_of(self, pod: dict[str, Any], name: str) -> list[int]:
        """This host's numbers of the pod's processes whose command line holds `name`."""
        pids = []
        for pid in cgroups.processes([f"pod{pod['metadata']['uid']}"]):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if name in Path(f"/proc/{pid}/cmdline").read_text():
                    pids.append(pid)
        return pids

    def in_network_of(
        self,
        pod: dict[str, Any],
        command: Sequence[str],
        timeout_seconds: float = 60,
        stdin: str | None = None,
    ) -> str:
        """Runs a program of this host in the pod's network: what it may reach, the pod may
        reach."""
        enter = ["nsenter", "-t", str(self.process_of(pod)), "-n", "--", *command]
        return run(enter, timeout_seconds=timeout_seconds, stdin=stdin).stdout

    def spawn_in_network_of(self, pod: dict[str, Any], command: Sequence[str]) -> None:
        """Starts a program of this host in the pod's network. It has to end by itself; after a kill
        its cgroup finds it."""
        enter = ["nsenter", "-t", str(self.process_of(pod)), "-n", "--", *command]
        groups = cgroups.make(f"{topology.PREFIX}visitors")
        subprocess.Popen(
            cgroups.enter(groups, enter),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def secret(self, prefix: str, key: str) -> str:
        """A value of the newest Secret whose name starts with `prefix` (generated names end with a
        hash)."""
        items = [
            item
            for item in self.get("secrets")["items"]
            if item["metadata"]["name"].startswith(prefix)
        ]
        newest = max(items, key=lambda item: item["metadata"]["creationTimestamp"])
        return base64.b64decode(newest["data"][key]).decode()


def lack(kind: str, item: dict[str, Any]) -> str:
    """What a StatefulSet or Deployment lacks to its full strength in its newest form; empty when
    nothing."""
    status, wanted = item["status"], item["spec"].get("replicas", 1)
    ready, updated = status.get("readyReplicas", 0), status.get("updatedReplicas", 0)
    if status.get("observedGeneration", 0) < item["metadata"]["generation"]:
        return f"{kind}/{item['metadata']['name']} not looked at yet"
    if {ready, updated, status.get("replicas", 0)} != {wanted}:
        return f"{kind}/{item['metadata']['name']} {ready}/{wanted} ready, {updated} new"
    return ""
