"""`gpu-tokens backup`, `gpu-tokens restore` and `gpu-tokens backup-key`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gpu_token_analytics import logs
from gpu_token_analytics.running_demo import settings_beside_demo

_Json = Annotated[
    bool, typer.Option("--json", help="The manifest as one JSON object instead of text.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("backup")(back_up_store)
    app.command("restore")(restore_store)
    app.command("backup-key")(new_backup_key)


def back_up_store(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="Encrypt for this age public key (age1...); repeatable."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Copy the whole store as of one moment into files: raw events, ledger, prices, inventory,
    hashed API keys.

    Nothing has to be stopped on a replica set; on a standalone mongod a backup during which
    somebody wrote is refused. The files are what `mongodump --gzip` writes.

    Examples: `gpu-tokens backup /backups/2026-01-31` | `gpu-tokens backup DIR --recipient age1...`
    """
    from gpu_token_analytics.tools.backup import back_up

    settings = settings_beside_demo()
    logs.configure(settings)
    manifest = back_up(settings, folder, recipient or [], _progress(as_json))
    if as_json:
        typer.echo(json.dumps(asdict(manifest)))
        return
    how = "encrypted" if recipient else "not encrypted: --recipient encrypts"
    typer.echo(
        f"{manifest.documents:,} documents in {folder} ({how}), consistent by "
        f"{manifest.consistency}"
    )


def restore_store(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `gpu-tokens backup` wrote.")
    ],
    identity: Annotated[
        Path | None, typer.Option(help="File with the age key, when the backup is encrypted.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Put a backup into the empty database of MONGODB_URI and MONGODB_DATABASE, and compare every
    document.

    Run `gpu-tokens audit` afterwards: it computes the restored ledger again from the restored raw
    events.

    Example: `MONGODB_DATABASE=restored gpu-tokens restore /backups/2026-01-31 &&
    MONGODB_DATABASE=restored gpu-tokens audit`
    """
    from gpu_token_analytics.tools.backup import restore

    settings = settings_beside_demo()
    logs.configure(settings)
    manifest = restore(settings, folder, identity, _progress(as_json))
    if as_json:
        typer.echo(json.dumps(asdict(manifest)))
        return
    typer.echo(
        f"{manifest.documents:,} documents of {manifest.made_at} are in "
        f"{settings.mongodb_database}, each as in the backup"
    )


def new_backup_key(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where the key goes; keep it apart from the backups."),
    ],
) -> None:
    """Make an age key for encrypted backups; prints its public half, which is all that `backup`
    needs.

    Example: `gpu-tokens backup DIR --recipient "$(gpu-tokens backup-key backup.key)"`
    """
    from gpu_token_analytics.tools.backup import new_key

    typer.echo(new_key(file))


def _progress(quiet: bool) -> Callable[[str, int], None]:
    def say(name: str, documents: int) -> None:
        if not quiet:
            typer.echo(f"{name:<16} {documents:>12,} documents", err=True)

    return say
