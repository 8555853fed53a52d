"""One spelling for what senders spell in many: hosts, and the names of GPUs, in samples, requests and price rows alike.

    host         case and a dot at its end say nothing (RFC 4343, RFC 1034 section 3.1)      Node1.  ->  node1
    GPU-, MIG-   NVIDIA's UUIDs are hexadecimal, their case says nothing                     gpu-1F  ->  GPU-1f
    ::n          the device plugin's n-th share of one GPU in time (NVIDIA/k8s-device-plugin, `replicas`)
    host/index   the index is a number                                                       node1/00  ->  node1/0

Which GPU a name means is decided by what is known of GPUs at a time (ledger/placements.py), not here.
"""

from __future__ import annotations

_UUID_KINDS = frozenset({"GPU", "MIG"})
_SHARE_OF_TIME = "::"
_LONGEST_INDEX = 9


def canonical_host(host: str) -> str:
    """The one spelling of a host's name."""
    return host.rstrip(".").lower() or host


def canonical_gpu(name: str) -> str:
    """The one spelling of a GPU's name: a UUID or `host/index`."""
    whole = name.partition(_SHARE_OF_TIME)[0] or name
    host, slash, index = whole.rpartition("/")
    if slash:
        is_label = host and "/" not in host and len(index) <= _LONGEST_INDEX and index.isascii() and index.isdecimal()
        return f"{canonical_host(host)}/{int(index)}" if is_label else whole
    kind, dash, digits = whole.partition("-")
    return f"{kind.upper()}-{digits.lower()}" if dash and kind.upper() in _UUID_KINDS else whole
