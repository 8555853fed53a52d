"""`gpu-tokens schemas`: the contracts as JSON Schema files, written from the types: events that
come in, cells that go out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gpu_token_analytics.warehouse import record as ledger_record
from gpu_token_analytics.wire.json_schemas import json_schemas

schemas_app = typer.Typer(help="The contracts as JSON Schema (2020-12).", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(schemas_app, name="schemas")


def contracts() -> dict[str, dict[str, Any]]:
    """JSON Schema of every contract, by its tag."""
    return {**json_schemas(), ledger_record.TAG: ledger_record.json_schema()}


def file_name(tag: str) -> str:
    """The file of one contract, such as `token.usage.v1.json`."""
    return f"{tag}.json"


def rendered(schema: dict[str, Any]) -> str:
    """One schema as the text of its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


@schemas_app.command("write")
def schemas_write(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders to write to; made where missing."),
    ],
) -> None:
    """Write one file per contract into each folder.

    Example: `gpu-tokens schemas write ./schemas`
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for tag, schema in contracts().items():
            path = folder / file_name(tag)
            path.write_text(rendered(schema), encoding="utf-8")
            typer.echo(str(path))


@schemas_app.command("show")
def schemas_show(
    tag: Annotated[str, typer.Argument(help="Such as token.usage.v1; none: all their names.")] = "",
) -> None:
    """Print one contract, or the names of all."""
    schemas = contracts()
    if tag not in schemas:
        for name in schemas:
            typer.echo(name)
        raise typer.Exit(0 if not tag else 2)
    typer.echo(rendered(schemas[tag]), nl=False)
