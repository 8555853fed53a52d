"""`gpu-tokens prices`: the price book."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli

prices_app = typer.Typer(help="The price book: append-only, effective-dated.", no_args_is_help=True)

Scope = Literal["gpu", "host", "name", "default"]
Mode = Literal["on_demand", "reserved", "spot", "owned"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(prices_app, name="prices")


@prices_app.command("list")
def list_prices(
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """Every row, newest valid-from first.

    Examples: `gpu-tokens prices list` | `gpu-tokens prices list --json`
    """
    from gpu_token_analytics.costs.prices import every_price
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        rows = every_price(desk)
        shown = money.shown_in(desk, currency)
    if cli.printed({"prices": rows}, rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("from", right=False),
        Column("to", 2, right=False),
        Column("scope", right=False),
        Column("key", right=False),
        Column(shown.per("h")),
        Column("mode", 3, right=False),
        Column("source", 4, right=False),
        Column("", 1, right=False),
    )
    made = FittedTable("price book", columns, wide=wide)
    for row in rows:
        remarks = ["being applied"] * row.pending + ["no GPU known has this key"] * (
            not row.matches
        )
        made.add_row(
            cli.instant(row.valid_from),
            cli.instant(row.valid_to),
            row.scope,
            row.key or "",
            row.usd_per_hour if shown is money.USD else shown.ratio(float(row.usd_per_hour)),
            row.mode,
            row.source,
            ", ".join(remarks),
        )
    cli.show(made, *shown.notes())


@prices_app.command("add")
def add_price(
    usd_per_hour: Annotated[str, typer.Argument(help="USD per GPU-hour, such as 2.49.")],
    scope: Annotated[
        Scope, typer.Option(help="What it is for; the most specific row in force wins.")
    ] = "default",
    key: Annotated[str | None, typer.Option(help="GPU id, host or GPU name.")] = None,
    mode: Annotated[Mode, typer.Option(help="How the GPU is paid for.")] = "on_demand",
    valid_from: Annotated[
        str | None, typer.Option("--from", help="Since when; default: now. May lie in the past.")
    ] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    usd_per_kwh: Annotated[
        str | None, typer.Option(help="With --mode owned: energy is paid on top.")
    ] = None,
    pue: Annotated[
        float | None, typer.Option(help="With --mode owned: power usage effectiveness.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Append a row. With a --from in the past, open cells are computed again and final ones get
    corrections, as far back as raw events are kept (RAW_RETENTION_DAYS).

    Examples: `gpu-tokens prices add 2.49` |
    `gpu-tokens prices add 1.74 --scope name --key "NVIDIA H200" --mode reserved --from 2026-01-01`
    """
    from gpu_token_analytics.costs.entries import NewPrice, check_price
    from gpu_token_analytics.costs.prices import append_price
    from gpu_token_analytics.rollups.spans import MINUTE, floor

    since = None if valid_from is None else cli.time_of("--from", valid_from)
    until = None if valid_to is None else cli.time_of("--to", valid_to)
    per_hour = cli.decimal_of("USD_PER_HOUR", usd_per_hour)
    per_kwh = None if usd_per_kwh is None else cli.decimal_of("--usd-per-kwh", usd_per_kwh)

    def priced(now: datetime) -> NewPrice:
        with cli.entry("the price cannot be used"):
            new = NewPrice(
                scope=scope,
                key=key,
                usd_per_hour=per_hour,
                mode=mode,
                usd_per_kwh=per_kwh,
                pue=pue,
                valid_from=since or floor(now, MINUTE),
                valid_to=until,
            )
            check_price(new)
        return new

    priced(datetime.now(UTC))
    with cli.opened() as desk:
        row = append_price(desk, priced(desk.now()), "cli")
        if not row.matches:
            typer.echo(
                f"warning: no GPU known today has {scope}={key!r}, so the row prices nothing yet",
                err=True,
            )
    if as_json:
        cli.print_json(row)
    else:
        key = visible(row.key or "")
        typer.echo(
            f"appended: {row.usd_per_hour} USD/h, {row.scope} {key} from "
            f"{cli.instant(row.valid_from)}"
        )
