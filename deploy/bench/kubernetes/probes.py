"""Pods of the bench itself: they do nothing, but stand where a policy or a quota can be tried
out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.kubernetes.images import PAUSE_IMAGE
from deploy.bench.shell import CommandFailed, wait

_MARK = {"bench": "probe"}


def pod(name: str, namespace: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A pod that sleeps, and that `restricted` takes."""
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "pause",
        "image": PAUSE_IMAGE,
        "securityContext": confined,
        "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {**_MARK, **(labels or {})}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65535,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def create(cluster: Cluster, pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Creates the pods, and the namespaces that are missing; returns them as the cluster has them
    once all run."""
    spaces = sorted({item["metadata"]["namespace"] for item in pods})
    known = {item["metadata"]["name"] for item in cluster.get("namespaces")["items"]}
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _MARK}}
        for name in spaces
        if name not in known
    ]
    for item in pods:
        if item["metadata"]["namespace"] in known:
            _own(cluster, item)
    cluster.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*items, *pods]}))
    wanted = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in pods}
    running: dict[tuple[str, str], dict[str, Any]] = {}

    def all_run() -> bool:
        for item in cluster.get("pods", "-A", "-l", "bench=probe")["items"]:
            if item["status"]["phase"] == "Running":
                running[item["metadata"]["namespace"], item["metadata"]["name"]] = item
        return wanted <= set(running)

    try:
        wait(all_run, 90, "not all probes run")
    except CommandFailed as late:
        raise CommandFailed(f"{late}: {sorted(wanted - set(running))}") from None
    return [running[key] for key in sorted(wanted)]


def _own(cluster: Cluster, item: dict[str, Any]) -> None:
    """Gives the pod an owner: a DaemonSet that selects its labels would adopt it, and delete it as
    one too many."""
    owner = cluster.get("-n", item["metadata"]["namespace"], "configmap", "kube-root-ca.crt")[
        "metadata"
    ]
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["name"],
        "uid": owner["uid"],
        "controller": True,
    }
    item["metadata"]["ownerReferences"] = [reference]


def remove(cluster: Cluster) -> None:
    """Removes all probes and the namespaces that were made for them."""
    cluster.kubectl(
        "delete",
        "pods",
        "-A",
        "-l",
        "bench=probe",
        "--ignore-not-found",
        "--wait=true",
        "--force",
        check=False,
    )
    cluster.kubectl(
        "delete",
        "namespaces",
        "-l",
        "bench=probe",
        "--ignore-not-found",
        "--wait=false",
        check=False,
    )
