"""One spelling for what senders spell in many: hosts, and the names of GPUs, in samples, requests
and price rows alike.

    host         case and a dot at its end say nothing (RFC 4343, RFC 1034 section 3.1):
                     Node1.  ->  node1
    GPU-, MIG-   NVIDIA's UUIDs are hexadecimal, their case says nothing:
                     gpu-1F  ->  GPU-1f
    ::n          the device plugin's n-th share of one GPU in time (NVIDIA/k8s-device-plugin,
                 `replicas`)
    MIG-GPU-     a slice of drivers before 470 has slashes, and is no label:
                     MIG-GPU-1f/5/0  ->  MIG-gpu-1f-5-0
    host/index   the index is a number:
                     node1/00  ->  node1/0
    addresses    an IPv6 address as RFC 5952 writes it, bare:
                     [FD00:0:0:0::1]/0  ->  fd00::1/0

A UUID of zeros, which virtual and passed-through cards show, is none (`is_nil`): such a card goes
by `host/index`.

Two names may still be of one GPU: a host with its domain and without, a UUID and its beginning, as
people abbreviate it. Which GPU a name means is decided by what is known of GPUs at a time
(ledger/placements.py), not here; here is what may be the same.

    name_key()  is equal for any two names that may be the same:
                    node1.example/0, node1/0       ->  node1/0
                    GPU-8f4c2a1b-77.., 8f4c2a1b    ->  8f4c2a1b
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Any

_UUID_KINDS = frozenset({"GPU", "MIG"})
_SHARE_OF_TIME = "::"
NIL_UUID = "GPU-00000000-0000-0000-0000-000000000000"
_old_slice = re.compile(r"MIG-GPU-[^/]+(?:/[0-9]+){2}", re.IGNORECASE).fullmatch
_LONGEST_INDEX = 9
_SHORTEST_UUID = 8  # digits: the first group of a UUID. Fewer are as likely an index or a count
_bare_uuid = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE).fullmatch
# GPU-0 is a name that people give
_zeros = re.compile(r"(?:(?:GPU|MIG)-)?0{8}[0-]*", re.IGNORECASE).fullmatch
_digits = re.compile(r"(?:(GPU|MIG)-)?([0-9a-f]{8}[0-9a-f-]*)", re.IGNORECASE).fullmatch


def canonical_host(host: str) -> str:
    """The one spelling of a host's name."""
    if ":" in host:
        try:
            return str(IPv6Address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            pass
    return host.rstrip(".").lower() or host


def gpu_label(host: str, index: int) -> str:
    """`host/index`: how people name a GPU, and its id as long as no UUID is known."""
    return f"{canonical_host(host)}/{index}"


def canonical_gpu(name: str) -> str:
    """The one spelling of a GPU's name: a UUID or `host/index`."""
    whole = _without_share(name) if _SHARE_OF_TIME in name else name
    if _old_slice(whole):
        whole = whole.replace("/", "-")
    host, slash, index = whole.rpartition("/")
    if slash:
        is_label = (
            host
            and "/" not in host
            and len(index) <= _LONGEST_INDEX
            and index.isascii()
            and index.isdecimal()
        )
        return f"{canonical_host(host)}/{int(index)}" if is_label else whole
    if _bare_uuid(whole):
        return whole.lower()
    kind, dash, digits = whole.partition("-")
    return f"{kind.upper()}-{digits.lower()}" if dash and kind.upper() in _UUID_KINDS else whole


def _without_share(name: str) -> str:
    """A name without the share of time at its end; in the middle `::` stands in addresses."""
    whole, _, share = name.rpartition(_SHARE_OF_TIME)
    while whole and share.isascii() and share.isdecimal():
        name = whole
        whole, _, share = name.rpartition(_SHARE_OF_TIME)
    return name


def host_and_uuid(name: str) -> tuple[str, str] | None:
    """(host, UUID) of a name that ledger/shared.py gives to a card whose UUID others have, too;
    None of any other name."""
    host, _, uuid = name.rpartition("/")
    return (host, uuid) if host and uuid and not uuid.isdecimal() else None


def canonical_uuid(uuid: str, kind: str) -> str:
    """The one spelling of the UUID of a sampled GPU. kind: GPU or MIG, for one that is sent bare
    (8f4c2a1b-77aa-..)."""
    name = canonical_gpu(uuid)
    return f"{kind}-{name.lower()}" if _bare_uuid(name) else name


def is_nil(uuid: str) -> bool:
    """Whether a UUID is all zeros: two cards that show it are two."""
    return bool(_zeros(uuid))


def spellings(gpu: str) -> frozenset[str]:
    """The names under which a GPU that somebody asks for may be stored."""
    return frozenset(
        (gpu, canonical_gpu(gpu), canonical_uuid(gpu, "GPU"), canonical_uuid(gpu, "MIG"))
    )


def name_key(name: str) -> str:
    """What a canonical name has in common with every other that may be of the same GPU."""
    host, slash, index = name.rpartition("/")
    if slash:
        return f"{_first_label(host)}/{index}"
    uuid = _digits(name)
    return uuid.group(2)[:_SHORTEST_UUID].lower() if uuid else name


def may_be_same(name: str, other: str) -> bool:
    """Whether two canonical names can be of one GPU: one host with its domain and without, or the
    beginning of a UUID."""
    host, slash, index = name.rpartition("/")
    other_host, other_slash, other_index = other.rpartition("/")
    if slash or other_slash:
        return (
            bool(slash and other_slash)
            and index == other_index
            and may_be_same_host(host, other_host)
        )
    uuid, other_uuid = _digits(name), _digits(other)
    if uuid is None or other_uuid is None:
        return name == other
    kinds = {kind.upper() for kind in (uuid.group(1), other_uuid.group(1)) if kind}
    short, long = sorted((uuid.group(2).lower(), other_uuid.group(2).lower()), key=len)
    return len(kinds) < 2 and long.startswith(short)


def may_be_same_host(host: str, other: str) -> bool:
    """Whether two canonical names can be of one host: with its domain and without."""
    if host == other:
        return True
    short, long = sorted((host, other), key=len)
    return "." not in short and _first_label(long) == short


def _first_label(host: str) -> str:
    """The host's own name without its domain; an address has none (the last label of a domain name
    is no number)."""
    first, dot, domain = host.partition(".")
    is_name = dot and first and ":" not in host and not domain.rpartition(".")[2].isdecimal()
    return first if is_name else host


def sample_of(gpu: str) -> dict[str, Any]:
    """What the samples of a GPU have in common: its UUID or label; where several cards share the
    UUID, the host, too."""
    pair = host_and_uuid(gpu)
    return {"gpu": gpu} if pair is None else {"gpu": pair[1], "host": pair[0]}
