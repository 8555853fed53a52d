"""An event that names an instance (`gpu_uuids: ["instance:node1:8000"]`) instead of GPUs: who sends
it knows whom it asked, not where that runs. At the door it gets the GPUs of the placement in force
at its end."""

from __future__ import annotations

import msgspec

from gpu_token_analytics.sources.instances import CountedBy, InstanceBook
from gpu_token_analytics.wire.instances import canonical_instance, instance_of, unplaced_gpu
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import TokenUsage


def instances_of(usage: TokenUsage) -> list[str]:
    """The instances it names, canonical; none where it names GPUs."""
    named = [instance for gpu in usage.gpu_uuids if (instance := instance_of(gpu)) is not None]
    return list(dict.fromkeys(filter(None, map(canonical_instance, named))))


def placed(usage: TokenUsage, placements: InstanceBook) -> TokenUsage | None:
    """`usage` with GPUs and host for each instance it names; what is not placed keeps its name, so
    that its tokens are kept.

    None: the operator said that the engine tells of every request itself (`counted_by=engine`):
    this is the second word of one.
    """
    at_us = to_us(usage.ts)
    rows = {instance: placements.at([instance], at_us) for instance in instances_of(usage)}
    if any(row is not None and row.counted_by is CountedBy.ENGINE for row in rows.values()):
        return None
    gpus: list[str] = []
    for gpu in usage.gpu_uuids:
        named = instance_of(gpu)
        instance = None if named is None else canonical_instance(named)
        row = rows.get(instance) if instance else None
        gpus += (
            row.gpus
            if row is not None and row.gpus
            else [unplaced_gpu(instance) if instance else gpu]
        )
    hosts = {row.host or _host_of(row.gpus) for row in rows.values() if row is not None}
    host = hosts.pop() if len(hosts) == 1 else None
    return msgspec.structs.replace(
        usage, gpu_uuids=list(dict.fromkeys(gpus)), host=host or usage.host
    )


def _host_of(gpus: tuple[str, ...]) -> str | None:
    hosts = {gpu.rpartition("/")[0] for gpu in gpus if "/" in gpu}
    return hosts.pop() if len(hosts) == 1 else None
