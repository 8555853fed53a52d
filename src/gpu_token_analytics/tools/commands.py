"""`gpu-tokens audit`, `gpu-tokens verify` and `gpu-tokens settings`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gpu_token_analytics import logs
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.running_demo import settings_beside_demo
from gpu_token_analytics.signals import stop_on_signals
from gpu_token_analytics.terminal.console import plain_console
from gpu_token_analytics.terminal.support import (
    PeriodOption,
    ZoneOption,
    asked_range,
    print_csv,
    refusals,
)

_Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
_Csv = Annotated[bool, typer.Option("--csv", help="The rows as CSV instead of text.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("audit")(audit_ledger)
    app.command("verify")(verify_pipeline)
    app.command("settings")(show_settings)


def audit_ledger(
    start: Annotated[
        str, typer.Option("--from", help="First minute, such as 2026-01-31T00:00Z; default: all.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Minute after the last one.")] = "",
    last: Annotated[
        str, typer.Option("--last", metavar="N", help="Instead: the last 90m, 24h, 30d, 3w.")
    ] = "",
    period: PeriodOption = None,
    time_zone: ZoneOption = "UTC",
    stored_only: Annotated[
        bool,
        typer.Option(
            "--stored-only",
            help="Only the identity inside each cell: for raw events that have expired.",
        ),
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Wait up to this many seconds until no cell is due.")
    ] = 0.0,
    as_json: _Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="The findings as CSV: no rows where it holds.")
    ] = False,
) -> None:
    """Check that every nano-dollar has exactly one class and that the ledger is what the raw events
    say.

    Cell by cell: classes sum to price x time, lines to what is attributed, and everything equals a
    fresh computation from raw events; in total: requests and tokens of the raw events equal those
    of the ledger. Exit code 1 when it does not hold. Events may come in meanwhile: cells that
    differ are looked at again after 15 s, and told as changing if they were touched.

    Examples: `gpu-tokens audit` | `gpu-tokens audit --last 24h` | `gpu-tokens audit --period
    2026-01 --tz Europe/Berlin` | `gpu-tokens audit --from 2026-01-31T00:00Z --to 2026-02-01T00:00Z
    --json`
    """
    from gpu_token_analytics.closing.audit import audit
    from gpu_token_analytics.closing.audit_report import SECOND_LOOK_SECONDS, describe
    from gpu_token_analytics.closing.store import LedgerStore
    from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, open_store

    range_at = _audited(start, end, last, period, time_zone)
    range_at(SystemClock().now())  # judged before the database is asked
    settings = settings_beside_demo()
    logs.configure(settings)
    store = open_store(settings, "gpu-tokens-audit", connect_ms=COMMAND_CONNECT_MS)
    ledger = LedgerStore(store, settings.close_debounce_seconds)
    low, high = range_at(store.now())
    _wait_until_closed(ledger.cells.count_due, wait)
    console = plain_console(stderr=True)

    def second_look(cells: int) -> None:
        what = f"{cells:,} cells differ" if cells else "the totals differ"
        console.print(
            f"{what}; looking again in {SECOND_LOOK_SECONDS:.0f} s whether something is being "
            "changed"
        )
        SystemClock().wait(threading.Event(), SECOND_LOOK_SECONDS)

    with Progress(
        TextColumn("auditing GPUs"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        report = audit(
            ledger,
            params_of(settings),
            low,
            high,
            fresh=not stored_only,
            raw_complete_for=settings.raw_complete_for,
            on_gpu=lambda done, total: bar.update(task, completed=done, total=total),
            before_second_look=second_look,
        )
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    elif as_csv:
        print_csv(report.as_json()["findings"], ("cell", "problem"))
    else:
        for line in describe(report):
            typer.echo(visible(line))
    if not report.holds:
        raise typer.Exit(1)


def verify_pipeline(
    timeout: Annotated[float, typer.Option(help="Longest wait for all of it, in seconds.")] = 120.0,
    as_json: _Json = False,
    as_csv: _Csv = False,
) -> None:
    """Send marked events, wait until they are stored and in the ledger, take them out again; prints
    each step. Exit code 1 when one fails.

    Example: `gpu-tokens verify --timeout 60`
    """
    from gpu_token_analytics.kafka.producer import EventProducer
    from gpu_token_analytics.mongo.client import COMMAND_CONNECT_MS, open_store
    from gpu_token_analytics.tools.verify import verify

    settings = settings_beside_demo()
    logs.configure(settings)
    store = open_store(settings, "gpu-tokens-verify", connect_ms=COMMAND_CONNECT_MS)
    as_text = not (as_json or as_csv)
    if as_text:
        typer.echo(f"mongodb      MongoDB {store.server} answers")
    rows: list[dict[str, Any]] = []
    try:
        with EventProducer(settings, client="verify") as producer:
            partitions = producer.check()
            if as_text:
                typer.echo(f"topic        {settings.kafka_topic} has {partitions} partitions")
            for step in verify(
                producer,
                store,
                SystemClock(),
                stop_on_signals(),
                timeout,
                settings.close_debounce_seconds,
            ):
                seconds = round(step.seconds, 2)
                rows.append({"step": step.name, "detail": step.detail, "seconds": seconds})
                if as_json:
                    typer.echo(json.dumps(rows[-1]))
                elif as_text:
                    typer.echo(f"{step.name:<12} {step.detail} ({step.seconds:.1f} s)")
    finally:
        if as_csv and not as_json:  # the steps until one failed, too
            print_csv(rows, ("step", "detail", "seconds"))
    if as_text:
        typer.echo("verified: the pipeline stores events once and the ledger holds them")


def show_settings(as_json: _Json = False, as_csv: _Csv = False) -> None:
    """Show every setting, its value in force and what it does; passwords are hidden.

    Example: `gpu-tokens settings | grep KAFKA`
    """
    from gpu_token_analytics.tools.reference import settings_rows

    rows = settings_rows(settings_beside_demo())
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if as_csv:
        print_csv(rows)
        return
    for row in rows:
        mark = "*" if row["set"] else " "
        typer.echo(f"{mark} {row['name']:<34} {row['value']!s:<28} {row['description']}")
    typer.echo("* is set in the environment")


def _wait_until_closed(count_due: Any, seconds: float) -> None:
    clock, never = SystemClock(), threading.Event()
    until = clock.monotonic() + seconds
    while clock.monotonic() < until and count_due() and not clock.wait(never, 0.5):
        pass


def _audited(
    start: str, end: str, last: str, period: str | None, time_zone: str
) -> Callable[[datetime], tuple[datetime | None, datetime | None]]:
    """The range as of a time; None: all there is. Raises SettingsError."""
    given = [
        name
        for name, value in (
            ("--from or --to", start or end),
            ("--last", last),
            ("--period", period),
        )
        if value
    ]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} each say what is audited: give one of them")
    if last or period is not None:
        asked = asked_range(None, None, last or "24h", period, time_zone)

        def at(now: datetime) -> tuple[datetime | None, datetime | None]:
            with refusals():
                return asked.at(now)

        return at
    low, high = _minute("--from", start), _minute("--to", end)
    return lambda _now: (low, high)


def _minute(option: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo else at
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{option}={text!r} is no time; give RFC 3339, such as 2026-01-31T00:00Z"
        ) from None
    if at.tzinfo is None or at.second or at.microsecond:
        raise SettingsError(
            f"{option}={text!r}: give a whole minute with its zone, such as 2026-01-31T00:00Z"
        )
    return at
