"""`gpu-tokens prices`, `gpu-tokens gpus` and `gpu-tokens keys`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.terminal import support as cli

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from pydantic import ValidationError

    from gpu_token_analytics.api.keys import ApiKey, KeyScope, KeyStore

prices_app = typer.Typer(help="The price book: append-only, effective-dated.", no_args_is_help=True)
gpus_app = typer.Typer(help="GPUs that are known without samples: declared, listed, retired.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: created, listed, rotated, revoked. Secrets are shown once.", no_args_is_help=True)

Scope = Literal["gpu", "host", "name", "default"]
Mode = Literal["on_demand", "reserved", "spot", "owned"]
GpuArgument = Annotated[str, typer.Argument(metavar="GPU", help="A UUID, or host/index, as requests name it.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The 8 characters after `gta_`, as `keys list` shows them.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(prices_app, name="prices")
    app.add_typer(gpus_app, name="gpus")
    app.add_typer(keys_app, name="keys")


@prices_app.command("list")
def list_prices(wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False) -> None:
    """Every row, newest valid-from first.

    Examples: `gpu-tokens prices list` | `gpu-tokens prices list --json`
    """
    from gpu_token_analytics.api.handlers.prices import known_gpus, price
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as at:
        known = known_gpus(at.services)
        rows = [price(row, known) for row in at.services.prices.rows()]
    if as_json:
        cli.print_json({"prices": rows})
        return
    if as_csv:
        cli.print_csv(rows)
        return
    columns = (
        Column("from", right=False),
        Column("to", 2, right=False),
        Column("scope", right=False),
        Column("key", right=False),
        Column("$/h"),
        Column("mode", 3, right=False),
        Column("source", 4, right=False),
        Column("", 1, right=False),
    )
    made = FittedTable("price book", columns, wide=wide)
    for row in rows:
        remarks = ["being applied"] * row["pending"] + ["no GPU known has this key"] * (not row["matches"])
        made.add_row(
            row["valid_from"],
            row["valid_to"] or "",
            row["scope"],
            row["key"] or "",
            row["usd_per_hour"],
            row["mode"],
            row["source"],
            ", ".join(remarks),
        )
    cli.show(made)


@prices_app.command("add")
def add_price(
    usd_per_hour: Annotated[str, typer.Argument(help="USD per GPU-hour, such as 2.49.")],
    scope: Annotated[Scope, typer.Option(help="What it is for; the most specific row in force wins.")] = "default",
    key: Annotated[str | None, typer.Option(help="GPU id, host or GPU name.")] = None,
    mode: Annotated[Mode, typer.Option(help="How the GPU is paid for.")] = "on_demand",
    valid_from: Annotated[str | None, typer.Option("--from", help="Since when; default: now. May lie in the past.")] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    usd_per_kwh: Annotated[str | None, typer.Option(help="With --mode owned: energy is paid on top.")] = None,
    pue: Annotated[float | None, typer.Option(help="With --mode owned: power usage effectiveness.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Append a row. With a --from in the past, open cells are computed again and final ones get corrections, as far back as raw
    events are kept (RAW_RETENTION_DAYS).

    Examples: `gpu-tokens prices add 2.49` |
    `gpu-tokens prices add 1.74 --scope name --key "NVIDIA H200" --mode reserved --from 2026-01-01`
    """
    from pydantic import ValidationError

    from gpu_token_analytics.api.handlers.prices import check_price, known_gpus, price, price_fields
    from gpu_token_analytics.api.models.prices import NewPrice
    from gpu_token_analytics.rollups.spans import MINUTE, floor

    since = None if valid_from is None else cli.time_of("--from", valid_from)
    until = None if valid_to is None else cli.time_of("--to", valid_to)

    def priced(now: datetime) -> NewPrice:
        try:
            new = NewPrice(
                scope=scope,
                key=key,
                usd_per_hour=Decimal(usd_per_hour),
                mode=mode,
                usd_per_kwh=None if usd_per_kwh is None else Decimal(usd_per_kwh),
                pue=pue,
                valid_from=since or floor(now, MINUTE),
                valid_to=until,
            )
        except (ValidationError, InvalidOperation) as error:
            raise SettingsError(f"the price cannot be used: {_first(error)}") from None
        with cli.problems():
            check_price(new)
        return new

    priced(datetime.now(UTC))
    with cli.opened() as at:
        now = at.services.now()
        new = priced(now)
        row = price(at.services.prices.append(**price_fields(new), created_at=now, source="cli"), known_gpus(at.services))
        if not row["matches"]:
            typer.echo(f"warning: no GPU known today has {scope}={key!r}, so the row prices nothing yet", err=True)
    if as_json:
        cli.print_json(row)
    else:
        key = visible(row["key"] or "")
        typer.echo(f"appended: {row['usd_per_hour']} USD/h, {row['scope']} {key} from {row['valid_from']}")


@gpus_app.command("list")
def list_gpus(as_json: cli.JsonOption = False, wide: cli.WideOption = False) -> None:
    """GPUs that are known, by samples or declared, and the names that requests gave to GPUs nobody told of.

    Examples: `gpu-tokens gpus list` | `gpu-tokens gpus list --json`
    """
    from gpu_token_analytics.api.handlers.declarations import declarations_body
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as at:
        sampled = at.services.reads.gpus()
        body = declarations_body(at.services)
    if as_json:
        rows = [{"gpu": row["_id"], "host": row.get("host"), "name": row.get("name")} for row in sampled]
        cli.print_json({"sampled": rows, **body})
        return
    ranks = {"GPU": 0, "host": 2, "name": 3, "known by": 1, "from": 4, "to": 5}
    made = FittedTable("GPUs", [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide)
    for row in sampled:
        made.add_row(row["_id"], row.get("host") or "", row.get("name") or "", "samples", "", "")
    for row in body["declarations"]:
        made.add_row(row["gpu"], row["host"], row["name"] or "", "declaration", row["valid_from"] or "", row["valid_to"] or "")
    cli.show(made)
    if not body["unknown"]:
        return
    ranks = {"name": 0, "tenant": 1, "first named": 3, "may be": 2}
    title = f"{body['unknown_count']:,} unknown: their requests have no money"
    unknown = FittedTable(title, [Column(heading, rank, right=False) for heading, rank in ranks.items()], wide=wide)
    for row in body["unknown"]:
        unknown.add_row(row["name"], row["tenant"], row["first_named_at"], ", ".join(row["may_be"]))
    cli.show(unknown)


@gpus_app.command("declare")
def declare_gpu(
    gpu: GpuArgument,
    host: Annotated[str, typer.Option(help="Where it is.")],
    name: Annotated[str | None, typer.Option(help="GPU name, as price rows have it.")] = None,
    price: Annotated[str | None, typer.Option(help="USD per hour: also append a price row for this GPU and this time.")] = None,
    valid_from: Annotated[str | None, typer.Option("--from", help="First minute; default: since ever.")] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Declare a GPU that sends no samples, so that its requests get money; those that are stored already, too.

    Examples: `gpu-tokens gpus declare node1/0 --host node1 --name "NVIDIA H200"` |
    `gpu-tokens gpus declare GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b --host node1 --price 2.49 --from 2026-01-01`
    """
    from pydantic import ValidationError

    from gpu_token_analytics.api.handlers.declarations import check_declaration, declared
    from gpu_token_analytics.api.models.declarations import NewDeclaration

    try:
        new = NewDeclaration(
            gpu=gpu,
            host=host,
            name=name,
            usd_per_hour=None if price is None else Decimal(price),
            valid_from=None if valid_from is None else cli.time_of("--from", valid_from),
            valid_to=None if valid_to is None else cli.time_of("--to", valid_to),
        )
    except (ValidationError, InvalidOperation) as error:
        raise SettingsError(f"the GPU cannot be declared: {_first(error)}") from None
    with cli.problems():
        check_declaration(new)
    with cli.opened() as at:
        _show_declaration(declared(at.services, new, "cli"), as_json)


@gpus_app.command("retire")
def retire_gpu(
    gpu: GpuArgument,
    at: Annotated[str | None, typer.Option("--at", help="From which minute on; default: this one.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """End a declaration: from then on the GPU is not known, unless samples tell of it. What was paid before stays.

    Examples: `gpu-tokens gpus retire node1/0` | `gpu-tokens gpus retire node1/0 --at 2026-07-01`
    """
    from gpu_token_analytics.api.handlers.declarations import retired
    from gpu_token_analytics.api.models.declarations import Retirement
    from gpu_token_analytics.rollups.spans import MINUTE, floor

    asked = None if at is None else cli.time_of("--at", at)
    with cli.opened() as found:
        end = asked or floor(found.services.now(), MINUTE)
        _show_declaration(retired(found.services, Retirement(gpu=gpu, valid_to=end)), as_json)


@gpus_app.command("undeclare")
def undeclare_gpu(gpu: GpuArgument, as_json: cli.JsonOption = False) -> None:
    """Take a declaration back that was a mistake: as if it had never been made.

    Examples: `gpu-tokens gpus undeclare node1/0` | `gpu-tokens gpus undeclare node1/0 --json`
    """
    from gpu_token_analytics.api.handlers.declarations import withdrawn
    from gpu_token_analytics.api.models.declarations import Withdrawal

    with cli.opened() as at:
        _show_declaration(withdrawn(at.services, Withdrawal(gpu=gpu)), as_json)


def _show_declaration(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        cli.print_json(row)
        return
    if row["withdrawn"]:
        typer.echo(f"taken back: {visible(row['gpu'])} is known by samples only, if there are any")
        return
    span = f"from {row['valid_from'] or 'ever'} to {row['valid_to'] or 'further notice'}"
    typer.echo(f"declared: {visible(row['gpu'])} on {visible(row['host'])} {span}; the ledger follows within seconds")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it; for the list.")],
    scopes: Annotated[list[str] | None, typer.Option("--scope", help="read, ingest, admin; repeatable.")] = None,
    tenant: Annotated[str | None, typer.Option(help="It sees and sends only this tenant's data.")] = None,
    days: Annotated[int | None, typer.Option("--expires-in-days", min=1, max=3650, help="Default: never.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Create a key and print it, this once.

    Examples: `gpu-tokens keys create grafana` | `gpu-tokens keys create team-a --tenant team-a --scope read --scope ingest`
    """
    allowed = _scopes(scopes or ["read"])
    with cli.opened() as at:
        now = at.services.now()
        expires = None if days is None else now + timedelta(days=days)
        try:
            key, text = _keys(at).create(name, allowed, tenant, now, expires)
        except ValueError as error:
            raise SettingsError(str(error)) from None
    _show_new(key, text, as_json)


@keys_app.command("list")
def list_keys(wide: cli.WideOption = False, as_json: cli.JsonOption = False, as_csv: cli.CsvOption = False) -> None:
    """All keys, without their secrets.

    Examples: `gpu-tokens keys list` | `gpu-tokens keys list --json`
    """
    from gpu_token_analytics.terminal.console import Column, FittedTable

    with cli.opened() as at:
        keys = _keys(at).keys()
        now = at.services.now()
    if as_json:
        cli.print_json({"keys": [_info(key) for key in keys]})
        return
    if as_csv:
        cli.print_csv(_info(key) for key in keys)
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
            key.id, key.name, ", ".join(sorted(key.scopes)), key.tenant or "all", f"{key.created_at:%Y-%m-%d}", used, state
        )
    cli.show(made)


@keys_app.command("rotate")
def rotate_key(
    key: KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, max=720, help="How long the old key still works.")] = 24.0,
    as_json: cli.JsonOption = False,
) -> None:
    """Make a successor with the same name, scopes and tenant; the old key works a while longer.

    Examples: `gpu-tokens keys rotate 0a1b2c3d` | `gpu-tokens keys rotate 0a1b2c3d --overlap-hours 0`
    """
    with cli.opened() as at:
        try:
            new, text = _keys(at).rotate(_id(key), at.services.now(), timedelta(hours=overlap_hours))
        except KeyError:
            raise SettingsError(f"KEY={key}: no usable key of that id; `gpu-tokens keys list` shows them") from None
    _show_new(new, text, as_json)


@keys_app.command("revoke")
def revoke_key(key: KeyId, as_json: cli.JsonOption = False) -> None:
    """Stop a key for good; running servers follow within seconds.

    Examples: `gpu-tokens keys revoke 0a1b2c3d` | `gpu-tokens keys revoke 0a1b2c3d --json`
    """
    with cli.opened() as at:
        if not _keys(at).revoke(_id(key), at.services.now()):
            raise SettingsError(f"KEY={key}: no key of that id; `gpu-tokens keys list` shows them")
    if as_json:
        cli.print_json({"key": _id(key), "revoked": True})
    else:
        typer.echo(f"{_id(key)} is revoked")


def _show_new(key: ApiKey, text: str, as_json: bool) -> None:
    if as_json:
        cli.print_json({**_info(key), "secret": text})
        return
    typer.echo(text)
    typer.echo("Keep it now: it is not shown again. Use it as `Authorization: Bearer ...`.", err=True)


def _keys(at: cli.Opened) -> KeyStore:
    from gpu_token_analytics.api.keys import KeyStore

    return KeyStore(at.store.database)


def _scopes(names: list[str]) -> frozenset[KeyScope]:
    from gpu_token_analytics.api.keys import KeyScope

    try:
        return frozenset(KeyScope(name) for name in names)
    except ValueError as error:
        raise SettingsError(f"--scope: {error}; give {', '.join(KeyScope)}") from None


def _info(key: ApiKey) -> dict[str, Any]:
    from gpu_token_analytics.api.models.access import KeyInfo

    return KeyInfo(
        key=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        tenant=key.tenant,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    ).model_dump(mode="json")


def _id(text: str) -> str:
    """`gta_0a1b2c3d_...` or `0a1b2c3d`."""
    return text.removeprefix("gta_")[:8]


def _first(error: ValidationError | InvalidOperation) -> str:
    if isinstance(error, InvalidOperation):
        return "give prices as decimal numbers, such as 2.49"
    found = error.errors()[0]
    return f"{'.'.join(str(part) for part in found['loc'])}={found['input']}: {found['msg']}"
