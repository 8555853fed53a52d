"""`gpu-tokens hints`: what could be given back, put together or scaled down, and what jumped."""

from __future__ import annotations

import typer

from gpu_token_analytics.sentences import worded
from gpu_token_analytics.terminal import money
from gpu_token_analytics.terminal import support as cli


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("hints")(show_hints)


def show_hints(
    time_zone: cli.ZoneOption = "UTC",
    currency: money.CurrencyOption = None,
    wide: cli.WideOption = False,
    as_json: cli.JsonOption = False,
    as_csv: cli.CsvOption = False,
) -> None:
    """Idle GPUs to give back, GPUs to put together, models to scale down at quiet hours; prices,
    coverage and spending that jumped. With the money of the last 7 and 30 days; the thresholds are
    in --json and docs/idle.md.

    Examples: `gpu-tokens hints` | `gpu-tokens hints --tz Europe/Berlin --json`
    """
    from gpu_token_analytics.costs.hints import hints
    from gpu_token_analytics.costs.questions import check_zone
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.refusals():
        check_zone(time_zone)
    with cli.opened() as desk:
        body = hints(desk, time_zone)
        shown = money.shown_in(desk, currency)
    if cli.printed(body, body.hints, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("hint", right=False),
        Column("of", right=False),
        Column(f"{shown.code} in 7 days"),
        Column("in 30 days", 1),
        Column("GPUs", 2),
        Column("says", 3, right=False),
    )
    made = FittedTable(
        f"hints, as of {cli.instant(body.to)}, {body.gpus} GPUs",
        columns,
        wide=wide,
        empty="nothing stands out; `gpu-tokens hints --json` says what was looked for",
    )
    unknown = body.gpus - body.gpus_known
    notes = (
        [
            f"too little of the last 7 days is known of {unknown:,} of {body.gpus:,} GPUs to say "
            "whether they are needed"
        ]
        if unknown
        else []
    )
    for hint in body.hints:
        amounts = map(shown.amount, (hint.week_nusd, hint.month_nusd))
        said = worded(hint.sentence, shown.worded)
        made.add_row(hint.kind, hint.subject, *amounts, str(len(hint.gpus) or ""), said)
    cli.show(made, *notes, *shown.notes())
