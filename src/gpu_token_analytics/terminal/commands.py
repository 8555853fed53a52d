"""`gpu-tokens api`, `report`, `top`, `export`, `break-even`; those of the books and keys are in
files of their names.

All but `api` read MONGODB_URI themselves, through the same functions as /v1: the figures are the
same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpu_token_analytics import logs
from gpu_token_analytics.costs import choices as p
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from rich.console import RenderableType

    from gpu_token_analytics.costs.answers import CostsResponse
    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.costs.query import CostQuery

REPORT_LIMIT = 50
LONGEST_PAGE = 10_000


def register(app: typer.Typer) -> None:
    """Add these commands."""
    from gpu_token_analytics.terminal import (
        budgets,
        gpus,
        hints,
        keys,
        owners,
        placements,
        prices,
        rates,
        teams,
    )

    app.command("api")(api)
    app.command("report")(report)
    app.command("top")(top)
    app.command("export")(export)
    app.command("break-even")(break_even)
    for room in (prices, rates, gpus, teams, owners, hints, budgets, keys, placements):
        room.register(app)


def api(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="HTTP port; default HTTP_PORT, 0: a free one."),
    ] = None,
) -> None:
    """Serve /v1 and the dashboard on HTTP_HOST:HTTP_PORT until stopped.

    Every route needs a key (`gpu-tokens keys create`), except on a loopback address with
    API_ALLOW_ANONYMOUS_LOOPBACK=true. /health, /ready and /metrics need none: expose only / and /v1
    to users.

    Examples: `gpu-tokens api` | `HTTP_HOST=0.0.0.0 gpu-tokens api --port 8081`
    """
    from gpu_token_analytics.api.service import run_api  # loads drivers: not for `--help`

    settings = load(http_port=port)
    logs.configure(settings)
    with stoppable() as stop:
        run_api(settings, stop)


def report(
    group_by: Annotated[
        list[str] | None,
        typer.Option("--by", "-b", help=f"{', '.join(p.Dimension)}; comma or repeated."),
    ] = None,
    start: cli.FromOption = None,
    end: cli.ToOption = None,
    last: cli.LastOption = "24h",
    period: cli.PeriodOption = None,
    bucket: Annotated[
        p.Bucket, typer.Option(help="One row per minute, hour or day.")
    ] = p.Bucket.NONE,
    time_zone: cli.ZoneOption = "UTC",
    models: cli.ModelOption = None,
    tenants: cli.TenantOption = None,
    gpus: cli.GpuOption = None,
    hosts: cli.HostOption = None,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Most rows shown, most money first.")
    ] = REPORT_LIMIT,
    compare: Annotated[
        bool, typer.Option("--compare", help="Beside the period before, without buckets.")
    ] = False,
    currency: Annotated[
        str | None, typer.Option(help="In this one (`gpu-tokens rates`), without buckets.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Redraw every few seconds until Ctrl-C.")
    ] = False,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """What models, tenants, GPUs or hosts cost, and what is idle; the sums always fill price x
    owned time.

    On a terminal the columns that there is room for; --wide, a pipe and a file get all of them.

    Examples: `gpu-tokens report` | `gpu-tokens report --wide` | `gpu-tokens report --by
    model,tenant --last 30d --bucket 1d` | `gpu-tokens report --by class --period last-month --tz
    Europe/Berlin --json` |
    `gpu-tokens report --period 2026-W05 --compare`
    """
    from gpu_token_analytics.costs.report import costs_of
    from gpu_token_analytics.terminal import report as view

    if watch:
        _refuse_unless_drawn_on("report --watch", "leave --watch out")
    groups = _groups(group_by if group_by is not None else ["model"])
    filters = {
        "models": models or (),
        "tenants": tenants or (),
        "gpus": gpus or (),
        "hosts": hosts or (),
    }
    if (compare or currency) and (watch or bucket is not p.Bucket.NONE or (compare and currency)):
        raise SettingsError(
            "--compare and --currency are tables of their own: leave --bucket and --watch out, and "
            "give one"
        )
    query_of = _query_of(
        cli.asked_range(start, end, last, period, time_zone), bucket, time_zone, groups, filters
    )
    with cli.opened() as desk:
        if currency is not None:
            _convert(desk, query_of(desk.now()), currency, limit, as_json=as_json, as_csv=as_csv)
            return
        if compare:
            _compare(desk, query_of(desk.now()), limit, wide=wide, as_json=as_json, as_csv=as_csv)
            return

        def body() -> CostsResponse:
            return costs_of(desk, query_of(desk.now()), LONGEST_PAGE)

        if as_json:
            cli.print_json(body())
        elif as_csv:
            for chunk in _export_chunks(
                desk, query_of(desk.now()), p.ExportFormat.CSV, p.ExportLayout.COSTS, ""
            ):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        elif watch:
            _watch(lambda rows: view.render(body(), min(limit, rows), wide=wide))
        else:
            cli.show(view.render(body(), limit, wide=wide))


def _compare(
    desk: Desk, query: CostQuery, limit: int, *, wide: bool, as_json: bool, as_csv: bool
) -> None:
    from gpu_token_analytics.costs.report import compared
    from gpu_token_analytics.terminal import report as view

    body = compared(desk, query)
    if not cli.printed(body, body.rows, as_json=as_json, as_csv=as_csv):
        cli.show(view.render_compared(body, limit, wide=wide))


def _convert(
    desk: Desk, query: CostQuery, currency: str, limit: int, *, as_json: bool, as_csv: bool
) -> None:
    from gpu_token_analytics.costs.rates import converted
    from gpu_token_analytics.terminal import report as view

    body = converted(desk, query, currency)
    if not cli.printed(body, body.rows, as_json=as_json, as_csv=as_csv):
        cli.show(view.render_converted(body, limit))


def _watch(rendered: Callable[[int], RenderableType]) -> None:
    """Draw again and again. rendered: for as many rows as there is room for."""
    from rich.live import Live

    from gpu_token_analytics.terminal.console import plain_console

    console = plain_console()
    with stoppable() as stop, Live(console=console, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            live.update(rendered(max(1, console.height - 10)), refresh=True)
            stop.wait(2.0)


def _refuse_unless_drawn_on(command: str, instead: str) -> None:
    """Raises SettingsError where a whole screen cannot be drawn over and over."""
    from gpu_token_analytics.terminal.console import no_color, on_terminal

    if no_color():
        raise SettingsError(
            f"`{command}` draws the screen by escape codes, which NO_COLOR forbids: {instead}, or "
            "unset NO_COLOR"
        )
    if not on_terminal():
        raise SettingsError(
            f"`{command}` draws a whole screen, and standard output is not a terminal: {instead}"
        )


def _groups(values: list[str]) -> list[str]:
    groups = cli.split(values)
    for name in groups:
        if name not in list(p.Dimension):
            raise SettingsError(f"--by {name}: group by {', '.join(p.Dimension)}")
    return groups


def _query_of(
    asked: cli.AskedRange,
    bucket: p.Bucket,
    time_zone: str,
    groups: list[str],
    filters: dict[str, Any],
) -> Callable[[datetime], CostQuery]:
    from gpu_token_analytics.costs.questions import cost_query

    return cli.judged(lambda now: cost_query(*asked.at(now), bucket, time_zone, groups, **filters))


def top(
    interval_seconds: Annotated[
        float, typer.Option("--interval", "-i", min=0.5, max=60, help="Seconds between looks.")
    ] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what a screen shows, once, as JSON.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the GPUs, once, as CSV.")] = False,
) -> None:
    """GPUs and models live, full screen, one line each. Keys: h, c, u, i sort by host, money,
    utilisation, idle share; arrows and page keys (or j, k, space, b) scroll; q quits.

    Examples: `gpu-tokens top` | `gpu-tokens top --interval 5` | `gpu-tokens top --json`
    """
    from gpu_token_analytics.terminal import top as view
    from gpu_token_analytics.terminal.console import plain_console

    if not (as_json or as_csv):
        _refuse_unless_drawn_on("top", "use `gpu-tokens top --json` or `gpu-tokens report`")
    with cli.opened() as desk:
        if as_json or as_csv:
            figures, gpus = view.snapshot(desk)
            if as_json:
                cli.print_json({"live": figures, "gpus": gpus})
            else:
                cli.print_csv(gpus)
            return
        with stoppable() as stop:
            view.run(desk, plain_console(), stop, interval_seconds)


def export(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Argument(help="File to write; left out or `-`: standard output.")
    ] = None,
    file_format: Annotated[
        p.ExportFormat | None,
        typer.Option("--format", "-f", help="Default: by the file's ending, else csv."),
    ] = None,
    layout: Annotated[
        p.ExportLayout, typer.Option(help="Columns of /v1/costs, or FOCUS 1.2.")
    ] = p.ExportLayout.COSTS,
    group_by: Annotated[
        list[str] | None, typer.Option("--by", "-b", help="Grouping of layout costs.")
    ] = None,
    start: cli.FromOption = None,
    end: cli.ToOption = None,
    last: cli.LastOption = "24h",
    period: cli.PeriodOption = None,
    bucket: Annotated[
        p.Bucket, typer.Option(help="One row per minute, hour or day.")
    ] = p.Bucket.HOUR,
    time_zone: cli.ZoneOption = "UTC",
    billing_account: Annotated[
        str, typer.Option(help="FOCUS BillingAccountId and -Name.")
    ] = "self-hosted",
    currency: Annotated[
        str | None,
        typer.Option(help="Also in this one (`gpu-tokens rates`), at the rate of each hour."),
    ] = None,
    days: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of one Parquet file a UTC day: only days that have changed are written.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Report the written file as JSON; with --days a line each."),
    ] = False,
) -> None:
    """Write a range as CSV or Parquet, in constant memory. The file appears under its name only
    when it is whole.

    With --days all days of the ledger, or those that the range touches: run it again and again, and
    after a kill.

    Examples: `gpu-tokens export january.parquet --from 2026-01-01 --to 2026-02-01 --by
    gpu,model,tenant` | `gpu-tokens export --layout focus --last 30d focus.csv` | `gpu-tokens export
    --last 1h --bucket 1m > hour.csv` | `gpu-tokens export --days warehouse/ledger --by
    gpu,model,tenant`
    """
    if days is not None:
        _refuse_beside_days(out, file_format, time_zone)
        ranged = start is not None or end is not None or _was_given(context, "last")
        asked = cli.asked_range(start, end, last) if ranged else None
        _export_days(
            days, asked, bucket, _groups(group_by or []), layout, billing_account, as_json=as_json
        )
        return
    to_file = out is not None and str(out) != "-"
    ending = out.suffix.lstrip(".") if out is not None and to_file else "csv"
    chosen = file_format or (
        p.ExportFormat(ending) if ending in list(p.ExportFormat) else p.ExportFormat.CSV
    )
    query_of = _query_of(
        cli.asked_range(start, end, last, period, time_zone),
        bucket,
        time_zone,
        _groups(group_by or []),
        {},
    )
    if out is None or not to_file:
        with cli.opened() as desk:
            for chunk in _export_chunks(
                desk, query_of(desk.now()), chosen, layout, billing_account, currency
            ):
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    partial = out.with_name(f"{out.name}.partial")
    try:
        with partial.open("wb") as file, cli.opened() as desk:
            query = query_of(desk.now())
            size = sum(
                file.write(chunk)
                for chunk in _export_chunks(desk, query, chosen, layout, billing_account, currency)
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        cli.print_json(
            {"file": str(out), "format": chosen.value, "layout": layout.value, "bytes": size}
        )
    else:
        typer.echo(
            f"{out}: {size:,} bytes, {query.start:%Y-%m-%dT%H:%MZ} to {query.end:%Y-%m-%dT%H:%MZ}"
        )


def _was_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _refuse_beside_days(
    out: Path | None, file_format: p.ExportFormat | None, time_zone: str
) -> None:
    """Raises SettingsError for what has no meaning there."""
    if out is not None:
        raise SettingsError(
            f"{out}: with --days the files are named by their day; leave the file out"
        )
    if file_format is p.ExportFormat.CSV:
        raise SettingsError(
            "--format csv: files of days are Parquet, whose footer says which version of the day "
            "it is"
        )
    if time_zone != "UTC":
        raise SettingsError(f"--time-zone {time_zone}: files of days are of UTC days; leave it out")


def _export_days(
    folder: Path,
    asked: cli.AskedRange | None,
    bucket: p.Bucket,
    groups: list[str],
    layout: p.ExportLayout,
    billing_account: str,
    *,
    as_json: bool,
) -> None:
    from gpu_token_analytics.warehouse.days import export_days

    query_of = _query_of(asked or cli.asked_range(None, None, "24h"), bucket, "UTC", groups, {})
    written = current = 0
    with cli.opened() as desk:
        start, end = (None, None) if asked is None else asked.at(desk.now())
        for file in export_days(
            desk, query_of(desk.now()), layout, billing_account, folder, start, end
        ):
            written += file.written
            current += not file.written
            if as_json:
                line = {
                    "day": f"{file.day:%Y-%m-%d}",
                    "file": str(file.path),
                    "bytes": file.bytes,
                    "written": file.written,
                }
                typer.echo(json.dumps(line))
            elif file.written:
                typer.echo(f"{file.path}: {file.bytes:,} bytes")
    if not as_json:
        typer.echo(f"{folder}: {written} days written, {current} were current")


def _export_chunks(
    desk: Desk,
    query: CostQuery,
    file_format: p.ExportFormat,
    layout: p.ExportLayout,
    billing_account: str,
    currency: str | None = None,
) -> Iterator[bytes]:
    from gpu_token_analytics.costs.export import export_file

    return export_file(desk, query, file_format, layout, billing_account, currency=currency).chunks


def break_even(
    api_usd_per_million: Annotated[
        float | None,
        typer.Argument(min=0, help="What the API charges, USD per million tokens of any kind."),
    ] = None,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            help="MODEL=INPUT/CACHED/OUTPUT, USD per million; * is any other; repeatable.",
        ),
    ] = None,
    usd_per_gpu_hour: Annotated[
        float | None,
        typer.Option("--usd-per-gpu-hour", min=0, help="What if a GPU-hour cost this?"),
    ] = None,
    start: cli.FromOption = None,
    end: cli.ToOption = None,
    last: cli.LastOption = "7d",
    period: cli.PeriodOption = None,
    time_zone: cli.ZoneOption = "UTC",
    models: cli.ModelOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """From what load on own GPUs beat an API, per model and for everything with all idle money.

    Examples: `gpu-tokens break-even 0.60` | `gpu-tokens break-even --price "llama=0.10/0.05/0.40"
    --price "*=0.6/0.3/2.4"` | `gpu-tokens break-even 0.60 --usd-per-gpu-hour 1.30 --last 30d`
    """
    from gpu_token_analytics.costs.break_even import ApiPrices, against_api
    from gpu_token_analytics.terminal.console import Column, FittedTable

    query_of = _query_of(
        cli.asked_range(start, end, last, period, time_zone),
        p.Bucket.NONE,
        time_zone,
        ["model"],
        {"models": models or ()},
    )
    with cli.refusals():
        listed = ApiPrices.of(api_usd_per_million, prices or ())
    with cli.opened() as desk:
        body = against_api(desk, query_of(desk.now()), listed, usd_per_gpu_hour)
    if cli.printed(body, body.rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("model", right=False),
        Column("tokens/h", 4),
        Column("own $/M"),
        Column("API $/M"),
        Column("saved USD", 1),
        Column("break-even tokens/h", 3),
        Column("needed busy", 2),
        Column("busy now", 2),
        Column("", right=False),
    )
    made = FittedTable(f"{cli.instant(body.from_)} to {cli.instant(body.to)}", columns, wide=wide)
    for row in body.rows:
        wins = {
            True: "own GPUs win",
            False: "the API wins",
            None: "no price" if row.tokens else "no tokens",
        }[row.own_wins]
        made.add_row(
            row.model or "everything",
            cli.count(row.tokens_per_hour or 0),
            cli.rate(row.own_usd_per_million),
            cli.rate(row.api_usd_per_million),
            cli.dollars(row.saved_nusd),
            "-"
            if row.break_even_tokens_per_hour is None
            else cli.count(row.break_even_tokens_per_hour),
            cli.percent(row.break_even_utilization),
            cli.percent(row.utilization),
            wins,
            style="bold" if row.model is None else None,
        )
    hourly = body.own_usd_per_gpu_hour
    cli.show(made, *(row.says for row in body.rows))
    cli.show(
        f"paid per GPU-hour: {cli.rate(hourly)} USD"
        + (f", what if {usd_per_gpu_hour}" if usd_per_gpu_hour else "")
    )
