"""`gpu-tokens api`, `report`, `top`; the others are in files of their names.

All but `api` read MONGODB_URI themselves, through the same functions as /v1: the figures are the
same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gpu_token_analytics import logs
from gpu_token_analytics.costs import choices as p
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli
from gpu_token_analytics.terminal.export import export_chunks

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
        break_even,
        budgets,
        export,
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
    for room in (
        export,
        break_even,
        prices,
        rates,
        gpus,
        teams,
        owners,
        hints,
        budgets,
        keys,
        placements,
    ):
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
        str | None,
        typer.Option(
            metavar="CODE",
            callback=money.currency_code,
            help="In this one, each hour at its rate (`gpu-tokens rates`); JSON and CSV, too. "
            "With --compare tables at the last rate.",
        ),
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
    groups = cli.groups(group_by if group_by is not None else ["model"])
    filters = {
        "models": models or (),
        "tenants": tenants or (),
        "gpus": gpus or (),
        "hosts": hosts or (),
    }
    if (compare or currency) and (watch or bucket is not p.Bucket.NONE):
        raise SettingsError(
            f"{'--compare' if compare else f'--currency {currency}'} is a table of its own: leave "
            "--bucket and --watch out; `gpu-tokens export --currency CODE` has rows by hour"
        )
    query_of = cli.query_of(
        cli.asked_range(start, end, last, period, time_zone), bucket, time_zone, groups, filters
    )
    with cli.opened() as desk:
        if compare or currency is not None:
            query = query_of(desk.now())
            if currency is None or compare:
                told = _compared(desk, query, currency, limit, wide=wide)
            else:
                told = _converted(desk, query, currency, limit, wide=wide)
            if not cli.printed(told.body, told.rows, as_json=as_json, as_csv=as_csv):
                cli.show(told.table())
            return

        def first(rows: int) -> CostsResponse:
            return costs_of(desk, query_of(desk.now()), LONGEST_PAGE, top=rows)

        if as_json:
            page = costs_of(desk, query_of(desk.now()), LONGEST_PAGE)
            cli.print_json(page)
            if page.next is not None:
                typer.echo(
                    f"gpu-tokens: these are the first {LONGEST_PAGE:,} rows by name; --csv has "
                    "all of them, totals are of all",
                    err=True,
                )
        elif as_csv:
            for chunk in export_chunks(
                desk, query_of(desk.now()), p.ExportFormat.CSV, p.ExportLayout.COSTS, ""
            ):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        elif watch:
            _watch(lambda rows: view.render(first(min(limit, rows)), limit, wide=wide))
        else:
            cli.show(view.render(first(limit), limit, wide=wide))


class _Told(NamedTuple):
    """An answer that is a table of its own, its rows as CSV has them, and how it is drawn."""

    body: Any
    rows: Iterable[Any]
    table: Callable[[], RenderableType]


def _compared(
    desk: Desk, query: CostQuery, currency: str | None, limit: int, *, wide: bool
) -> _Told:
    from gpu_token_analytics.costs.report import compared
    from gpu_token_analytics.terminal import report as view

    body = compared(desk, query)
    shown = money.shown_in(desk, currency, body.before_from, body.to)
    return _Told(body, body.rows, lambda: view.render_compared(body, limit, shown, wide=wide))


def _converted(desk: Desk, query: CostQuery, currency: str, limit: int, *, wide: bool) -> _Told:
    from gpu_token_analytics.costs.rates import converted
    from gpu_token_analytics.terminal import report as view

    body = converted(desk, query, currency)
    rows = ({"currency": body.currency, **cli.as_dict(row)} for row in body.rows)
    return _Told(body, rows, lambda: view.render_converted(body, limit, wide=wide))


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


def top(
    interval_seconds: Annotated[
        float, typer.Option("--interval", "-i", min=0.5, max=60, help="Seconds between looks.")
    ] = 2.0,
    currency: money.CurrencyOption = None,
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
            shown = money.shown_in(desk, currency)
            view.run(desk, plain_console(), stop, interval_seconds, shown)
