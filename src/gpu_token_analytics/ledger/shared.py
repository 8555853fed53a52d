"""Cards that have one UUID: virtual ones often have zeros, and cloned machines what they were
cloned with.

A UUID is shared from the moment its samples come from two hosts at once: a sample of one host
between two of another, both nearer than the gap limit. A GPU that moves is sampled on one host and
then on the other, never back within seconds. Hosts that may be one (with its domain and without)
are one.

The cards of a shared UUID are `host/UUID`, at all times: each is sampled, paid and asked for by
itself. A request means the card on its own host. Where no card is there it means none of them: its
tokens count, its money is unknown.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence, Set
from typing import Any

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.wire.names import may_be_same_host


class SharedUuids:
    """UUIDs that several cards have, each with the hosts on which there is one."""

    def __init__(self, hosts: Mapping[GpuId, Set[str]]) -> None:
        self.hosts = hosts

    def __bool__(self) -> bool:
        return bool(self.hosts)

    def __contains__(self, gpu: GpuId) -> bool:
        return gpu in self.hosts

    def cards(self, uuid: GpuId) -> list[GpuId]:
        """The cards that have this UUID, sorted; none where it is nobody's or one card's."""
        return sorted(card_name(uuid, host) for host in self.hosts.get(uuid, ()))

    def card(self, name: str, host: str) -> GpuId:
        """What this name means on a host: the card there, where it is a shared UUID; any other name
        means itself."""
        return card_name(name, host) if host in self.hosts.get(name, ()) else name


NOTHING_SHARED = SharedUuids({})


def card_name(uuid: GpuId, host: str) -> GpuId:
    """What the card on a host is called, where others have its UUID, too (wire/names.py:
    host_and_uuid)."""
    return f"{host}/{uuid}"


def on_two_hosts(samples: Sequence[Mapping[str, Any]], gap_us: int) -> bool:
    """Whether these samples of one UUID, by time, show it on two hosts at once."""
    if len({sample["host"] for sample in samples}) < 2:
        return False
    times = [sample["ts_us"] for sample in samples]
    for sample, at_us in zip(samples, times, strict=True):
        before = samples[bisect_right(times, at_us - gap_us) : bisect_left(times, at_us)]
        after = samples[bisect_right(times, at_us) : bisect_left(times, at_us + gap_us)]
        others = {neighbour["host"] for neighbour in before} & {
            neighbour["host"] for neighbour in after
        }
        if any(not may_be_same_host(sample["host"], other) for other in others):
            return True
    return False
