"""What the commands share: a range from words, services over MONGODB_URI, tables and JSON on a
terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_token_analytics.costs import choices as p
from gpu_token_analytics.errors import Refused, SettingsError
from gpu_token_analytics.foreign_text import in_csv, in_json_text

if TYPE_CHECKING:  # drivers and rich are not loaded for `--help`
    from pydantic import ValidationError
    from rich.console import RenderableType

    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.costs.query import CostQuery

NUSD = 1e9
PIECES = "sentence"  # the field of answers that has what `says` or `text` says in pieces
_LAST = re.compile(r"(\d{1,5})(m|h|d|w)")
_UNIT = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="Start, such as 2026-01-31 or 2026-01-31T12:00Z."),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="End, exclusive; default: now.")
]
LastOption = Annotated[
    str, typer.Option("--last", metavar="N", help="Without --from: the last 90m, 24h, 30d, 3w.")
]
ZoneOption = Annotated[
    str, typer.Option("--time-zone", "--tz", help="IANA name; where hours and days begin.")
]
PeriodOption = Annotated[
    str | None,
    typer.Option(
        "--period",
        metavar="NAME",
        help=(
            "Instead of times, by --tz: today, yesterday, this-week, last-week, this-month, "
            "last-month, 2026-01, 2026-W05."
        ),
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, as /v1 answers.")
]
CsvOption = Annotated[
    bool, typer.Option("--csv", help="CSV on standard output, with exact figures.")
]
WideOption = Annotated[
    bool, typer.Option("--wide", "-W", help="Every column; else what the terminal has room for.")
]
ModelOption = Annotated[
    list[str] | None, typer.Option("--model", help="Only this model; repeatable.")
]
TenantOption = Annotated[
    list[str] | None, typer.Option("--tenant", help="Only this tenant; repeatable.")
]
GpuOption = Annotated[list[str] | None, typer.Option("--gpu", help="Only this GPU; repeatable.")]
HostOption = Annotated[list[str] | None, typer.Option("--host", help="Only this host; repeatable.")]


@contextmanager
def opened() -> Iterator[Desk]:
    """A desk over MONGODB_URI. A question that is refused ends the command as a SettingsError.

    Arguments are judged before: nobody waits for a database to hear of a typing error.
    """
    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, open_store
    from gpu_token_analytics.mongo.errors import store_errors
    from gpu_token_analytics.running_demo import settings_beside_demo

    settings = settings_beside_demo()
    store = open_store(settings, "gpu-tokens-cli", connect_ms=COMMAND_CONNECT_MS)
    try:
        with store_errors("read"), refusals():
            yield Desk.over(store, settings)
    finally:
        store.close()


@contextmanager
def refusals() -> Iterator[None]:
    """What is refused becomes a SettingsError: on a command line it was an option or an
    argument."""
    try:
        yield
    except Refused as refused:
        raise SettingsError(str(refused)) from None


@contextmanager
def entry(refusal: str) -> Iterator[None]:
    """What is written into a book is made and checked inside. Its first fault becomes a
    SettingsError that begins with `refusal`, such as "the price cannot be used"."""
    from pydantic import ValidationError

    try:
        with refusals():
            yield
    except ValidationError as error:
        raise SettingsError(f"{refusal}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """What is wrong with the fields of an entry, first."""
    fault = error.errors()[0]
    name, value = ".".join(str(part) for part in fault["loc"]), fault["input"]
    if fault["type"] == "missing":
        return f"{name}: {fault['msg']}"
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"{name}={shown[:80]}: {fault['msg']}"


@dataclass(frozen=True)
class AskedRange:
    """The range of the options, before it is known what time it is at the server. `start` None:
    `last` before `end`."""

    start: datetime | None
    end: datetime | None
    last: timedelta
    period: str | None
    time_zone: str

    def at(self, now: datetime) -> tuple[datetime, datetime]:
        """The range as of `now`."""
        from gpu_token_analytics.rollups.spans import MINUTE, ceil

        if self.period is not None:
            from gpu_token_analytics.costs.periods import named_period
            from gpu_token_analytics.costs.questions import check_zone

            return named_period(self.period, now, check_zone(self.time_zone))
        until = ceil(now, MINUTE) if self.end is None else self.end
        return until - self.last if self.start is None else self.start, until


def asked_range(
    start: str | None, end: str | None, last: str, period: str | None = None, time_zone: str = "UTC"
) -> AskedRange:
    """The range of the options. Raises SettingsError."""
    if period is not None and (start is not None or end is not None):
        raise SettingsError("--period names a whole time: leave --from and --to out")
    match = _LAST.fullmatch(last)
    if match is None:
        raise SettingsError(
            f"--last={last!r} is not a time; give one such as 90m, 24h, 30d or 3w; for calendar "
            "months --period this-month, last-month or 2026-01"
        )
    return AskedRange(
        None if start is None else time_of("--from", start),
        None if end is None else time_of("--to", end),
        int(match.group(1)) * _UNIT[match.group(2)],
        period,
        time_zone,
    )


def time_of(option: str, text: str) -> datetime:
    """The time that an option gives; UTC where it names no zone. Raises SettingsError."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # a time of the year 1 may be one of the year 0 in UTC
        raise SettingsError(
            f"{option}={text!r} is not a time; give one such as 2026-01-31 or 2026-01-31T12:00Z"
        ) from None


def decimal_of(argument: str, text: str) -> Decimal:
    """The number that an argument or option gives. Raises SettingsError."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise SettingsError(
            f"{argument}={text!r} is no decimal number; give one such as 2.49"
        ) from None


def since(valid_from: str | None) -> datetime:
    """The time of --from; left out: 1970, for all the history. Raises SettingsError."""
    from gpu_token_analytics.costs.entries import FIRST

    return FIRST if valid_from is None else time_of("--from", valid_from)


def judged(query_of: Callable[[datetime], CostQuery]) -> Callable[[datetime], CostQuery]:
    """`query_of`, a query as of a time, when it can be made. Raises SettingsError."""
    with refusals():
        query_of(datetime.now(UTC))
    return query_of


def split(values: Sequence[str]) -> list[str]:
    """`model,tenant` and repeated options alike."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def print_json(body: Any) -> None:
    """One JSON document on standard output."""
    import msgspec

    typer.echo(
        in_json_text(
            msgspec.json.format(msgspec.json.encode(body, enc_hook=int), indent=2).decode()
        )
    )


def printed(body: Any, rows: Iterable[Any], *, as_json: bool, as_csv: bool) -> bool:
    """Print an answer whole as JSON, or its rows as CSV, if asked to. False: neither was asked for,
    show a table."""
    if as_json:
        print_json(body)
    elif as_csv:
        print_csv(rows)
    return as_json or as_csv


def print_csv(rows: Iterable[Any], columns: Iterable[str] = ()) -> None:
    """Rows of a JSON answer as CSV on standard output: a column for each field, `a.b` for one
    inside another, lists with blanks between; empty is null. A sentence is there as a whole, not
    in pieces, too. columns: those that are there even where no row is, first."""
    import csv
    import sys

    flat = [_flat(as_dict(row)) for row in rows]
    names = list(dict.fromkeys([*columns, *(name for row in flat for name in row)]))
    writer = csv.writer(sys.stdout)
    writer.writerow(names)
    writer.writerows([_csv_text(row.get(name)) for name in names] for row in flat)


def as_dict(row: Any) -> dict[str, Any]:
    """A row of an answer by its fields."""
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(row, enc_hook=int)
    return built


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == PIECES:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return in_csv(" ".join(_csv_text(item) for item in value))
    return str(value) if isinstance(value, int | float) else in_csv(str(value))


def show(*parts: RenderableType) -> None:
    """Tables and lines on standard output; what is wider than the terminal is not cut."""
    from gpu_token_analytics.terminal.console import wide_console

    out = wide_console()
    for part in parts:
        out.print(part, crop=False)


def instant(at: datetime | None) -> str:
    """A time as answers write it; nothing where it is null."""
    return "" if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


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


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 day`, `2 days`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.1f} %"


def groups(values: list[str]) -> list[str]:
    """The dimensions of `--by`, which may be given again and with commas. Raises SettingsError for
    a name that is none."""
    groups = split(values)
    for name in groups:
        if name not in list(p.Dimension):
            raise SettingsError(f"--by {name}: group by {', '.join(p.Dimension)}")
    return groups


def query_of(
    asked: AskedRange,
    bucket: p.Bucket,
    time_zone: str,
    groups: list[str],
    filters: dict[str, Any],
) -> Callable[[datetime], CostQuery]:
    """The question of a report, an export or a comparison, as of a time: made before a database is
    asked. Raises SettingsError for what is refused."""
    from gpu_token_analytics.costs.questions import cost_query

    return judged(lambda now: cost_query(*asked.at(now), bucket, time_zone, groups, **filters))
