"""`gpu-tokens simulate`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Annotated

import typer

from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.simulate.disturb import Disturbances, disturb
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.simulate.run import Delivery, Sent
from gpu_token_analytics.simulate.sending import (
    DryRun,
    progress_bar,
    say_sent,
    send,
    settings_to_send,
)
from gpu_token_analytics.wire.events import MAX_AHEAD_SECONDS

_MAX_HOURS = 10 * 366 * 24
_MAX_DURATION_SECONDS = 366 * 86_400


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("simulate")(simulate)


def simulate(
    rate: Annotated[
        float, typer.Option(help="Requests per second over the whole fleet, on average.")
    ] = 10.0,
    hosts: Annotated[int, typer.Option(help="Hosts of the fleet.")] = 3,
    gpus_per_host: Annotated[int, typer.Option(help="GPUs of each host.")] = 4,
    duration: Annotated[
        float | None, typer.Option(help="Stop after this many seconds; default: never.")
    ] = None,
    start: Annotated[
        str, typer.Option(help="History: first moment, such as 2026-01-31T00:00:00Z.")
    ] = "",
    hours: Annotated[
        float | None, typer.Option(help="History: hours from --start, or until now.")
    ] = None,
    sample_interval: Annotated[
        float, typer.Option(help="Seconds between samples of a GPU; 0: no samples.")
    ] = 5.0,
    flat: Annotated[
        bool, typer.Option("--flat", help="The same rate all day, without peak and trough.")
    ] = False,
    late: Annotated[float, typer.Option(help="Share of events sent 1-15 minutes late.")] = 0.0,
    duplicates: Annotated[float, typer.Option(help="Share of events sent twice.")] = 0.0,
    broken: Annotated[
        float, typer.Option(help="Broken records added per event; they end in the dead letters.")
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same events; default: another one each time.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Send the events of a simulated GPU fleet: live in real time, or history as fast as Kafka
    takes it.

    The fleet shows everything the ledger tells apart: busy GPUs with batches, a tensor-parallel
    pair, models that are loaded but idle, GPUs with nothing loaded, and (from nine GPUs on) one
    busy without a known request. Load follows the hour of the day (UTC) and comes in bursts. Its
    GPU samples carry the source `seed`: declared, not measured.

    Examples: `gpu-tokens simulate --rate 20` | `gpu-tokens simulate --hours 24 --rate 5 --seed 1` |
    `gpu-tokens simulate --duration 60 --late 0.01 --duplicates 0.05 --broken 0.001`
    """
    history = bool(start) or hours is not None
    begin, seconds = _span(SystemClock().now(), start, hours, duration)
    seed = secrets.randbelow(2**32) if seed is None else seed
    settings = settings_to_send(dry_run)
    fleet = default_fleet(hosts, gpus_per_host, name_host=settings.host_at_site)
    load_ = Load(rate, 0.0) if flat else Load(rate)
    events = generate(
        fleet, begin, seconds, seed, load=load_, sample_interval_seconds=sample_interval or None
    )
    if seconds is not None:
        end = begin + timedelta(seconds=seconds)  # a request that ends later has not happened yet
        events = takewhile(lambda event: event.ts <= end, events)
    deliveries = disturb(events, Disturbances(late, duplicates, broken), seed)
    typer.echo(
        f"{len(fleet.gpus)} GPUs on {len(fleet.hosts)} hosts ({fleet.price_per_hour_usd:.2f} $/h), "
        f"{rate:g} requests/s, "
        f"seed {seed}, from {begin:%Y-%m-%d %H:%M:%S} UTC" + ("" if history else ", live"),
        err=True,
    )
    with progress_bar("simulated", None if not history else round(seconds or 0)) as bar:

        def show(sent: Sent, delivery: Delivery) -> None:
            if sent.records % 200 == 0 or not history:
                elapsed = delivery.at_us / 1e6 - begin.timestamp()
                bar.update(bar.task_ids[0], completed=elapsed if history else sent.requests)

        speed = 0.0 if history else 1.0
        sent = send(deliveries, "simulate", settings, dry_run, speed, show)
    say_sent(sent)


def _span(
    now: datetime, start: str, hours: float | None, duration: float | None
) -> tuple[datetime, float | None]:
    """First moment and length in seconds (None: endless). Raises SettingsError naming the
    option."""
    for name, value, most in (
        ("--hours", hours, _MAX_HOURS),
        ("--duration", duration, _MAX_DURATION_SECONDS),
    ):
        if value is not None and not 0 < value <= most:
            raise SettingsError(f"{name} {value} cannot be used; give more than 0, at most {most}")
    if not start and hours is None:
        return now, duration
    if duration is not None:
        raise SettingsError(
            "--duration is for live simulation; with --start or --hours give the length as --hours"
        )
    try:
        begin = datetime.fromisoformat(start) if start else now - timedelta(hours=hours or 24)
        begin = begin.astimezone(UTC) if begin.tzinfo else begin
    except (ValueError, OverflowError):
        raise SettingsError(
            f"--start {start!r} is not a time; give one such as 2026-01-31T00:00:00Z"
        ) from None
    if begin.tzinfo is None:
        raise SettingsError(f"--start {start!r} has no zone; add one, such as {start}Z for UTC")
    seconds = 3600 * hours if hours is not None else min(86_400.0, (now - begin).total_seconds())
    ahead = timedelta(seconds=MAX_AHEAD_SECONDS)
    if seconds <= 0 or timedelta(seconds=seconds) > now + ahead - begin:
        raise SettingsError(
            f"the history would end after now ({now:%Y-%m-%dT%H:%M:%SZ}), and events of the future "
            "are refused; "
            "give an earlier --start or fewer --hours"
        )
    return begin, seconds
