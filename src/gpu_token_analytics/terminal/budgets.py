"""`gpu-tokens budgets`: what may be spent, what is, what it will come to, and who was told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli

budgets_app = typer.Typer(
    help="Budgets: set, listed, how they stand, who was told.", no_args_is_help=True
)

Scope = Literal["fleet", "team", "tenant", "model"]
PeriodName = Literal["day", "week", "month"]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")]

_WHOSE = {"fleet": "all money"}


_NONE_SET = "none is set: `gpu-tokens budgets set NAME USD`"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(budgets_app, name="budgets")


@budgets_app.command("list")
def list_budgets(
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """Every budget as it is set.

    Examples: `gpu-tokens budgets list` | `gpu-tokens budgets list --json`
    """
    from gpu_token_analytics.budgets.desk import BudgetDesk
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        rows = [_plain(row) for row in BudgetDesk.over(desk).every()]
        shown = money.shown_in(desk, currency)
    if cli.printed({"budgets": rows}, rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("name", right=False),
        Column("of", right=False),
        Column(f"limit {shown.code}"),
        Column("every", right=False),
        Column("time zone", 3, right=False),
        Column("told at", 1, right=False),
        Column("changed", 4, right=False),
    )
    made = FittedTable("budgets", columns, wide=wide, empty=_NONE_SET)
    for row in rows:
        told = [f"{percent} %" for percent in row["thresholds"]] + ["forecast"] * row[
            "forecast_alert"
        ]
        limit, every = shown.amount(row["limit_nusd"]), row["period"]
        made.add_row(
            row["name"],
            _of(row),
            limit,
            every,
            row["time_zone"],
            ", ".join(told),
            row["changed_at"],
        )
    cli.show(made, *shown.notes())


@budgets_app.command("status")
def status(
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """Every budget in its current period: spent, forecast to its end, and what was told.

    Examples: `gpu-tokens budgets status` | `gpu-tokens budgets status --json`
    """
    from gpu_token_analytics.budgets.desk import BudgetDesk
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        budgets = BudgetDesk.over(desk)
        body = _plain(budgets.standing())
        alerts = [_plain(row) for row in budgets.told(1000)]
        shown = money.shown_in(desk, currency)
    rows = body["budgets"]
    if cli.printed({**body, "alerts": alerts}, rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("name", right=False),
        Column("of", 2, right=False),
        Column(f"spent {shown.code}"),
        Column(f"limit {shown.code}"),
        Column("used"),
        Column(f"forecast {shown.code}"),
        Column("80 % between", 4),
        Column("period from", 3, right=False),
        Column("to", 5, right=False),
        Column("told", 1, right=False),
    )
    made = FittedTable(f"budgets, {body['as_of']}", columns, wide=wide, empty=_NONE_SET)
    for row in rows:
        forecast = row["forecast"]
        between = (
            ""
            if forecast is None
            else f"{shown.amount(forecast['low_nusd'])} and {shown.amount(forecast['high_nusd'])}"
        )
        told = [
            _told(alert)
            for alert in reversed(alerts)
            if (alert["budget"], alert["from"]) == (row["name"], row["from"])
        ]
        made.add_row(
            row["name"],
            _of(row),
            shown.amount(row["spent_nusd"]),
            shown.amount(row["limit_nusd"]),
            cli.percent(row["used_share"]),
            "-" if forecast is None else shown.amount(forecast["nusd"]),
            between,
            row["from"],
            row["to"],
            ", ".join(told),
            style="bold" if (row["used_share"] or 0) >= 1 else None,
        )
    cli.show(made, *shown.notes())
    for row in rows:
        if row["no_forecast"] is not None:
            typer.echo(f"{row['name']}: no forecast, {row['no_forecast']}")
        if row["unknown_gpu_tokens"]:
            typer.echo(
                f"{row['name']}: {row['unknown_gpu_tokens']:,} tokens have no money yet, see "
                "`gpu-tokens gpus list`"
            )


@budgets_app.command("set")
def set_budget(
    name: NameArgument,
    limit_usd: Annotated[
        str, typer.Argument(metavar="USD", help="What may be spent in each period, such as 5000.")
    ],
    scope: Annotated[
        Scope, typer.Option(help="fleet: all money; else what is attributed to usage.")
    ] = "fleet",
    key: Annotated[str | None, typer.Option(help="The team, tenant or model.")] = None,
    period: Annotated[PeriodName, typer.Option(help="Weeks begin on Monday.")] = "month",
    time_zone: cli.ZoneOption = "UTC",
    thresholds: Annotated[
        str,
        typer.Option(
            "--at", help="Percent of the limit to tell at, with commas between; empty: none."
        ),
    ] = "50,80,100",
    forecast_alert: Annotated[
        bool, typer.Option("--forecast/--no-forecast", help="Tell when the forecast passes 100 %.")
    ] = True,
    as_json: cli.JsonOption = False,
) -> None:
    """Set a budget, or replace the one of that name. Its alerts begin anew where its money is
    another.

    Who is told is set for `gpu-tokens api`: ALERT_WEBHOOK_URL, SMTP_HOST, ALERTMANAGER_URL
    (docs/budgets.md).

    Examples: `gpu-tokens budgets set everything 20000` |
    `gpu-tokens budgets set acme 500 --scope tenant --key acme --period week --tz Europe/Berlin --at
    80,100`
    """
    from gpu_token_analytics.budgets.desk import BudgetDesk, check_budget
    from gpu_token_analytics.budgets.entries import NewBudget

    limit = cli.decimal_of("USD", limit_usd)
    percents = _percents(thresholds)
    with cli.entry("the budget cannot be set"):
        new = NewBudget(
            name=name,
            scope=scope,
            key=key,
            period=period,
            time_zone=time_zone,
            limit_usd=limit,
            thresholds=percents,
            forecast_alert=forecast_alert,
        )
        check_budget(new)
    with cli.opened() as desk:
        row = _plain(BudgetDesk.over(desk).put(new, "cli"))
    if as_json:
        cli.print_json(row)
        return
    typer.echo(
        f"set: {row['name']}, {cli.dollars(row['limit_nusd'])} USD each {row['period']} "
        f"({row['time_zone']}) of {_of(row)}"
    )


@budgets_app.command("remove")
def remove_budget(name: NameArgument, as_json: cli.JsonOption = False) -> None:
    """Take a budget away. What was told of it stays listed.

    Examples: `gpu-tokens budgets remove acme` | `gpu-tokens budgets remove acme --json`
    """
    from gpu_token_analytics.budgets.desk import BudgetDesk

    with cli.opened() as desk:
        row = _plain(BudgetDesk.over(desk).remove(name))
    if as_json:
        cli.print_json(row)
        return
    typer.echo(f"removed: {row['name']}")


@budgets_app.command("alerts")
def alerts(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most alerts, newest first.")] = 50,
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """What was told of budgets, newest first, and how it reached its receivers.

    Examples: `gpu-tokens budgets alerts` | `gpu-tokens budgets alerts --json`
    """
    from gpu_token_analytics.budgets.desk import BudgetDesk
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        rows = [_plain(row) for row in BudgetDesk.over(desk).told(limit)]
        shown = money.shown_in(desk, currency)
    if cli.printed(
        {"alerts": rows},
        [{**row, "deliveries": [_delivery(item) for item in row["deliveries"]]} for row in rows],
        as_json=as_json,
        as_csv=as_csv,
    ):
        return
    columns = (
        Column("raised", right=False),
        Column("budget", right=False),
        Column("what", right=False),
        Column(f"spent {shown.code}", 2),
        Column(f"limit {shown.code}", 3),
        Column("period from", 4, right=False),
        Column("reached", 1, right=False),
    )
    made = FittedTable("budget alerts", columns, wide=wide, empty="nothing was told yet")
    for row in rows:
        reached = (
            ", ".join(_delivery(item) for item in row["deliveries"]) or "nobody is set to be told"
        )
        spent, limit_text = shown.amount(row["spent_nusd"]), shown.amount(row["limit_nusd"])
        made.add_row(
            row["raised_at"][:19],
            row["budget"],
            _told(row),
            spent,
            limit_text,
            row["from"],
            reached,
        )
    cli.show(made, *shown.notes())


def _percents(thresholds: str) -> list[int]:
    try:
        return [int(part) for part in cli.split([thresholds])]
    except ValueError:
        raise SettingsError(
            f"--at={thresholds!r} is not a list of whole percents; give one such as 50,80,100"
        ) from None


def _plain(answer: Any) -> dict[str, Any]:
    from msgspec import to_builtins

    built: dict[str, Any] = to_builtins(answer, enc_hook=int)
    return built


def _of(row: dict[str, Any]) -> str:
    return _WHOSE.get(row["scope"]) or f"{row['scope']} {visible(row['key'])}"


def _told(alert: dict[str, Any]) -> str:
    return f"{alert['percent']} %" if alert["kind"] == "spent" else "forecast"


def _delivery(item: dict[str, Any]) -> str:
    if item["state"] == "sent":
        return f"{item['receiver']} sent"
    again = f", again at {item['next_at'][:19]}" if item["next_at"] else ", given up"
    why = f": {visible(item['error'])}" if item["error"] else ""
    return f"{item['receiver']} {item['state']}{again if item['attempts'] else ''}{why}"
