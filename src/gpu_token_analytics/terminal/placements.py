"""`gpu-tokens placements`: on which GPUs serving instances run."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpu_token_analytics.errors import InvalidRecord, SettingsError
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # pydantic is not loaded for `--help`
    from gpu_token_analytics.costs.entries import NewPlacement

placements_app = typer.Typer(
    help="On which GPUs serving instances (engines) run: append-only, effective-dated.",
    no_args_is_help=True,
)
CountedBy = Literal["any", "engine"]
Instance = Annotated[
    str,
    typer.Argument(
        help=(
            "A URL or host:port, namespace/pod, service.name@host, or service.name, as the source "
            "names it."
        )
    ),
]
_gpu = re.compile(r"[^\s,;]+")
_COLUMNS = ("instance", "gpus", "host", "model", "counted_by", "valid_from", "valid_to")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(placements_app, name="placements")


@placements_app.command("list")
def list_placements(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """Every row, newest valid-from first; then the instances whose GPUs are unknown.

    Examples: `gpu-tokens placements list` | `gpu-tokens placements list --json`
    """
    from gpu_token_analytics.costs.placements import placement, unplaced
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        rows = [placement(row) for row in desk.instances.rows()]
        unknown = unplaced(desk)
    if cli.printed({"placements": rows, "unplaced": unknown}, rows, as_json=as_json, as_csv=as_csv):
        return
    ranks = {
        "from": 0,
        "to": 3,
        "instance": 0,
        "GPUs": 0,
        "host": 2,
        "model": 1,
        "counted by": 4,
        "source": 5,
    }
    made = FittedTable(
        "placements",
        [Column(heading, rank, right=False) for heading, rank in ranks.items()],
        wide=wide,
    )
    for row in rows:
        gpus = ", ".join(row.gpus) or "unknown from here on"
        begin, end = cli.instant(row.valid_from), cli.instant(row.valid_to)
        made.add_row(
            begin,
            end,
            row.instance,
            gpus,
            row.host or "",
            row.model or "",
            row.counted_by,
            row.source,
        )
    cli.show(made)
    if not unknown:
        return
    ranks = {"instance": 0, "since": 2, "tenant": 3, "now": 1}
    title = "GPUs unknown: tokens are kept, money is not known"
    missing = FittedTable(
        title, [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide
    )
    for one in unknown:
        missing.add_row(
            one.instance,
            cli.instant(one.first_named_at),
            one.tenant,
            "placed since" if one.placed else "not placed",
        )
    cli.show(missing)


@placements_app.command("add")
def add_placement(
    instance: Instance,
    gpus: Annotated[
        list[str],
        typer.Option("--gpu", help="GPU UUID or host/index; repeatable, all of one kind."),
    ],
    host: Annotated[
        str | None, typer.Option(help="Where it runs; default: as the GPUs or the source say.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What it serves, for sources that do not say.")
    ] = None,
    counted_by: Annotated[
        CountedBy, typer.Option(help="engine: what clients tell of it is left out.")
    ] = "any",
    valid_from: Annotated[
        str | None, typer.Option("--from", help="Since when; default: now. May lie in the past.")
    ] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Append a row. It holds for what sources send from now on (within 5 s), also of earlier times;
    requests that are stored already keep the GPUs they have.

    Examples: `gpu-tokens placements add http://node1:8000 --gpu node1/0 --gpu node1/1` |
    `gpu-tokens placements add chat/vllm-0 --gpu GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b --model
    llama --counted-by engine`
    """
    fields: dict[str, Any] = {
        "instance": instance,
        "gpus": gpus,
        "host": host,
        "model": model,
        "counted_by": counted_by,
        "valid_from": valid_from and cli.time_of("--from", valid_from),
        "valid_to": valid_to and cli.time_of("--to", valid_to),
    }
    _append([fields], "", as_json)


@placements_app.command("remove")
def remove_placement(
    instance: Instance,
    valid_from: Annotated[
        str | None, typer.Option("--at", help="From when on; default: now.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Append a row without GPUs: from then on it is not known where the instance runs. What was
    before stays.

    Examples: `gpu-tokens placements remove http://node1:8000` | `gpu-tokens placements remove
    chat/vllm-0 --at 2026-07-01`
    """
    fields: dict[str, Any] = {
        "instance": instance,
        "gpus": [],
        "valid_from": valid_from and cli.time_of("--at", valid_from),
    }
    _append([fields], "", as_json)


@placements_app.command("import")
def import_placements(
    file: Annotated[
        Path,
        typer.Argument(help="JSON (an array of rows as POST /v1/placements takes them), or CSV."),
    ],
    as_json: cli.JsonOption = False,
) -> None:
    """Append the rows of a file, all or none; imported again it changes nothing. CSV has a header
    of the same names (instance, gpus, host, model, counted_by, valid_from, valid_to), GPUs with
    blanks, commas or semicolons between; without valid_from: since 1970.

    Examples: `gpu-tokens placements import placements.json` | `gpu-tokens placements import
    placements.csv`
    """
    _append(_rows_of(file), f"{file}: ", as_json)


def _append(rows: list[dict[str, Any]], where: str, as_json: bool) -> None:
    from gpu_token_analytics.costs.placements import append_placements, placement_fields

    many = len(rows) > 1 or where

    def made(now: datetime) -> list[NewPlacement]:
        placements = [
            _placement(row, f"{where}row {number}: " if many else "", now)
            for number, row in enumerate(rows, 1)
        ]
        for number, new in enumerate(placements, 1):
            try:
                with cli.refusals():
                    placement_fields(new)
            except SettingsError as error:
                raise SettingsError(
                    f"{where}row {number}: {error}" if many else str(error)
                ) from None
        return placements

    made(datetime.now(UTC))
    with cli.opened() as desk:
        answer = append_placements(desk, made(desk.now()), "cli")
    if as_json:
        cli.print_json(answer)
        return
    for row in answer.appended:
        gpus = ", ".join(row.gpus) or "unknown GPUs"
        typer.echo(
            f"appended: {visible(row.instance)} on {visible(gpus)} from "
            f"{cli.instant(row.valid_from)}"
        )
    if answer.unchanged:
        typer.echo(f"unchanged: {answer.unchanged}")


def _placement(row: dict[str, Any], where: str, now: datetime) -> NewPlacement:
    from pydantic import ValidationError

    from gpu_token_analytics.costs.entries import NewPlacement
    from gpu_token_analytics.rollups.spans import MINUTE, floor

    given = {name: value for name, value in row.items() if value is not None}
    try:
        return NewPlacement(**{"valid_from": floor(now, MINUTE), **given})
    except ValidationError as error:
        raise SettingsError(f"{where}{cli.first_fault(error)}") from None


def _rows_of(file: Path) -> list[dict[str, Any]]:
    """Rows of a file, without valid_from since 1970. Raises SettingsError; a file that cannot be
    opened is an OSError."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not UTF-8 text") from None
    rows = _csv_rows(file, text) if file.suffix.lower() == ".csv" else _json_rows(file, text)
    if not rows:
        raise SettingsError(f"{file} has no row")
    return [{"valid_from": datetime(1970, 1, 1, tzinfo=UTC), **row} for row in rows]


def _json_rows(file: Path, text: str) -> list[dict[str, Any]]:
    from gpu_token_analytics.wire.strict_json import members_once

    try:
        rows = json.loads(text, object_pairs_hook=members_once)
    except InvalidRecord as error:
        raise SettingsError(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{file} is not JSON ({error}); give an array of rows, or a file that ends in .csv"
        ) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(
            f'{file}: give an array of objects such as {{"instance": "node1:8000", "gpus": '
            f'["node1/0"]}}'
        )
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _csv_rows(file: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header, *lines = [[value.strip() for value in line] for line in reader if line] or [[]]
    except csv.Error as error:
        raise SettingsError(f"{file}: line {reader.line_num} is not CSV ({error})") from None
    unknown = [name for name in header if name not in _COLUMNS]
    if unknown or "instance" not in header:
        raise SettingsError(
            f"{file}: the header has {', '.join(unknown) or 'no instance'}; known are "
            f"{', '.join(_COLUMNS)}"
        )
    if twice := [name for name in _COLUMNS if header.count(name) > 1]:
        raise SettingsError(f"{file}: the header names {', '.join(twice)} twice")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            # Without its last value a row would say that nobody knows any more where its instance
            # runs.
            than = "more" if len(line) > len(header) else "fewer"
            raise SettingsError(f"{file}: row {number} has {than} values than the header has names")
        row: dict[str, Any] = {
            name: value for name, value in zip(header, line, strict=True) if value
        }
        rows.append({**row, "gpus": _gpu.findall(row.get("gpus", ""))})
    return rows
