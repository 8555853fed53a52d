"""The agents' own DaemonSet on a node of the bench. No GPU is there; nvidia-smi is a script that
tells of two, one lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.bench.kubernetes import topology
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.shell import wait

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_AGENTS = "gpu-tokens-agents"
NVIDIA_SMI = """#!/bin/bash
said='Unable to determine the device handle for GPU'
[ -e /tmp/well ] || echo "$said 0000:5E:00.0: GPU is lost.  Reboot the system to recover this GPU"
case "$*" in *--query-gpu=*) ;; *) exit 0;; esac
fields=$(sed -n 's/.*--query-gpu=\\([^ ]*\\).*/\\1/p' <<<"$*")
header= row=
for field in ${fields//,/ }; do
  case $field in
    index) unit= value=0;; uuid) unit= value=GPU-00000000-0000-0000-0000-00000000be0c;;
    pci.bus_id) unit= value=00000000:3B:00.0;;
    utilization.gpu) unit=' [%]' value='7 %';; memory.total) unit=' [MiB]' value='24576 MiB';;
    memory.used) unit=' [MiB]' value='1024 MiB';; power.draw*) unit=' [W]' value='61.00 W';;
    temperature.gpu) unit= value=41;; name) unit= value='NVIDIA L4';; *) unit= value='[N/A]';;
  esac
  header="$header, $field$unit" row="$row, $value"
done
printf '%s\\n%s\\n' "${header:2}" "${row:2}"
[ -e /tmp/well ] || exit 15
"""


def lose(bench: Bench) -> str:
    """Labels a node as one with GPUs and gives the agents that script; returns the name of the
    agent's pod."""
    agents = Workload(bench.cluster, _AGENTS)
    meta = {"name": "nvidia-smi", "namespace": _AGENTS}
    items = [
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "nvidia"},
            "handler": "runc",
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {"nvidia-smi": NVIDIA_SMI},
        },
    ]
    bench.cluster.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    container = {
        "name": "agent",
        "env": [
            {"name": "GPU_METRICS_SOURCE", "value": "nvidia-smi"},
            {"name": "NVIDIA_SMI_PATH", "value": "/smi/nvidia-smi"},
            {"name": "SAMPLE_INTERVAL_SECONDS", "value": "2"},
        ],
        "volumeMounts": [{"name": "smi", "mountPath": "/smi"}],
    }
    volume = {"name": "smi", "configMap": {"name": "nvidia-smi", "defaultMode": 0o755}}
    patch = {"spec": {"template": {"spec": {"containers": [container], "volumes": [volume]}}}}
    agents.kubectl("patch", "daemonset", "agent", "-p", json.dumps(patch))
    bench.cluster.kubectl(
        "label", "node", topology.NODES[0], "nvidia.com/gpu.present=true", "--overwrite"
    )
    wait(lambda: _runs(agents), 180, "no agent runs")
    name: str = agents.pods("agent")[0]["metadata"]["name"]
    return name


def bring_back(bench: Bench) -> None:
    """The GPU is there again, as after a reset."""
    agents = Workload(bench.cluster, _AGENTS)
    for pod in agents.pods("agent"):
        agents.kubectl("exec", pod["metadata"]["name"], "-c", "agent", "--", "touch", "/tmp/well")


def _runs(agents: Workload) -> bool:
    return int(agents.get("daemonset", "agent")["status"].get("numberReady", 0)) > 0
