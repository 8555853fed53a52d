"""`gpu-tokens keys`: API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from gpu_token_analytics.api.keys import ApiKey, KeyScope, KeyStore
    from gpu_token_analytics.costs.answers import KeyInfo
    from gpu_token_analytics.costs.desk import Desk

keys_app = typer.Typer(
    help="API keys: created, listed, rotated, revoked. Secrets are shown once.",
    no_args_is_help=True,
)

KeyId = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The 8 characters after `gta_`, as `keys list` shows them."),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it; for the list.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, ingest, placements, admin; repeatable."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="It sees and sends only this tenant's data.")
    ] = None,
    days: Annotated[
        int | None, typer.Option("--expires-in-days", min=1, max=3650, help="Default: never.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Create a key and print it, this once.

    Examples: `gpu-tokens keys create grafana` | `gpu-tokens keys create team-a --tenant team-a
    --scope read --scope ingest`
    """
    allowed = _scopes(scopes or ["read"])
    with cli.opened() as desk:
        now = desk.now()
        expires = None if days is None else now + timedelta(days=days)
        try:
            key, text = _keys(desk).create(name, allowed, tenant, now, expires)
        except ValueError as error:
            raise SettingsError(str(error)) from None
    _show_new(key, text, as_json)


@keys_app.command("list")
def list_keys(
    wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False
) -> None:
    """All keys, without their secrets.

    Examples: `gpu-tokens keys list` | `gpu-tokens keys list --json`
    """
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as desk:
        keys = _keys(desk).keys()
        now = desk.now()
    shown = [_info(key) for key in keys]
    if cli.printed({"keys": shown}, shown, as_json=as_json, as_csv=as_csv):
        return
    columns = (
        Column("key", right=False),
        Column("name", right=False),
        Column("scopes", 2, right=False),
        Column("tenant", 3, right=False),
        Column("created", 5, right=False),
        Column("last used", 4, right=False),
        Column("state", right=False),
    )
    made = FittedTable("API keys", columns, wide=wide)
    for key in keys:
        state = "active" if key.usable(now) else "revoked" if key.revoked_at else "expired"
        if key.usable(now) and key.revoked_at:
            state = f"until {key.revoked_at:%Y-%m-%d %H:%M}Z"
        used = "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}Z"
        made.add_row(
            key.id,
            key.name,
            ", ".join(sorted(key.scopes)),
            key.tenant or "all",
            f"{key.created_at:%Y-%m-%d}",
            used,
            state,
        )
    cli.show(made)


@keys_app.command("rotate")
def rotate_key(
    key: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, help="How long the old key still works.")
    ] = 24.0,
    as_json: cli.JsonOption = False,
) -> None:
    """Make a successor with the same name, scopes and tenant; the old key works a while longer.

    Examples: `gpu-tokens keys rotate 0a1b2c3d` | `gpu-tokens keys rotate 0a1b2c3d --overlap-hours
    0`
    """
    with cli.opened() as desk:
        try:
            new, text = _keys(desk).rotate(_id(key), desk.now(), timedelta(hours=overlap_hours))
        except KeyError:
            raise SettingsError(
                f"KEY={_id(key)}: no usable key of that id; `gpu-tokens keys list` shows them"
            ) from None
    _show_new(new, text, as_json)


@keys_app.command("revoke")
def revoke_key(key: KeyId, as_json: cli.JsonOption = False) -> None:
    """Stop a key for good; running servers follow within seconds.

    Examples: `gpu-tokens keys revoke 0a1b2c3d` | `gpu-tokens keys revoke 0a1b2c3d --json`
    """
    with cli.opened() as desk:
        if not _keys(desk).revoke(_id(key), desk.now()):
            raise SettingsError(
                f"KEY={_id(key)}: no key of that id; `gpu-tokens keys list` shows them"
            )
    if as_json:
        cli.print_json({"key": _id(key), "revoked": True})
    else:
        typer.echo(f"{_id(key)} is revoked")


def _show_new(key: ApiKey, text: str, as_json: bool) -> None:
    if as_json:
        from msgspec.structs import asdict

        cli.print_json({**asdict(_info(key)), "secret": text})
        return
    typer.echo(text)
    typer.echo(
        "Keep it now: it is not shown again. Use it as `Authorization: Bearer ...`.", err=True
    )


def _keys(desk: Desk) -> KeyStore:
    from gpu_token_analytics.api.keys import KeyStore

    return KeyStore(desk.store.database)


def _scopes(names: list[str]) -> frozenset[KeyScope]:
    from gpu_token_analytics.api.keys import KeyScope

    try:
        return frozenset(KeyScope(name) for name in names)
    except ValueError as error:
        raise SettingsError(f"--scope: {error}; give {', '.join(KeyScope)}") from None


def _info(key: ApiKey) -> KeyInfo:
    from gpu_token_analytics.costs.answers import KeyInfo

    return KeyInfo(
        key=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        tenant=key.tenant,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def _id(text: str) -> str:
    """`gta_0a1b2c3d_...` or `0a1b2c3d`."""
    return text.removeprefix("gta_")[:8]
