"""GPUs that operators declared, and names that requests gave to GPUs nobody sampled or declared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import convert

from gpu_token_analytics.costs.answers.declarations import (
    Declaration,
    DeclarationsResponse,
    UnknownGpu,
)
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import (
    NewDeclaration,
    NewPrice,
    Retirement,
    Withdrawal,
    check_instant,
    check_period,
    check_price,
    check_texts,
    price_fields,
)
from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.wire.names import (
    canonical_host,
    canonical_uuid,
    host_and_uuid,
    may_be_same,
)
from gpu_token_analytics.wire.times import from_us

Json = dict[str, Any]
SHOWN_NAMES = 100


def declared_gpus(desk: Desk) -> DeclarationsResponse:
    """The answer of GET /v1/declarations."""
    count, names = desk.unknown_names(SHOWN_NAMES)
    return DeclarationsResponse(
        declarations=[declaration(row) for row in desk.declarations.rows()],
        unknown_count=count,
        unknown=convert(names, list[UnknownGpu], from_attributes=True),
    )


def check_declaration(new: NewDeclaration) -> None:
    """Rules beyond those of the fields. Raises Refused."""
    check_texts(gpu=new.gpu, host=new.host, name=new.name)
    check_period(new.valid_from, new.valid_to, _check_minute)


def declare_gpu(desk: Desk, new: NewDeclaration, source: str) -> Declaration:
    """Declare a GPU. Raises Refused, also where the name is another spelling of a GPU that is
    known: it would be paid twice."""
    check_declaration(new)
    gpu, now = canonical_uuid(new.gpu, "GPU"), desk.now()
    books = desk.books.read()
    if host_and_uuid(gpu) is not None and not _is_known(gpu, books):
        # Samples of the UUID on that host would be its own, too, and the card paid twice.
        raise Refused(
            "invalid_body", f"gpu={new.gpu!r} is no UUID, and no host/index, such as node1/0", "gpu"
        )
    if meant := _meant_by(gpu, books):
        raise Refused(
            "invalid_body",
            (
                f"gpu={new.gpu!r} may be {' or '.join(meant[:3])}, which is known; declare it by "
                "that name"
            ),
            "gpu",
        )
    if new.usd_per_hour is not None:
        price = NewPrice(
            scope="gpu",
            key=gpu,
            usd_per_hour=new.usd_per_hour,
            valid_from=from_us(0) if new.valid_from is None else new.valid_from,
            valid_to=new.valid_to,
        )
        check_price(price)
        desk.prices.append(**price_fields(price), created_at=now, source=source)
    row = desk.declarations.declare(
        gpu=gpu,
        host=canonical_host(new.host),
        name=new.name,
        valid_from=new.valid_from,
        valid_to=new.valid_to,
        declared_at=now,
        source=source,
    )
    return declaration(row)


def _is_known(gpu: GpuId, books: Books) -> bool:
    return gpu in books.declarations or books.is_sampled(gpu)


def _meant_by(gpu: GpuId, books: Books) -> list[GpuId]:
    """The known GPUs that a name may be another spelling, or a label, of; none for a name that is
    known itself. Sorted."""
    if _is_known(gpu, books):
        return []
    known = books.inventory.keys() | books.slices_of.keys() | books.declarations.keys()
    alike = {
        one
        for one in known
        if any(may_be_same(gpu, name) for name in (one, *books.placements.labels(one)))
    }
    return sorted(alike.union(books.placements.meanings(gpu)))


def retire_gpu(desk: Desk, end: Retirement) -> Declaration:
    """End a declaration. Raises Refused."""
    _check_minute("valid_to", end.valid_to)
    row = desk.declarations.retire(canonical_uuid(end.gpu, "GPU"), end.valid_to)
    if row is None:
        raise Refused(
            "not_found",
            f"no declaration of gpu={end.gpu!r} begins before {end.valid_to.isoformat()}",
        )
    return declaration(row)


def withdraw_gpu(desk: Desk, which: Withdrawal) -> Declaration:
    """Take a declaration back. Raises Refused."""
    row = desk.declarations.withdraw(canonical_uuid(which.gpu, "GPU"))
    if row is None:
        raise Refused("not_found", f"gpu={which.gpu!r} is not declared")
    return declaration(row)


def declaration(row: Json) -> Declaration:
    """A stored declaration as /v1 shows it."""
    begin, end = row.get("valid_from"), row.get("valid_to")
    return Declaration(
        gpu=row["gpu"],
        host=row["host"],
        name=row.get("name"),
        valid_from=None if begin is None else begin.astimezone(UTC),
        valid_to=None if end is None else end.astimezone(UTC),
        declared_at=row["declared_at"].astimezone(UTC),
        source=row["source"],
        withdrawn=row["withdrawn"],
        pending=row["pending"],
    )


def _check_minute(name: str, at: datetime) -> None:
    check_instant(name, at)
    if at.second or at.microsecond:
        raise Refused(
            "invalid_body",
            f"{name}={at.isoformat()} is not on a whole minute; cells are UTC minutes",
            name,
        )
