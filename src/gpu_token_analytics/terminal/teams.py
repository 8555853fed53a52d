"""`gpu-tokens teams`: which team a tenant belongs to, and what teams cost."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli

_COUNTS = ("tokens", "requests")

teams_app = typer.Typer(
    help="Teams: whose a tenant is, and since when; what teams cost.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(teams_app, name="teams")


@teams_app.command("list")
def list_teams(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """Every row, newest valid-from first. A tenant's row holds until its next one.

    Examples: `gpu-tokens teams list` | `gpu-tokens teams list --json`
    """
    from gpu_token_analytics.costs.teams import team_rows
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        body = team_rows(desk)
    if cli.printed(body, body.teams, as_json=as_json, as_csv=as_csv):
        return
    ranks = {"tenant": 0, "team": 0, "from": 0, "source": 1}
    made = FittedTable(
        "teams", [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide
    )
    for row in body.teams:
        made.add_row(row.tenant, row.team or "(none)", cli.instant(row.valid_from), row.source)
    cli.show(made)


@teams_app.command("add")
def add_team(
    tenant: Annotated[str, typer.Argument(help="The tenant, as events name it.")],
    team: Annotated[str | None, typer.Option(help="Its team; left out: none from then on.")] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Since when, on a whole or half UTC hour; default: 1970, for all its history.",
        ),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Say to which team a tenant belongs from a time on, which may lie in the past. The ledger does
    not change by it.

    Examples: `gpu-tokens teams add chat-web --team search` | `gpu-tokens teams add chat-web --team
    ads --from 2026-03-01`
    """
    from gpu_token_analytics.costs.teams import NewTeamRow, append_team, check_team

    since = cli.since(valid_from)
    with cli.entry("the team cannot be said"):
        new = NewTeamRow(tenant=tenant, team=team, valid_from=since)
        check_team(new)
    with cli.opened() as desk:
        row = append_team(desk, new, "cli")
    if as_json:
        cli.print_json(row)
        return
    whose = "no team" if row.team is None else f"team {visible(row.team)}"
    typer.echo(f"said: {visible(row.tenant)} belongs to {whose} from {cli.instant(row.valid_from)}")


@teams_app.command("costs")
def costs(
    start: cli.FromOption = None,
    end: cli.ToOption = None,
    last: cli.LastOption = "30d",
    period: cli.PeriodOption = None,
    time_zone: cli.ZoneOption = "UTC",
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """Attributed money by team, each tenant's while it belonged to it. Idle money is nobody's
    usage, and in no row.

    Examples: `gpu-tokens teams costs` | `gpu-tokens teams costs --from 2026-01-01 --to 2026-02-01
    --json`
    """
    from gpu_token_analytics.costs.teams import team_costs
    from gpu_token_analytics.terminal.console import Column, FittedTable

    asked = cli.asked_range(start, end, last, period, time_zone)
    with cli.opened() as desk:
        body = team_costs(desk, *asked.at(desk.now()))
        shown = money.shown_in(desk, currency, body.from_, body.to)
    if cli.printed(body, body.rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("team", right=False),
        Column(f"attributed {shown.code}"),
        Column("tokens", 1),
        Column("requests", 2),
        Column("tenants", 3, right=False),
    )
    made = FittedTable(f"{cli.instant(body.from_)} to {cli.instant(body.to)}", columns, wide=wide)
    for row in body.rows:
        names = ", ".join(row.tenants)
        made.add_row(
            row.team or "(no team)",
            shown.amount(row.attributed_nusd),
            cli.count(row.tokens),
            cli.count(row.requests),
            names,
        )
    counts = (cli.count(sum(getattr(row, name) for row in body.rows)) for name in _COUNTS)
    made.add_row("total", shown.amount(body.attributed_nusd), *counts, "", style="bold")
    cli.show(made, *shown.notes())
