"""`gpu-tokens rates`: what a USD is worth in other currencies."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_token_analytics.terminal import support as cli

rates_app = typer.Typer(
    help="Exchange rates: what a USD is worth, append-only, effective-dated.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(rates_app, name="rates")


@rates_app.command("list")
def list_rates(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """Every row, newest valid-from first.

    Examples: `gpu-tokens rates list` | `gpu-tokens rates list --json`
    """
    from gpu_token_analytics.costs.rates import rate_rows
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        body = rate_rows(desk)
    if cli.printed(body, body.rates, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("currency", right=False),
        Column("units per USD"),
        Column("from", right=False),
        Column("source", 1, right=False),
    )
    made = FittedTable("exchange rates", columns, wide=wide)
    for row in body.rates:
        made.add_row(row.currency, row.units_per_usd, cli.instant(row.valid_from), row.source)
    cli.show(made)


@rates_app.command("add")
def add_rate(
    currency: Annotated[str, typer.Argument(help="ISO 4217, such as EUR.")],
    units_per_usd: Annotated[
        str, typer.Argument(help="How many units a USD is worth, such as 0.92.")
    ],
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from", help="Since when, on a whole UTC hour; default: 1970, for all the history."
        ),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Say what a USD is worth from a time on, which may lie in the past. The ledger stays in
    nano-USD.

    Examples: `gpu-tokens rates add EUR 0.92 --from 2026-01-01` | `gpu-tokens rates add JPY 150.12
    --from 2026-02-01`
    """
    from gpu_token_analytics.costs.rates import NewRate, append_rate, check_rate

    since = cli.since(valid_from)
    units = cli.decimal_of("UNITS_PER_USD", units_per_usd)
    with cli.entry("the rate cannot be said"):
        new = NewRate(currency=currency, units_per_usd=units, valid_from=since)
        check_rate(new)
    with cli.opened() as desk:
        row = append_rate(desk, new, "cli")
    if as_json:
        cli.print_json(row)
        return
    typer.echo(
        f"said: a USD is worth {row.units_per_usd} {row.currency} from "
        f"{cli.instant(row.valid_from)}"
    )
