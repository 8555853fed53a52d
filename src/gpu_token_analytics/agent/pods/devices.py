"""GPUs of the names that device plugins and drivers give to devices.

GPU-<uuid>, MIG-<uuid>       NVIDIA's device plugin
GPU-<uuid>::<n>              the n-th share of a GPU in time (time-slicing, MPS): the GPU
nvidia<n>, nvidia<n>/vgpu<m> GKE's: the n-th GPU of the node. nvidia<n>/gi<m>, a slice by its
number, is not known by UUID
driver, pool, device         dynamic resource allocation (KEP-3695): what its ResourceSlice says
                             (slices.py)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpu_token_analytics.agent.pods.kubelet import ClaimedDevice, Pod
from gpu_token_analytics.wire.names import canonical_gpu, gpu_label

_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z./:-]+", re.ASCII | re.IGNORECASE)
_BY_INDEX = re.compile(r"nvidia(\d{1,4})(?:/vgpu\d+)?", re.ASCII)
_DRIVER = "gpu.nvidia.com"
_PLUGIN = "nvidia.com/"

LookUp = Callable[[ClaimedDevice], str | None]


@dataclass(frozen=True)
class PodGpus:
    """The GPUs of a pod, canonical; and devices of GPUs of which it is not known which GPU they
    are."""

    instance: str  # namespace/pod
    gpus: tuple[str, ...]
    unknown: tuple[str, ...]


def gpus_of(pod: Pod, host: str, look_up: LookUp) -> PodGpus | None:
    """Which GPUs a pod has; None: none. look_up: the UUID of a claimed device, None where nobody
    says."""
    gpus: list[str] = []
    unknown: list[str] = []
    for device in pod.devices:
        if not device.resource.startswith(_PLUGIN):
            continue
        by_index = _BY_INDEX.fullmatch(device.id)
        if _UUID.fullmatch(device.id):
            gpus.append(canonical_gpu(device.id))
        elif by_index:
            gpus.append(gpu_label(host, int(by_index[1])))
        else:
            unknown.append(device.id)
    for claimed in pod.claimed:
        if claimed.driver == _DRIVER:
            uuid = look_up(claimed)
            if uuid is None:
                unknown.append(f"{claimed.pool}/{claimed.name}")
            else:
                gpus.append(canonical_gpu(uuid))
    if not gpus and not unknown:
        return None
    distinct = tuple(sorted(set(gpus)))
    if any("/" in gpu for gpu in distinct) and not all("/" in gpu for gpu in distinct):
        # a placement names all by UUID, or all as host/index
        unknown += [gpu for gpu in distinct if "/" in gpu]
        distinct = tuple(gpu for gpu in distinct if "/" not in gpu)
    return PodGpus(f"{pod.namespace}/{pod.name}", distinct, tuple(sorted(set(unknown))))
