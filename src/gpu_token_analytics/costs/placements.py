"""On which GPUs serving instances run: rows as they are shown, and what may be appended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from gpu_token_analytics.costs.answers.placements import (
    AppendedPlacements,
    Placement,
    PlacementsResponse,
    UnplacedInstance,
)
from gpu_token_analytics.costs.cursors import page_of_rows
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import NewPlacement, check_period, check_texts
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.wire.instances import canonical_instance, instance_of
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.times import to_us

Json = dict[str, Any]
SHOWN_UNPLACED = 100
MOST_COUNTED = 10_000  # as books/unknown_names.py counts


def placement_page(desk: Desk, limit: int, cursor: str | None = None) -> PlacementsResponse:
    """One page of every row ever written, newest valid_from first. Raises Refused."""
    rows, following = page_of_rows(desk.instances.rows(), limit, cursor)
    return PlacementsResponse(
        placements=[placement(row) for row in rows],
        unplaced=unplaced(desk)[:SHOWN_UNPLACED],
        next=following,
    )


def append_placements(
    desk: Desk, new: Sequence[NewPlacement], source: str, *, changes_only: bool = False
) -> AppendedPlacements:
    """Append rows, all or none. changes_only: see InstanceStore.append. Raises Refused."""
    said = [placement_fields(row) for row in new]
    rows = desk.instances.append(
        said, created_at=desk.now(), source=source, changes_only=changes_only
    )
    desk.forget_placements()
    return AppendedPlacements([placement(row) for row in rows], len(said) - len(rows))


def placement_fields(new: NewPlacement) -> Json:
    """A new row as the store takes it: checked, in canonical names. Raises Refused."""
    check_placement(new)
    gpus = list(dict.fromkeys(map(canonical_gpu, new.gpus)))
    hosts = {gpu.rpartition("/")[0] for gpu in gpus if "/" in gpu}
    return {
        "instance": canonical_instance(new.instance),
        "gpus": gpus,
        "host": canonical_host(new.host)
        if new.host is not None
        else hosts.pop()
        if len(hosts) == 1
        else None,
        "model": new.model,
        "counted_by": new.counted_by,
        "valid_from": new.valid_from,
        "valid_to": new.valid_to,
    }


def check_placement(new: NewPlacement) -> None:
    """Rules between the fields. Raises Refused."""
    if not canonical_instance(new.instance):
        raise Refused(
            "invalid_body",
            f"instance={new.instance!r} names nothing; give a URL, a pod or a service",
            "instance",
        )
    check_texts(gpus="".join(new.gpus), host=new.host, model=new.model)
    labels = [gpu for gpu in map(canonical_gpu, new.gpus) if "/" in gpu]
    if labels and len(labels) < len(new.gpus):
        raise Refused(
            "invalid_body", f"gpus={new.gpus}: name all GPUs by UUID, or all as host/index", "gpus"
        )
    wrong = next((gpu for gpu in labels if not gpu.rpartition("/")[2].isdecimal()), None)
    if wrong is not None:
        raise Refused("invalid_body", f"gpus={wrong!r} is no host/index, such as node1/0", "gpus")
    check_period(new.valid_from, new.valid_to)


def unplaced(desk: Desk) -> list[UnplacedInstance]:
    """Instances whose requests were stored without GPUs, oldest first."""
    _, names = desk.unknown_names(MOST_COUNTED)
    book, now_us = desk.placements(), to_us(desk.now())
    instances = []
    for name in names:
        instance = instance_of(name.name)
        if instance is not None:
            row = book.at((instance,), now_us)
            placed = row is not None and bool(row.gpus)
            instances.append(UnplacedInstance(instance, name.tenant, name.first_named_at, placed))
    return instances


def placement(row: Json) -> Placement:
    """A stored row as /v1 shows it."""
    until = row["valid_to"]
    return Placement(
        id=str(row["_id"]),
        instance=row["instance"],
        gpus=row["gpus"],
        host=row["host"],
        model=row["model"],
        counted_by=row["counted_by"],
        valid_from=row["valid_from"].astimezone(UTC),
        valid_to=None if until is None else until.astimezone(UTC),
        created_at=row["created_at"].astimezone(UTC),
        source=row["source"],
    )
