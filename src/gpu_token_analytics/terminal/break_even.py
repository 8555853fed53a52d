"""`gpu-tokens break-even`: from what load on own GPUs beat an API's price list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpu_token_analytics.costs import choices as p
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.sentences import worded
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from gpu_token_analytics.costs.answers.costs import BreakEvenRow


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("break-even")(break_even)


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
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """From what load on own GPUs beat an API, per model and for everything with all idle money.

    Examples: `gpu-tokens break-even 0.60` | `gpu-tokens break-even --price "llama=0.10/0.05/0.40"
    --price "*=0.6/0.3/2.4"` | `gpu-tokens break-even 0.60 --usd-per-gpu-hour 1.30 --last 30d`
    """
    from gpu_token_analytics.costs.break_even import ApiPrices, against_api, check_what_if
    from gpu_token_analytics.terminal.console import Column, FittedTable

    query_of = cli.query_of(
        cli.asked_range(start, end, last, period, time_zone),
        p.Bucket.NONE,
        time_zone,
        ["model"],
        {"models": models or ()},
    )
    if api_usd_per_million is None and not prices:
        raise SettingsError(
            "no API price is given: one number for all tokens, such as `gpu-tokens break-even "
            '0.60`, or --price MODEL=INPUT/CACHED/OUTPUT, such as --price "*=0.6/0.3/2.4"'
        )
    with cli.refusals():
        listed = ApiPrices.of(api_usd_per_million, prices or ())
        check_what_if(usd_per_gpu_hour)
    with cli.opened() as desk:
        body = against_api(desk, query_of(desk.now()), listed, usd_per_gpu_hour)
        shown = money.shown_in(desk, currency, body.from_, body.to)
    if cli.printed(body, body.rows, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("model", right=False),
        Column("tokens/h", 4),
        Column(f"own {shown.per('M')}"),
        Column(f"API {shown.per('M')}"),
        Column(f"saved {shown.code}", 1),
        Column("break-even tokens/h", 3),
        Column("needed busy", 2),
        Column("busy now", 2),
        Column("", right=False),
    )
    made = FittedTable(f"{cli.instant(body.from_)} to {cli.instant(body.to)}", columns, wide=wide)
    for row in body.rows:
        made.add_row(
            row.model or "everything",
            cli.count(row.tokens_per_hour or 0),
            shown.ratio(row.own_usd_per_million),
            shown.ratio(row.api_usd_per_million),
            shown.amount(row.saved_nusd),
            "-"
            if row.break_even_tokens_per_hour is None
            else cli.count(row.break_even_tokens_per_hour),
            cli.percent(row.break_even_utilization),
            cli.percent(row.utilization),
            _winner(row),
            style="bold" if row.model is None else None,
        )
    hourly = body.own_usd_per_gpu_hour
    cli.show(made, *(worded(row.sentence, shown.worded) for row in body.rows))
    cli.show(
        f"paid per GPU-hour: {shown.ratio(hourly)} {shown.code}"
        + (f", what if {usd_per_gpu_hour} USD" if usd_per_gpu_hour is not None else ""),
        *shown.notes(),
    )


def _winner(row: BreakEvenRow) -> str:
    """Who wins; else why nobody does."""
    if row.own_wins is not None:
        return "own GPUs win" if row.own_wins else "the API wins"
    if not row.tokens:
        return "no tokens"
    if row.api_usd_per_million is None:
        return "no price"
    return "not known" if row.own_usd_per_million is None else "the same"
