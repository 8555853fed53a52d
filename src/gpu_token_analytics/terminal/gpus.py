"""`gpu-tokens gpus`: GPUs that are known without samples."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # nothing of answers is loaded for `--help`
    from gpu_token_analytics.costs.answers import Declaration

gpus_app = typer.Typer(
    help="GPUs that are known without samples: declared, listed, retired.", no_args_is_help=True
)

GpuArgument = Annotated[
    str, typer.Argument(metavar="GPU", help="A UUID, or host/index, as requests name it.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(gpus_app, name="gpus")


@gpus_app.command("list")
def list_gpus(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """GPUs that are known, by samples or declared, and the names that requests gave to GPUs nobody
    told of. --csv has a row for each, and which of the three it is.

    Examples: `gpu-tokens gpus list` | `gpu-tokens gpus list --json`
    """
    from msgspec.structs import asdict

    from gpu_token_analytics.costs.declarations import declared_gpus
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        sampled = desk.reads.gpus()
        body = declared_gpus(desk)
    rows = [
        {"gpu": row["_id"], "host": row.get("host"), "name": row.get("name")} for row in sampled
    ]
    if as_json:
        cli.print_json({"sampled": rows, **asdict(body)})
        return
    if as_csv:
        cli.print_csv(
            [
                *({"known_by": "samples", **row} for row in rows),
                *({"known_by": "declaration", **asdict(row)} for row in body.declarations),
                *({"known_by": "nobody", **asdict(row)} for row in body.unknown),
            ]
        )
        return
    ranks = {"GPU": 0, "host": 2, "name": 3, "known by": 1, "from": 4, "to": 5}
    made = FittedTable(
        "GPUs", [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide
    )
    for row in sampled:
        made.add_row(row["_id"], row.get("host") or "", row.get("name") or "", "samples", "", "")
    for declared in body.declarations:
        made.add_row(
            declared.gpu,
            declared.host,
            declared.name or "",
            "declaration",
            cli.instant(declared.valid_from),
            cli.instant(declared.valid_to),
        )
    cli.show(made)
    if not body.unknown:
        return
    ranks = {"name": 0, "tenant": 1, "first named": 3, "may be": 2}
    title = f"{body.unknown_count:,} unknown: their requests have no money"
    unknown = FittedTable(
        title, [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide
    )
    for name in body.unknown:
        unknown.add_row(
            name.name, name.tenant, cli.instant(name.first_named_at), ", ".join(name.may_be)
        )
    cli.show(unknown)


@gpus_app.command("declare")
def declare_gpu(
    gpu: GpuArgument,
    host: Annotated[str, typer.Option(help="Where it is.")],
    name: Annotated[str | None, typer.Option(help="GPU name, as price rows have it.")] = None,
    price: Annotated[
        str | None,
        typer.Option(help="USD per hour: also append a price row for this GPU and this time."),
    ] = None,
    valid_from: Annotated[
        str | None, typer.Option("--from", help="First minute; default: since ever.")
    ] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Declare a GPU that sends no samples, so that its requests get money; those that are stored
    already, too.

    Examples: `gpu-tokens gpus declare node1/0 --host node1 --name "NVIDIA H200"` |
    `gpu-tokens gpus declare GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b --host node1 --price 2.49
    --from 2026-01-01`
    """
    from gpu_token_analytics.costs.declarations import check_declaration, declare_gpu
    from gpu_token_analytics.costs.entries import NewDeclaration

    with cli.entry("the GPU cannot be declared"):
        new = NewDeclaration(
            gpu=gpu,
            host=host,
            name=name,
            usd_per_hour=None if price is None else cli.decimal_of("--price", price),
            valid_from=None if valid_from is None else cli.time_of("--from", valid_from),
            valid_to=None if valid_to is None else cli.time_of("--to", valid_to),
        )
        check_declaration(new)
    with cli.opened() as desk:
        _show_declaration(declare_gpu(desk, new, "cli"), as_json)


@gpus_app.command("retire")
def retire_gpu(
    gpu: GpuArgument,
    at: Annotated[
        str | None, typer.Option("--at", help="From which minute on; default: this one.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """End a declaration: from then on the GPU is not known, unless samples tell of it. What was
    paid before stays.

    Examples: `gpu-tokens gpus retire node1/0` | `gpu-tokens gpus retire node1/0 --at 2026-07-01`
    """
    from gpu_token_analytics.costs.declarations import retire_gpu as end_declaration
    from gpu_token_analytics.costs.entries import Retirement
    from gpu_token_analytics.rollups.spans import MINUTE, floor

    asked = None if at is None else cli.time_of("--at", at)

    def ended(now: datetime) -> Retirement:
        with cli.entry("the declaration cannot be ended"):
            return Retirement(gpu=gpu, valid_to=asked or floor(now, MINUTE))

    ended(datetime.now(UTC))
    with cli.opened() as desk:
        _show_declaration(end_declaration(desk, ended(desk.now())), as_json)


@gpus_app.command("undeclare")
def undeclare_gpu(gpu: GpuArgument, as_json: cli.JsonOption = False) -> None:
    """Take a declaration back that was a mistake: as if it had never been made.

    Examples: `gpu-tokens gpus undeclare node1/0` | `gpu-tokens gpus undeclare node1/0 --json`
    """
    from gpu_token_analytics.costs.declarations import withdraw_gpu
    from gpu_token_analytics.costs.entries import Withdrawal

    with cli.entry("the declaration cannot be taken back"):
        which = Withdrawal(gpu=gpu)
    with cli.opened() as desk:
        _show_declaration(withdraw_gpu(desk, which), as_json)


def _show_declaration(row: Declaration, as_json: bool) -> None:
    if as_json:
        cli.print_json(row)
        return
    if row.withdrawn:
        typer.echo(f"taken back: {visible(row.gpu)} is known by samples only, if there are any")
        return
    span = (
        f"from {cli.instant(row.valid_from) or 'ever'} to "
        f"{cli.instant(row.valid_to) or 'further notice'}"
    )
    typer.echo(
        f"declared: {visible(row.gpu)} on {visible(row.host)} {span}; the ledger follows within "
        "seconds"
    )
