"""`gpu-tokens owners`: who owns GPUs, hosts and models, and what of theirs is idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpu_token_analytics.costs.choices import ShareRule
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:
    from gpu_token_analytics.costs.answers.owners import SharedOut
    from gpu_token_analytics.terminal.console import FittedTable

owners_app = typer.Typer(
    help="Owners: whose a GPU, host or model is; what of theirs is idle.", no_args_is_help=True
)

Scope = Literal["model", "gpu", "host", "default"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(owners_app, name="owners")


@owners_app.command("list")
def list_owners(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """Every row, newest valid-from first. Of model, GPU, host and default the first with an owner
    holds.

    Examples: `gpu-tokens owners list` | `gpu-tokens owners list --csv`
    """
    from gpu_token_analytics.costs.owners import owner_rows
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        body = owner_rows(desk)
    if cli.printed(body, body.owners, as_json=as_json, as_csv=as_csv):
        return
    ranks = {"of": 0, "key": 0, "team": 0, "cost centre": 1, "from": 2, "source": 3}
    made = FittedTable(
        "owners", [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide
    )
    for row in body.owners:
        named = row.team or ("" if row.cost_centre else "(nobody)")
        made.add_row(
            row.scope,
            row.key or "",
            named,
            row.cost_centre or "",
            cli.instant(row.valid_from),
            row.source,
        )
    cli.show(made)


@owners_app.command("add")
def add_owner(
    key: Annotated[
        str | None, typer.Argument(help="The model, GPU or host; left out with --scope default.")
    ] = None,
    scope: Annotated[Scope, typer.Option(help="What is owned.")] = "host",
    team: Annotated[str | None, typer.Option(help="The team that owns it.")] = None,
    cost_centre: Annotated[
        str | None,
        typer.Option(
            help="Its cost centre; with --team left out, too, this row names nobody from then on."
        ),
    ] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Since when, on a whole or half UTC hour; default: 1970, for all its history.",
        ),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Say who owns a model, GPU or host from a time on, which may lie in the past. The ledger does
    not change by it.

    Examples: `gpu-tokens owners add node-1 --team platform --cost-centre CC-4711` |
    `gpu-tokens owners add llama-3-8b --scope model --team search --from 2026-03-01`
    """
    from gpu_token_analytics.costs.owners import NewOwnerRow, append_owner, check_owner

    since = cli.since(valid_from)
    with cli.entry("the owner cannot be said"):
        new = NewOwnerRow(
            scope=scope, key=key, team=team, cost_centre=cost_centre, valid_from=since
        )
        check_owner(new)
    with cli.opened() as desk:
        row = append_owner(desk, new, "cli")
    if as_json:
        cli.print_json(row)
        return
    whose = " of ".join(visible(text) for text in (row.team, row.cost_centre) if text) or "nobody"
    what = "everything else" if row.key is None else f"{row.scope} {visible(row.key)}"
    typer.echo(f"said: {what} belongs to {whose} from {cli.instant(row.valid_from)}")


@owners_app.command("idle")
def idle(
    share: Annotated[
        ShareRule | None, typer.Option(help="Also share idle money out among teams by this rule.")
    ] = None,
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
    """Idle money by owner, while it was the owner; on request shared out among teams, beside what
    they used, never in it. --csv gives the rows that are shared out where --share is given, else
    those by owner.

    Examples: `gpu-tokens owners idle` | `gpu-tokens owners idle --share by_use --from 2026-01-01
    --to 2026-02-01`
    """
    from gpu_token_analytics.costs.owners import idle_money
    from gpu_token_analytics.costs.rows import IDLE_COLUMNS
    from gpu_token_analytics.terminal.console import Column, FittedTable

    asked = cli.asked_range(start, end, last, period, time_zone)
    with cli.opened() as desk:
        body = idle_money(desk, *asked.at(desk.now()), share)
        shown = money.shown_in(desk, currency, body.from_, body.to)
    if cli.printed(
        body, body.shared_out.rows if body.shared_out else body.rows, as_json=as_json, as_csv=as_csv
    ):
        return
    columns = (
        Column("owner", right=False),
        Column("cost centre", 1, right=False),
        Column(f"idle {shown.code}"),
        Column("warm", 2),
        Column("cold", 2),
        Column("unobserved", 2),
        Column("unmetered work", 3),
    )
    made = FittedTable(f"{cli.instant(body.from_)} to {cli.instant(body.to)}", columns, wide=wide)
    for row in body.rows:
        classes = (
            row.idle_nusd,
            row.warm_idle_nusd,
            row.cold_idle_nusd,
            row.unobserved_nusd,
            row.unmetered_work_nusd,
        )
        nobody = "(no owner)" if row.cost_centre is None else ""
        made.add_row(row.owner or nobody, row.cost_centre or "", *map(shown.amount, classes))
    made.add_row(
        "total",
        "",
        shown.amount(body.idle_nusd),
        *(shown.amount(sum(getattr(row, name) for row in body.rows)) for name in IDLE_COLUMNS),
        shown.amount(body.unmetered_work_nusd),
        style="bold",
    )
    cli.show(made)
    if body.shared_out is not None:
        cli.show("", _shared(body.shared_out, shown, wide=wide))
    cli.show(*shown.notes())


def _shared(body: SharedOut, shown: money.Shown, *, wide: bool) -> FittedTable:
    from gpu_token_analytics.terminal.console import Column, FittedTable

    columns = (
        Column("team", right=False),
        Column(f"attributed {shown.code}", 1),
        Column(f"shared idle {shown.code}"),
        Column("both", 2),
    )
    made = FittedTable(f"shared out {body.rule}: {body.says}", columns, wide=wide)
    for row in body.rows:
        parts = (row.attributed_nusd, row.shared_idle_nusd, row.with_shared_idle_nusd)
        made.add_row(row.team or "(nobody)", *map(shown.amount, parts))
    both = body.attributed_nusd + body.shared_idle_nusd
    made.add_row(
        "total",
        *map(shown.amount, (body.attributed_nusd, body.shared_idle_nusd, both)),
        style="bold",
    )
    return made
