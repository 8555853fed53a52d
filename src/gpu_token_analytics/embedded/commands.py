"""`gpu-tokens kafka`: a real Kafka broker on this machine, in the foreground."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, REFERENCE_VERSION, KafkaBroker
from gpu_token_analytics.errors import EmbeddedServiceError

_LOOK_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("kafka")(kafka)


def kafka(
    version: Annotated[
        str,
        typer.Option(
            help=(
                f"Kafka version, such as {CURRENT_VERSION} or {REFERENCE_VERSION}; Maven fetches "
                "it once."
            )
        ),
    ] = CURRENT_VERSION,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Keep topics and records here; without it they go when the broker stops."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback; 0 picks a free one.")
    ] = 0,
    heap_mb: Annotated[
        int, typer.Option(min=128, help="Heap limit of the broker's JVM in MB.")
    ] = 512,
) -> None:
    """Run a real Kafka broker without Docker (needs Java 17 and Maven) until Ctrl-C.

    The first line on stdout is its address, for KAFKA_BOOTSTRAP; what else is said goes to stderr.
    """
    # SIGTERM ends it like Ctrl-C: the broker is stopped cleanly and a temporary folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        home = folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gpu-tokens-kafka-"))
        )
        broker = stack.enter_context(KafkaBroker(version, home, port=port, heap_mb=heap_mb))
        typer.echo(broker.bootstrap)
        typer.echo(
            f"Kafka {version} runs in {broker.folder} (pid {broker.pid}); Ctrl-C stops it", err=True
        )
        with contextlib.suppress(KeyboardInterrupt):
            while broker.pid is not None:
                time.sleep(_LOOK_SECONDS)
            raise EmbeddedServiceError(f"Kafka {version} ended by itself. {broker.log_tail()}")
