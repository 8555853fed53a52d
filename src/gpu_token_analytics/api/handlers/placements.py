"""/v1/placements: on which GPUs serving instances run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Body
from fastapi.responses import Response

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.errors import field_problem
from gpu_token_analytics.api.models.placements import NewPlacement
from gpu_token_analytics.api.queries import check_period, page_of_rows
from gpu_token_analytics.api.render import json_response, timestamp
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.books.unknown_names import MOST_COUNTED, unknown_names
from gpu_token_analytics.mongo.client import store_errors
from gpu_token_analytics.wire.instances import canonical_instance, instance_of
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.times import to_us

Json = dict[str, Any]
MAX_ROWS = 1_000
SHOWN_UNPLACED = 100


def placements(ask: AskDep, limit: p.CellLimit = 1000, cursor: p.Cursor = None) -> Response:
    """Every row ever written, newest valid_from first. Of several in force the one that took effect last holds."""
    rows, following = page_of_rows(ask.services.instances.rows(), limit, cursor)
    return json_response(
        {
            "placements": [placement(row) for row in rows],
            "unplaced": unplaced(ask.services)[:SHOWN_UNPLACED],
            "next": following,
        }
    )


def add_placements(ask: AskDep, new: Annotated[list[NewPlacement], Body(min_length=1, max_length=MAX_ROWS)]) -> Response:
    """Append rows, all or none. They hold for what sources send from then on (within 5 s), also of earlier times; requests that
    are stored already keep the GPUs they have. Sent again they change nothing."""
    with store_errors("append placements"):
        return json_response(placed(ask.services, new, "api"), 201)


def placed(services: Services, new: Sequence[NewPlacement], source: str) -> Json:
    """Append rows. Raises ApiProblem."""
    said = [placement_fields(one) for one in new]
    rows = services.instances.append(said, created_at=services.now(), source=source)
    services.forget_placements()
    return {"appended": [placement(row) for row in rows], "unchanged": len(said) - len(rows)}


def placement_fields(new: NewPlacement) -> Json:
    """A new row as the store takes it: checked, in canonical names. Raises ApiProblem."""
    check_placement(new)
    gpus = list(dict.fromkeys(map(canonical_gpu, new.gpus)))
    hosts = {gpu.rpartition("/")[0] for gpu in gpus if "/" in gpu}
    return {
        "instance": canonical_instance(new.instance),
        "gpus": gpus,
        "host": canonical_host(new.host) if new.host is not None else hosts.pop() if len(hosts) == 1 else None,
        "model": new.model,
        "counted_by": new.counted_by,
        "valid_from": new.valid_from,
        "valid_to": new.valid_to,
    }


def check_placement(new: NewPlacement) -> None:
    """Rules between the fields. Raises ApiProblem."""
    if not canonical_instance(new.instance):
        raise field_problem(
            "invalid_body", "instance", f"instance={new.instance!r} names nothing; give a URL, a pod or a service"
        )
    for name, texts in (("gpus", new.gpus), ("host", [new.host or ""]), ("model", [new.model or ""])):
        if any("\0" in text for text in texts):
            raise field_problem("invalid_body", name, f"{name} holds a NUL character")
    labels = [gpu for gpu in new.gpus if "/" in gpu]
    if labels and len(labels) < len(new.gpus):
        raise field_problem("invalid_body", "gpus", f"gpus={new.gpus}: name all GPUs by UUID, or all as host/index")
    wrong = next((gpu for gpu in labels if not canonical_gpu(gpu).rpartition("/")[2].isdecimal()), None)
    if wrong is not None:
        raise field_problem("invalid_body", "gpus", f"gpus={wrong!r} is no host/index, such as node1/0")
    check_period(new.valid_from, new.valid_to)


def unplaced(services: Services) -> list[Json]:
    """Instances whose requests were stored without GPUs, as /v1 shows them, oldest first."""
    _, names = unknown_names(services.store, services.ledger.books, MOST_COUNTED)
    book, now_us = services.placements(), to_us(services.now())
    found = []
    for name in names:
        instance = instance_of(name.name)
        if instance is not None:
            row = book.at((instance,), now_us)
            found.append(
                {
                    "instance": instance,
                    "tenant": name.tenant,
                    "first_named_at": timestamp(name.first_named_at),
                    "placed": row is not None and bool(row.gpus),
                }
            )
    return found


def placement(row: Json) -> Json:
    """A stored row as /v1 shows it."""
    until = row["valid_to"]
    return {
        "id": str(row["_id"]),
        "instance": row["instance"],
        "gpus": row["gpus"],
        "host": row["host"],
        "model": row["model"],
        "counted_by": row["counted_by"],
        "valid_from": timestamp(row["valid_from"]),
        "valid_to": None if until is None else timestamp(until),
        "created_at": timestamp(row["created_at"]),
        "source": row["source"],
    }
