"""What a source says about one GPU: a reading, or a problem. Never a zero that nobody measured."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias

from gpu_token_analytics.units import (
    MAX_CELSIUS,
    MAX_JOULES,
    MAX_MEGABYTES,
    MAX_WATTS,
    MIG_SEVENTHS,
    MIN_CELSIUS,
)
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.identity import new_event_id
from gpu_token_analytics.wire.names import NIL_UUID, canonical_uuid, gpu_label
from gpu_token_analytics.wire.sample import GpuSample

MIB = 1024 * 1024

_PROFILE = re.compile(
    rf"(?:(?P<compute>[1-{MIG_SEVENTHS}])c\.)?(?P<gpu>[1-{MIG_SEVENTHS}])g\.(?P<rest>\S+)"
)


class Problem(StrEnum):
    """What is wrong with one GPU. A closed set: it is also a metric label."""

    LOST = "lost"  # fell off the bus; only a reset or a reboot brings it back
    RESET_REQUIRED = "reset_required"
    UNREADABLE = "unreadable"  # the driver answers with an error that names no better reason
    GONE = "gone"  # it was there before and is no longer listed
    MALFORMED = "malformed"  # the tool's text about it cannot be read
    # read and sent, but its UUID is no identity: all zeros, or that of another card
    SHARED_UUID = "shared_uuid"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU (or MIG slice) as read. None is "unknown": not supported, not permitted, not told.

    mem_*_mb are MiB (2**20 bytes), as nvidia-smi reports them. energy_j is a counter since driver
    load.
    """

    gpu_index: int
    gpu_uuid: str | None = None
    name: str | None = None
    utilization: float | None = None
    mem_used_mb: float | None = None
    mem_total_mb: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    energy_j: float | None = None
    price_per_hour_usd: float | None = None
    mig_profile: str | None = None
    parent_uuid: str | None = None

    def to_sample(self, host: str, ts: datetime, source: Source) -> GpuSample:
        """The event of this reading. Values outside the contract become None: they are readings
        gone wrong."""
        used_mb, total_mb = (
            within(self.mem_used_mb, 0, MAX_MEGABYTES),
            within(self.mem_total_mb, 0, MAX_MEGABYTES),
        )
        if used_mb is not None and total_mb is not None and used_mb > total_mb:
            used_mb = None
        return GpuSample(
            event_id=new_event_id(),
            ts=ts,
            host=host,
            gpu_index=self.gpu_index,
            source=source,
            gpu_uuid=self.gpu_uuid,
            name=self.name,
            utilization=within(self.utilization, 0, 1),
            mem_used_mb=used_mb,
            mem_total_mb=total_mb,
            power_w=within(self.power_w, 0, MAX_WATTS),
            temperature_c=within(self.temperature_c, MIN_CELSIUS, MAX_CELSIUS),
            energy_j=within(self.energy_j, 0, MAX_JOULES),
            price_per_hour_usd=self.price_per_hour_usd,
            mig_profile=self.mig_profile,
            parent_uuid=self.parent_uuid,
        )

    def gpu(self, host: str) -> str:
        """Its identity, as in the events."""
        return self.gpu_uuid or gpu_label(host, self.gpu_index)


@dataclass(frozen=True, slots=True)
class GpuProblem:
    """One GPU cannot be read. `gpu` is its UUID where known, else how the driver names it (index or
    bus id)."""

    gpu: str
    problem: Problem
    message: str


Reading: TypeAlias = GpuReading | GpuProblem


class GpuSource(Protocol):
    """Where readings come from."""

    name: Source

    def read(self) -> list[Reading]:
        """Every GPU once. Raises SourceUnavailable, with the fix, when none can be asked at all."""

    def close(self) -> None:
        """Release the driver; read() may be called again afterwards."""


def is_no_identity(uuid: str) -> bool:
    """Whether a UUID says nothing, since virtual cards and passed-through ones show zeros only, or
    is no UUID: it has a `/`."""
    return "/" in uuid or not set(uuid.upper().removeprefix("GPU-").removeprefix("MIG-")) - set(
        "0-"
    )


def _key(reading: GpuReading) -> str | None:
    """The one spelling of its UUID."""
    return reading.gpu_uuid and canonical_uuid(
        reading.gpu_uuid, "GPU" if reading.mig_profile is None else "MIG"
    )


def tell_apart(readings: Sequence[Reading], host: str) -> list[Reading]:
    """The readings of one look, each GPU under an identity of its own.

    A UUID of zeros, one with a `/`, or one that two cards show, is none: such a card goes by
    `host/index`, so that both are sampled and paid, and a problem says so; its slices are slices of
    that. Cards that share their index, too, cannot be told apart: the first is kept; a UUID that is
    read twice at one index is one card, read twice. A slice without an identity is left to its
    card.
    """
    cards = {
        (_key(reading), reading.gpu_index)
        for reading in readings
        if isinstance(reading, GpuReading)
    }
    seen = Counter(uuid for uuid, _ in cards)
    apart: list[Reading] = []
    identities: set[str] = set()
    for reading in readings:
        if not isinstance(reading, GpuReading):
            apart.append(reading)
            continue
        uuid = reading.gpu_uuid
        shared = uuid is not None and (seen[_key(reading)] > 1 or is_no_identity(uuid))
        why = (
            "it has no UUID"
            if uuid is None
            else f"its UUID {uuid} is no identity (zeros, a `/`, or two cards show it)"
        )
        if reading.parent_uuid is not None and (shared or uuid is None):
            apart.append(
                GpuProblem(uuid or "", Problem.SHARED_UUID, f"{why}; what it costs is its card's")
            )
            continue
        named = replace(reading, gpu_uuid=None) if shared else _on_its_card(reading, seen)
        if shared and named.gpu(host) not in identities:
            apart.append(
                GpuProblem(
                    named.gpu(host), Problem.SHARED_UUID, f"{why}; it goes by {named.gpu(host)}"
                )
            )
        identity = _key(named) or named.gpu(host)
        if identity in identities:
            continue
        identities.add(identity)
        apart.append(named)
    return apart


def _on_its_card(reading: GpuReading, seen: Mapping[str | None, int]) -> GpuReading:
    """A slice names its card by what that goes by: a card without an identity is the one at its
    index."""
    parent = reading.parent_uuid
    if parent is None or not (
        is_no_identity(parent) or seen.get(canonical_uuid(parent, "GPU"), 0) > 1
    ):
        return reading
    return replace(reading, parent_uuid=NIL_UUID)


def within(value: float | None, least: float, most: float) -> float | None:
    """`value`, or None when it is not a number in that range."""
    return value if value is not None and math.isfinite(value) and least <= value <= most else None


def mig_profile(text: str) -> str | None:
    """The MIG profile in `text` (`3g.40gb`, also at the end of a device name), None without one.

    A compute instance that has only part of its GPU instance (`1c.3g.40gb`) is written as
    `1g.40gb`: the leading number is the share of the card it is charged for, and two `1c` slices
    must not each be charged for three sevenths.
    """
    every = list(_PROFILE.finditer(text))
    if not every:
        return None
    last = every[-1]
    return f"{last['compute'] or last['gpu']}g.{last['rest'].rstrip(')')}"
