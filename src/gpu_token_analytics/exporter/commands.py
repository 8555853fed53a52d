"""`gpu-tokens exporter`."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_token_analytics import logs
from gpu_token_analytics.settings import load
from gpu_token_analytics.signals import stoppable


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("exporter")(exporter)


def exporter(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="HTTP port; default HTTP_PORT, 0: a free one."),
    ] = None,
    audit_every: Annotated[
        float | None,
        typer.Option(help="Seconds between audits; default AUDIT_EVERY_SECONDS, 0: none."),
    ] = None,
) -> None:
    """Show Prometheus the ledger's money, the group's lag and the last audit, until stopped. One of
    it is enough.

    Its /metrics name tenants and their money (METRICS_MAX_NAMES of them): let Prometheus reach its
    port, and nobody else.

    Examples: `gpu-tokens exporter` | `gpu-tokens exporter --port 9108 --audit-every 900`
    """
    from gpu_token_analytics.exporter.service import run_exporter  # loads drivers: not for `--help`

    settings = load(http_port=port, audit_every_seconds=audit_every)
    logs.configure(settings)
    with stoppable() as stop:
        run_exporter(settings, stop)
