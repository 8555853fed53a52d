"""What people write into the books: prices, declared GPUs, placements. The rules of single fields;
those between them stand with the functions that take them (prices.py, declarations.py,
placements.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.spans import HALF_HOUR, floor
from gpu_token_analytics.units import MAX_USD_PER_HOUR
from gpu_token_analytics.wire.fields import MAX_GPUS

if TYPE_CHECKING:  # whoever judges an entry loads no driver
    from gpu_token_analytics.books.dated import DatedStore

FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_GPU = "GPU id as requests name it: a UUID, or host/index."
PriceText = Annotated[
    Decimal,
    Field(
        ge=0,
        le=int(MAX_USD_PER_HOUR),
        max_digits=15,
        decimal_places=9,
        allow_inf_nan=False,
        examples=["2.49"],
    ),
    AfterValidator(abs),  # minus 0 is 0, and is shown so
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
]
_number = re.compile(r"\s*[+-]?[0-9.]+\s*").fullmatch


def _no_number(value: Any) -> Any:
    # Read as seconds since 1970, 20260101 is a day of August 1970: a price would hold since then.
    if isinstance(value, int | float) or (isinstance(value, str) and _number(value)):
        raise ValueError("a number is no time; write it as RFC 3339, such as 2026-01-01T00:00:00Z")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_no_number)]
GpuName = Annotated[str, Field(min_length=1, max_length=128)]


class Model(BaseModel):
    """A field that is not declared is refused."""

    model_config = ConfigDict(extra="forbid")


class NewPrice(Model):
    """A row to append. Nothing is ever edited: a new row with a later (or back-dated) valid_from
    takes over."""

    scope: Literal["gpu", "host", "name", "default"] = Field(examples=["name"])
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="GPU id, host or GPU name; left out for the default row.",
        examples=["NVIDIA H100 80GB HBM3"],
    )
    usd_per_hour: PriceText = Field(description="USD per GPU-hour.")
    mode: Literal["on_demand", "reserved", "spot", "owned"] = "on_demand"
    usd_per_kwh: PriceText | None = Field(
        default=None, description="Only with mode=owned: energy is paid on top."
    )
    pue: Annotated[float, Field(ge=1, le=5)] | None = Field(
        default=None, description="Only with mode=owned."
    )
    valid_from: Instant = Field(
        description="RFC 3339; may lie in the past.", examples=["2026-01-01T00:00:00Z"]
    )
    valid_to: Instant | None = Field(
        default=None, description="Exclusive; null: until another row takes over."
    )


class NewDeclaration(Model):
    """A GPU that sends no samples, and is paid for: its requests get money. Declared again, the new
    one replaces the old."""

    gpu: str = Field(
        min_length=1,
        max_length=256,
        description=_GPU,
        examples=["GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"],
    )
    host: str = Field(
        min_length=1,
        max_length=256,
        description="Where it is: prices of hosts and reports by host use it.",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="GPU name, as price rows have it.",
        examples=["NVIDIA H200"],
    )
    usd_per_hour: PriceText | None = Field(
        default=None,
        description=(
            "Also append a price row for this GPU and this time; else the price book decides."
        ),
    )
    valid_from: Instant | None = Field(default=None, description="First minute; null: since ever.")
    valid_to: Instant | None = Field(
        default=None, description="Exclusive; null: until it is retired."
    )


class Retirement(Model):
    """The end of a declared GPU."""

    gpu: str = Field(min_length=1, max_length=256, description=_GPU)
    valid_to: Instant = Field(description="From this minute on it is not known any more.")


class Withdrawal(Model):
    """A declaration that was a mistake: the GPU is unknown again, for all time."""

    gpu: str = Field(min_length=1, max_length=256, description=_GPU)


class NewPlacement(Model):
    """A row to append. Nothing is ever edited: a row with a later valid_from takes over."""

    instance: str = Field(
        min_length=1,
        max_length=2048,
        description=(
            "A URL or host:port, namespace/pod, service.name@host, or service.name, as the source "
            "names it."
        ),
        examples=["http://node1:8000/v1"],
    )
    gpus: list[GpuName] = Field(
        max_length=MAX_GPUS,
        description=(
            "GPU UUIDs, or host/index for all; empty: from then on it is not known where the "
            "instance runs."
        ),
        examples=[["GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"]],
    )
    host: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Where it runs; left out: as the GPUs or the source say.",
    )
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="What it serves, for sources that do not say.",
    )
    counted_by: Literal["any", "engine"] = Field(
        default="any",
        description=(
            "`engine`: it tells of every request itself, so what clients tell of it is left out."
        ),
    )
    valid_from: Instant = Field(
        description="RFC 3339; may lie in the past.", examples=["2026-01-01T00:00:00Z"]
    )
    valid_to: Instant | None = Field(
        default=None, description="Exclusive; null: until another row takes over."
    )


def check_instant(name: str, at: datetime) -> None:
    """That something may be said to hold from or until then. Raises Refused."""
    if not FIRST <= at <= LAST:
        raise Refused("invalid_body", f"{name}={at.isoformat()} is not between 1970 and 2100", name)


def check_half_hour(name: str, at: datetime) -> None:
    """That rows of sums may change hands then: sums are kept by half hours. Raises Refused."""
    check_instant(name, at)
    if floor(at, HALF_HOUR) != at:
        said = (
            f"{name}={at.isoformat()} is not on a whole or half UTC hour; sums are kept by half "
            "hours"
        )
        raise Refused("invalid_body", said, name)


def check_key(scope: str, key: str | None, *, keyless: str) -> None:
    """That a key is given, or left out with the one scope that has none, `keyless`. Raises
    Refused."""
    if (scope == keyless) != (key is None):
        rule = "must be left out" if scope == keyless else "is needed"
        raise Refused("invalid_body", f"key={key!r} {rule} with scope={scope}", "key")
    check_texts(key=key)


def check_texts(**said: str | None) -> None:
    """Texts that people write. Raises Refused."""
    for name, text in said.items():
        if text is not None and "\0" in text:
            raise Refused("invalid_body", f"{name} holds a NUL character", name)


def appended(
    store: DatedStore, said: dict[str, Any], *, valid_from: datetime, now: datetime, source: str
) -> dict[str, Any]:
    """A row that was appended to a dated book. source: who says so (`api`, `cli`). Raises Refused:
    there are too many."""
    from gpu_token_analytics.books.dated import MAX_ROWS, TooManyRows

    try:
        return store.append(said, valid_from=valid_from, created_at=now, source=source)
    except TooManyRows:
        raise Refused(
            "invalid_body", f"there are {MAX_ROWS} rows, and no more are taken", "valid_from"
        ) from None


def dated(row: Mapping[str, Any]) -> dict[str, Any]:
    """What every row of a dated book says besides its subject, as /v1 shows it."""
    return {
        "id": str(row["_id"]),
        "valid_from": row["valid_from"].astimezone(UTC),
        "created_at": row["created_at"].astimezone(UTC),
        "source": row["source"],
    }


def check_period(
    valid_from: datetime | None,
    valid_to: datetime | None,
    check: Callable[[str, datetime], None] = check_instant,
) -> None:
    """That something may be said to hold from then until then; None has no end. check: of each end.
    Raises Refused."""
    for name, at in (("valid_from", valid_from), ("valid_to", valid_to)):
        if at is not None:
            check(name, at)
    if valid_from is not None and valid_to is not None and valid_to <= valid_from:
        raise Refused(
            "invalid_body", f"valid_to={valid_to.isoformat()} is not after valid_from", "valid_to"
        )


def check_price(new: NewPrice) -> None:
    """Rules between the fields. Raises Refused."""
    check_key(new.scope, new.key, keyless="default")
    check_period(new.valid_from, new.valid_to)
    if new.mode != "owned" and (new.usd_per_kwh is not None or new.pue is not None):
        raise Refused(
            "invalid_body",
            f"usd_per_kwh and pue need mode=owned, not {new.mode}: rent includes energy",
            "usd_per_kwh",
        )


def price_fields(new: NewPrice) -> dict[str, Any]:
    """A new row as the store takes it."""
    return {
        "scope": new.scope,
        "key": new.key,
        "usd_per_hour": format(new.usd_per_hour, "f"),
        "mode": new.mode,
        "usd_per_kwh": None if new.usd_per_kwh is None else format(new.usd_per_kwh, "f"),
        "pue": new.pue,
        "valid_from": new.valid_from,
        "valid_to": new.valid_to,
    }
