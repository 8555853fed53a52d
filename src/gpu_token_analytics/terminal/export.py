"""`gpu-tokens export`: a range as one file, or all days as a folder that is kept current."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpu_token_analytics.costs import choices as p
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.terminal import support as cli
from gpu_token_analytics.terminal.money import currency_code

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from gpu_token_analytics.costs.desk import Desk
    from gpu_token_analytics.costs.query import CostQuery


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("export")(export)


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
        typer.Option(
            metavar="CODE",
            callback=currency_code,
            help="Also in this one (`gpu-tokens rates`), at the rate of each row's start.",
        ),
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
        _refuse_beside_days(out, file_format, time_zone, currency)
        ranged = any(_was_given(context, name) for name in ("start", "end", "last", "period"))
        asked = cli.asked_range(start, end, last, period) if ranged else None
        _export_days(
            days,
            asked,
            bucket,
            cli.groups(group_by or []),
            layout,
            billing_account,
            as_json=as_json,
        )
        return
    to_file = out is not None and str(out) != "-"
    if out is not None and not out.name:
        raise SettingsError(
            f"{out}: that is no file; give one such as costs.csv, or - for the screen"
        )
    ending = out.suffix.lstrip(".").lower() if out is not None and to_file else "csv"
    chosen = file_format or (
        p.ExportFormat(ending) if ending in list(p.ExportFormat) else p.ExportFormat.CSV
    )
    query_of = cli.query_of(
        cli.asked_range(start, end, last, period, time_zone),
        bucket,
        time_zone,
        cli.groups(group_by or []),
        {},
    )
    if out is None or not to_file:
        with cli.opened() as desk:
            for chunk in export_chunks(
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
                for chunk in export_chunks(desk, query, chosen, layout, billing_account, currency)
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
            f"{out}: {size:,} bytes of {chosen.value}, {query.start:%Y-%m-%dT%H:%MZ} to "
            f"{query.end:%Y-%m-%dT%H:%MZ}"
        )


def _was_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _refuse_beside_days(
    out: Path | None, file_format: p.ExportFormat | None, time_zone: str, currency: str | None
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
    if currency is not None:
        raise SettingsError(f"--currency {currency}: files of days are in USD; leave it out")


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

    query_of = cli.query_of(asked or cli.asked_range(None, None, "24h"), bucket, "UTC", groups, {})
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
        typer.echo(f"{folder}: {cli.counted(written, 'day')} written, {current:,} current")


def export_chunks(
    desk: Desk,
    query: CostQuery,
    file_format: p.ExportFormat,
    layout: p.ExportLayout,
    billing_account: str,
    currency: str | None = None,
) -> Iterator[bytes]:
    """A range as a file, piece by piece."""
    from gpu_token_analytics.costs.export import export_file

    return export_file(desk, query, file_format, layout, billing_account, currency=currency).chunks
