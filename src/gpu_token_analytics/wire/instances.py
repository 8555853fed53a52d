"""Names of serving instances: one spelling for what a URL, a pod or a service says, and the GPU
name of an instance whose GPUs nobody told.

    http://Node1:8000/v1, node1:8000/v1/chat    ->  node1:8000     (without a port: 80, https: 443)
    chat/vllm-0                                 ->  chat.vllm-0    (namespace and pod)
    [::1]:8000                                  ->  [0000:0000:0000:0000:0000:0000:0000:0001]:8000
"""

from __future__ import annotations

import re
from hashlib import blake2b
from ipaddress import IPv6Address
from urllib.parse import urlsplit

# with the prefix it is the name of a GPU, of which there are at most 128 characters
MAX_INSTANCE = 110
UNPLACED = "instance:"
_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
_ADDRESS = re.compile(r"(?:\[[0-9a-f:.]+\]|[0-9a-z._-]+):\d{1,5}", re.ASCII)


def canonical_instance(text: str) -> str:
    """The one spelling of an instance's name; '' where nothing is left of it. What is too long ends
    with a digest."""
    name = "".join(
        " " if character.isspace() or not character.isprintable() else character
        for character in text
    )
    name = name.strip().lower().removeprefix(UNPLACED)
    if "://" in name:
        name = _address_of(name)
    elif _ADDRESS.fullmatch(name.partition("/")[0]):
        name = _address_of(f"//{name}")
    # A slash would make a label of it (host/index), two colons a share of a GPU in time
    # (wire/names.py).
    name = re.sub(r":{2,}", ":", name.strip("/").replace("/", "."))
    if len(name) <= MAX_INSTANCE:
        return name
    return f"{name[: MAX_INSTANCE - 17]}~{blake2b(name.encode(), digest_size=8).hexdigest()}"


def unplaced_gpu(instance: str) -> str:
    """What a request's GPU is called where it is not known on which GPUs its instance runs: no
    GPU's name, so that its tokens are kept without money. instance: canonical."""
    return UNPLACED + instance


def instance_of(gpu: str) -> str | None:
    """The instance in such a name; None for the name of a GPU."""
    return gpu.removeprefix(UNPLACED) if gpu.startswith(UNPLACED) else None


def _address_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:  # no port, no address
        return url.partition("://")[2] or url
    if ":" in host:
        try:
            host = f"[{IPv6Address(host.partition('%')[0]).exploded}]"
        except ValueError:
            host = f"[{host}]"
    host = host.rstrip(".")
    return host if port is None or not host else f"{host}:{port}"
