"""`gpu-tokens agent`."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import start_http_server

from gpu_token_analytics import logs
from gpu_token_analytics.agent.metrics import AgentMetrics
from gpu_token_analytics.agent.readings import GpuProblem, GpuSource, Problem, tell_apart
from gpu_token_analytics.agent.run import run_agent
from gpu_token_analytics.agent.sources import open_source
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import in_json_text, visible
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.wire.kind import encode

_log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("agent")(agent)


def agent(
    source: Annotated[
        str, typer.Option(help="nvml, nvidia-smi, dcgm-exporter, amd-exporter or seed; default GPU_METRICS_SOURCE.")
    ] = "",
    url: Annotated[str, typer.Option(help="Page of the exporter; default GPU_EXPORTER_URL, else its usual port here.")] = "",
    interval: Annotated[float | None, typer.Option(help="Seconds between samples; default SAMPLE_INTERVAL_SECONDS.")] = None,
    seed_file: Annotated[Path | None, typer.Option(help="GPUs of the seed source; default GPU_SEED_FILE.")] = None,
    host: Annotated[str, typer.Option(help="Name of this host in events; default HOST_NAME, else its host name.")] = "",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for Prometheus; 0: none.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print one sample of each GPU and stop; needs no Kafka.")] = False,
) -> None:
    """Sample the GPUs of this machine into Kafka until stopped.

    A driver that is missing or a GPU that falls off the bus is reported and survived: its time becomes `unobserved`,
    never idle. Values the driver does not give are null, never 0.

    Examples: `gpu-tokens agent --source nvml` | `gpu-tokens agent --source nvidia-smi --once` |
    `gpu-tokens agent --source dcgm-exporter` | `gpu-tokens agent --source seed --seed-file gpu_seed.json --host vm4`
    """
    settings = load(
        gpu_metrics_source=source or None,
        gpu_exporter_url=url or None,
        sample_interval_seconds=interval,
        gpu_seed_file=None if seed_file is None else str(seed_file),
        host_name=host or None,
    )
    logs.configure(settings)
    name = settings.host_at_site(settings.host_name or socket.gethostname())
    gpus = open_source(settings.gpu_metrics_source, settings, name)
    if once:
        _print_once(gpus, name)
        return
    _sample_into_kafka(gpus, name, settings, metrics_port)


def _print_once(gpus: GpuSource, host: str) -> None:
    """One JSON line per GPU on stdout, problems on stderr. Raises SourceUnavailable."""
    now = SystemClock().now()
    try:
        for reading in tell_apart(gpus.read(), host):
            if isinstance(reading, GpuProblem):
                is_read = reading.problem is Problem.SHARED_UUID
                what = "has no identity" if is_read else f"cannot be read ({reading.problem})"
                typer.echo(visible(f"GPU {reading.gpu} {what}: {reading.message}"), err=True)
            else:
                typer.echo(in_json_text(encode(reading.to_sample(host, now, gpus.name)).decode()))
    finally:
        gpus.close()


def _sample_into_kafka(gpus: GpuSource, host: str, settings: Settings, metrics_port: int) -> None:
    from gpu_token_analytics.kafka.producer import EventProducer  # loads librdkafka: not for `--once` and `--help`

    registry = SiteRegistry(settings.site)
    if metrics_port:
        try:
            start_http_server(metrics_port, settings.http_host, registry)
        except OSError as error:
            raise SettingsError(
                f"--metrics-port {metrics_port} on {settings.http_host}: {error.strerror}; choose another"
            ) from None
    _log.info(
        "sampling GPUs of %s from %s every %g s into %s",
        host,
        gpus.name,
        settings.sample_interval_seconds,
        settings.kafka_topic,
    )
    producer = EventProducer(settings, client="agent")
    with stoppable() as stop:
        run_agent(gpus, producer, SystemClock(), host, settings.sample_interval_seconds, stop, metrics=AgentMetrics(registry))
    _log.info("stopped: %d samples delivered, %d not", producer.delivered, producer.sent - producer.delivered)
