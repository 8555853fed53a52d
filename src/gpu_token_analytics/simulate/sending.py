"""What `simulate` and `replay` share: sending a stream or printing it, with a progress bar, and
saying what went out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpu_token_analytics import logs
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.running_demo import settings_beside_demo
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.simulate.run import Delivery, Sent, send_stream
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sinks import EventSink

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the records, one per line, instead of sending them."),
]


class _LineSink:
    """Prints each record as a line on stdout, as it would go to Kafka."""

    def send(self, event: Event) -> None:
        self.send_raw(encode(event), event.host)

    def send_raw(self, value: bytes, key: str) -> None:  # noqa: ARG002 - the key is Kafka's
        sys.stdout.buffer.write(value + b"\n")

    def flush(self, timeout_seconds: float) -> None:  # noqa: ARG002 - a pipe takes what it takes
        sys.stdout.buffer.flush()


def settings_to_send(dry_run: bool) -> Settings:
    """Where to: beside a running demo, to the demo's Kafka. A dry run sends nothing anywhere."""
    return load() if dry_run else settings_beside_demo()


def send(
    deliveries: Iterable[Delivery],
    client: str,
    settings: Settings,
    dry_run: bool,
    speed: float,
    on_sent: Callable[[Sent, Delivery], None],
    on_acknowledged: Callable[[int], None] | None = None,
) -> Sent:
    """Send all of it to Kafka, or print it. Raises KafkaError."""
    logs.configure(settings)
    sink: EventSink = _LineSink()
    if not dry_run:
        # loads librdkafka: not for `--dry-run` and `--help`
        from gpu_token_analytics.kafka.producer import EventProducer

        sink = producer = EventProducer(settings, client=client)
        producer.check()
    with stoppable() as stop:
        return send_stream(
            deliveries,
            sink,
            SystemClock(),
            stop,
            speed=speed,
            on_sent=on_sent,
            on_acknowledged=on_acknowledged,
        )


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Progress]:
    """A progress bar on stderr; nothing where stderr is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        bar.add_task(what, total=total)
        yield bar


def say_sent(sent: Sent) -> None:
    """What went out, on stderr."""
    span = (
        ""
        if sent.first_ts is None or sent.last_ts is None
        else f"{sent.first_ts.isoformat()} to {sent.last_ts.isoformat()}"
    )
    typer.echo(
        f"sent{' until stopped' if sent.stopped else ''}: {sent.requests:,} requests, "
        f"{sent.prompt_tokens:,} prompt and "
        f"{sent.completion_tokens:,} completion tokens, {sent.samples:,} GPU samples, "
        f"{sent.broken:,} broken records, "
        f"{len(sent.gpus)} GPUs, {span}",
        err=True,
    )
