"""What the commands share: a range from words, services over MONGODB_URI, tables and JSON on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import in_json_text

if TYPE_CHECKING:  # drivers and rich are not loaded for `--help`
    from rich.console import Console
    from rich.table import Table

    from gpu_token_analytics.api.services import Services
    from gpu_token_analytics.store.client import Store
    from gpu_token_analytics.store.cost_reads import CostQuery

NUSD = 1e9
_LAST = re.compile(r"(\d{1,5})(m|h|d)")
_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Start, such as 2026-01-31 or 2026-01-31T12:00Z.")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, exclusive; default: now.")]
LastOption = Annotated[str, typer.Option("--last", metavar="N", help="Without --from: the last 90m, 24h, 30d.")]
ZoneOption = Annotated[str, typer.Option("--time-zone", "--tz", help="IANA name; where hours and days begin.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, as /v1 answers.")]
ModelOption = Annotated[list[str] | None, typer.Option("--model", help="Only this model; repeatable.")]
TenantOption = Annotated[list[str] | None, typer.Option("--tenant", help="Only this tenant; repeatable.")]
GpuOption = Annotated[list[str] | None, typer.Option("--gpu", help="Only this GPU; repeatable.")]
HostOption = Annotated[list[str] | None, typer.Option("--host", help="Only this host; repeatable.")]


@dataclass(frozen=True)
class Opened:
    """A store and the services over it."""

    store: Store
    services: Services


@contextmanager
def opened() -> Iterator[Opened]:
    """Services over MONGODB_URI. What the API would answer as a problem ends the command as a SettingsError."""
    from gpu_token_analytics.api.errors import ApiProblem
    from gpu_token_analytics.api.services import Services
    from gpu_token_analytics.settings import load
    from gpu_token_analytics.store.client import open_store, store_errors

    settings = load()
    store = open_store(settings, "gpu-tokens-cli")
    try:
        with store_errors("read"):
            yield Opened(store, Services.of(store, settings))
    except ApiProblem as problem:
        raise SettingsError(problem.detail) from None
    finally:
        store.close()


def span(start: str | None, end: str | None, last: str, now: datetime) -> tuple[datetime, datetime]:
    """The range of the options. Raises SettingsError."""
    from gpu_token_analytics.store.spans import MINUTE, ceil

    until = ceil(now, MINUTE) if end is None else _time("--to", end)
    if start is not None:
        return _time("--from", start), until
    found = _LAST.fullmatch(last)
    if found is None:
        raise SettingsError(f"--last={last!r} is not a time; give one such as 90m, 24h or 30d")
    return until - int(found.group(1)) * _UNIT[found.group(2)], until


def _time(option: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option}={text!r} is not a time; give one such as 2026-01-31 or 2026-01-31T12:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def split(values: Sequence[str]) -> list[str]:
    """`model,tenant` and repeated options alike."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def whole_query(low: datetime, high: datetime, group_by: Sequence[str], **filters: Any) -> CostQuery:
    """A query without buckets."""
    from gpu_token_analytics.api.queries import cost_query

    return cost_query(low, high, group_by=group_by, **filters)


def print_json(body: Any) -> None:
    """One JSON document on standard output."""
    import msgspec

    typer.echo(in_json_text(msgspec.json.format(msgspec.json.encode(body, enc_hook=int), indent=2).decode()))


def console() -> Console:
    """Standard output."""
    from gpu_token_analytics.terminal import plain_console

    return plain_console()


def table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """A plain table; columns in `right` are aligned right."""
    from gpu_token_analytics.terminal import PlainTable, plain_line

    made = PlainTable(title=plain_line(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(plain_line(column), justify="right" if column in right else "left", no_wrap=column in right)
    return made


def dollars(nusd: int | None) -> str:
    """Money for people; cents where there are dollars, more where there are not."""
    if nusd is None:
        return "-"
    amount = nusd / NUSD
    return f"{amount:,.2f}" if abs(amount) >= 1 or not nusd else f"{amount:,.6f}"


def rate(value: float | None) -> str:
    """A ratio, or `-` where it is not known."""
    return "-" if value is None else f"{value:,.3f}"


def count(value: float) -> str:
    """A large number, short."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size:
            return f"{value / size:,.1f}{unit}"
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.1f} %"
