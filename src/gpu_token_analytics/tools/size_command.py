"""`gpu-tokens size`: what a fleet needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from gpu_token_analytics.terminal.support import print_csv
from gpu_token_analytics.tools.sizing import Load, Size, constants, size


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("size")(size_of_fleet)


def size_of_fleet(
    gpus: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="GPUs, or MIG slices, that are sampled.")
    ],
    requests_per_second: Annotated[
        float,
        typer.Option(
            "--requests", min=0, max=1e8, help="Requests per second of the whole fleet, on average."
        ),
    ],
    sample_interval_seconds: Annotated[
        float,
        typer.Option("--interval", min=0.1, max=59, help="Seconds between two samples of a GPU."),
    ] = 5.0,
    raw_days: Annotated[float, typer.Option(min=1, max=3650, help="RAW_RETENTION_DAYS.")] = 30.0,
    kafka_hours: Annotated[
        float, typer.Option(min=1, max=24 * 3650, help="KAFKA_RETENTION_HOURS.")
    ] = 168.0,
    ledger_days: Annotated[
        float, typer.Option(min=1, max=3650, help="For how long cells and sums are to fit.")
    ] = 365.0,
    copies: Annotated[
        int, typer.Option(min=1, max=7, help="Copies of both stores; 1: no replication.")
    ] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text.")
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="One row with every quantity instead of text.")
    ] = False,
) -> None:
    """Partitions, processors, disk and memory for so many GPUs and requests, from constants that
    the bench measured.

    Asks nobody. Traffic is taken to be five times its average at its highest; every machine is
    planned half busy.

    Examples: `gpu-tokens size --gpus 200 --requests 100` | `gpu-tokens size --gpus 5000 --requests
    2000 --raw-days 45 --json`
    """
    load = Load(
        gpus,
        requests_per_second,
        sample_interval_seconds,
        kafka_hours,
        raw_days,
        ledger_days,
        copies,
    )
    sized, measured = size(load), constants()
    if as_json:
        typer.echo(
            json.dumps(
                {"load": asdict(load), "size": asdict(sized), "measured_by": measured.measured_by}
            )
        )
        return
    if as_csv:
        print_csv([{"load": asdict(load), "size": asdict(sized)}])
        return
    for what, value in lines(load, sized):
        typer.echo(f"{what:<22} {value}")
    typer.echo(f"constants: `{measured.measured_by}`, {measured.measured_on}, {measured.machine}")


def lines(load: Load, sized: Size) -> Iterator[tuple[str, str]]:
    """What to say of a size."""
    yield (
        "events",
        (
            f"{sized.events_per_second:,.0f}/s on average, {sized.peak_events_per_second:,.0f}/s "
            "at most"
        ),
    )
    yield "partitions", f"{sized.partitions}"
    yield (
        "processors",
        f"{sized.processors}, each {sized.processor_cores:g} cores, {sized.processor_mb:,} MB "
        f"(closing takes {sized.closer_cores:,.2f} cores of all)",
    )
    yield (
        "Kafka",
        f"{sized.kafka_brokers} brokers, each {sized.kafka_mb:,} MB; disk "
        f"{disk(sized.kafka_disk_gb)} in all "
        f"({load.copies} copies, {load.kafka_retention_hours:g} h)",
    )
    sharded = "one replica set" if sized.shards == 1 else f"{sized.shards} shards"
    yield (
        "MongoDB",
        f"{sharded} of {load.copies}, each member {sized.mongod_cores:,.1f} cores, "
        f"{sized.mongod_mb:,} MB, "
        f"disk {disk(sized.mongo_disk_gb)}",
    )
    yield (
        "  raw events",
        f"{disk(sized.mongo_raw_gb)} for {load.raw_retention_days:g} days, all shards, one copy",
    )
    yield (
        "  ledger and sums",
        f"{disk(sized.mongo_ledger_gb)} for {load.ledger_days:g} days, all shards, one copy",
    )


def disk(gigabytes: float) -> str:
    """Gigabytes for people: two digits."""
    if gigabytes >= 1000:
        return f"{gigabytes / 1000:,.1f} TB"
    return f"{gigabytes:,.1f} GB" if gigabytes < 10 else f"{gigabytes:,.0f} GB"
