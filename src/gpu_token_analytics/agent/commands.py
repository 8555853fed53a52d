"""`gpu-tokens agent`."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import start_http_server

from gpu_token_analytics import logs
from gpu_token_analytics.agent.engines.page import read_page
from gpu_token_analytics.agent.engines.run import fetch_page, run_engines
from gpu_token_analytics.agent.engines.target import Target, targets_of
from gpu_token_analytics.agent.metrics import AgentMetrics, EngineMetrics, PodMetrics
from gpu_token_analytics.agent.pods.kubelet import Kubelet
from gpu_token_analytics.agent.pods.run import (
    PlacementsDoor,
    PodPlacements,
    pods_on_gpus,
    watch_pods,
)
from gpu_token_analytics.agent.pods.slices import ResourceSlices
from gpu_token_analytics.agent.readings import GpuProblem, GpuSource, Problem, tell_apart
from gpu_token_analytics.agent.run import run_agent
from gpu_token_analytics.agent.sources import open_source
from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.foreign_text import in_json_text, visible
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stoppable
from gpu_token_analytics.wire.kind import encode

_log = logging.getLogger(__name__)

ONCE_SECONDS = 10.0
USUAL_SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("agent")(agent)


def agent(
    source: Annotated[
        str,
        typer.Option(
            help=(
                "nvml, nvidia-smi, dcgm-exporter, amd-exporter or seed; default GPU_METRICS_SOURCE."
            )
        ),
    ] = "",
    url: Annotated[
        str,
        typer.Option(
            help="Page of the exporter; default GPU_EXPORTER_URL, else its usual port here."
        ),
    ] = "",
    interval: Annotated[
        float | None, typer.Option(help="Seconds between samples; default SAMPLE_INTERVAL_SECONDS.")
    ] = None,
    seed_file: Annotated[
        Path | None, typer.Option(help="GPUs of the seed source; default GPU_SEED_FILE.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Name of this host in events; default HOST_NAME, else its host name."),
    ] = "",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port for Prometheus; 0: none.")
    ] = 0,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "ENGINE=URL of a serving engine whose token counters are read, again for each; "
                "default ENGINES."
            )
        ),
    ] = None,
    engine_interval: Annotated[
        float | None,
        typer.Option(help="Seconds between looks at engines; default ENGINE_INTERVAL_SECONDS."),
    ] = None,
    pods: Annotated[
        bool,
        typer.Option(
            "--pods",
            help="Print which pod of this node has which GPUs, and stop; see KUBELET_PODS_SOCKET.",
        ),
    ] = False,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help=(
                "Print one sample of each GPU, or what engines count now, and stop; needs no Kafka."
            ),
        ),
    ] = False,
) -> None:
    """Sample the GPUs of this machine into Kafka until stopped, and read the token counters of
    engines.

    A driver that is missing or a GPU that falls off the bus is reported and survived: its time
    becomes `unobserved`, never idle. Values the driver does not give are null, never 0.

    On Kubernetes it also tells the API which pod runs on which GPUs (KUBELET_PODS_SOCKET,
    PLACEMENTS_URL).

    Engines are vllm, sglang, trtllm, triton, dynamo, llamacpp, lmdeploy, ray and tgi. With engines
    and no source no GPU is sampled: an agent near the engine, beside the one that samples.

    Examples: `gpu-tokens agent --source nvml --engine vllm=http://localhost:8000` | `gpu-tokens
    agent --source nvml` | `gpu-tokens agent --source nvidia-smi --once` | `gpu-tokens agent
    --source dcgm-exporter` |
    `gpu-tokens agent --source seed --seed-file gpu_seed.json --host vm4`
    """
    settings = load(
        gpu_metrics_source=source or None,
        gpu_exporter_url=url or None,
        sample_interval_seconds=interval,
        gpu_seed_file=None if seed_file is None else str(seed_file),
        host_name=host or None,
        engines=None if engine is None else " ".join(engine),
        engine_interval_seconds=engine_interval,
    )
    logs.configure(settings)
    name = settings.host_at_site(settings.host_name or socket.gethostname())
    if pods:
        _print_pods(settings, name)
        return
    targets = targets_of(settings.engines.split(), name)
    gpus = (
        None
        if targets and not settings.gpu_metrics_source
        else open_source(settings.gpu_metrics_source, settings, name)
    )
    if once:
        if gpus is not None:
            _print_once(gpus, name)
        for target in targets:
            _print_engine(target)
        return
    _into_kafka(gpus, targets, name, settings, metrics_port)


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


def _print_pods(settings: Settings, host: str) -> None:
    """One line per pod on stdout. Raises SourceUnavailable, SettingsError."""
    source = Kubelet(settings.kubelet_pods_socket or USUAL_SOCKET)
    slices = ResourceSlices(settings.host_name or socket.gethostname(), SystemClock())
    try:
        for pod in pods_on_gpus(source, host, slices.look_up):
            unknown = f"  not known: {', '.join(pod.unknown)}" if pod.unknown else ""
            typer.echo(visible(f"{pod.instance}  {' '.join(pod.gpus) or '-'}{unknown}"))
        if slices.problem is not None:
            typer.echo(visible(slices.problem), err=True)
    finally:
        source.close()


def _print_engine(target: Target) -> None:
    """Where the counters of an engine stand, one line per model and kind of token. Raises
    SourceUnavailable."""
    page, _ = read_page(fetch_page(target, ONCE_SECONDS), target)
    totals: Counter[tuple[str, str]] = Counter()
    for key, total in page.totals.items():
        totals[key.model, key.tokens] += round(total)
    for (model, kind), total in sorted(totals.items()):
        typer.echo(
            visible(
                f"{target.instance} {target.engine} {model or '(names no model)'}: {total} {kind} "
                "tokens so far"
            )
        )
    if not totals:
        typer.echo(visible(f"{target.instance} {target.engine}: no tokens so far"))


def _into_kafka(
    gpus: GpuSource | None, targets: list[Target], host: str, settings: Settings, metrics_port: int
) -> None:
    # loads librdkafka: not for `--once` and `--help`
    from gpu_token_analytics.kafka.producer import EventProducer

    registry = SiteRegistry(settings.site)
    if metrics_port:
        try:
            start_http_server(metrics_port, settings.http_host, registry)
        except OSError as error:
            raise SettingsError(
                f"--metrics-port {metrics_port} on {settings.http_host}: {error.strerror}; choose "
                "another"
            ) from None
    clock = SystemClock()
    with stoppable() as stop, ExitStack() as running:
        if targets:
            running.enter_context(
                _reading_engines(targets, host, settings, clock, EngineMetrics(registry), stop)
            )
        if settings.kubelet_pods_socket:
            running.enter_context(_watching_pods(host, settings, clock, PodMetrics(registry), stop))
        if gpus is None:
            stop.wait()
            return
        interval = settings.sample_interval_seconds
        _log.info(
            "sampling GPUs of %s from %s every %g s into %s",
            host,
            gpus.name,
            interval,
            settings.kafka_topic,
        )
        producer = EventProducer(settings, client="agent")
        run_agent(gpus, producer, clock, host, interval, stop, metrics=AgentMetrics(registry))
        _log.info(
            "stopped: %d samples delivered, %d not",
            producer.delivered,
            producer.sent - producer.delivered,
        )


@contextmanager
def _watching_pods(
    host: str, settings: Settings, clock: Clock, metrics: PodMetrics, stop: threading.Event
) -> Iterator[None]:
    """Which pod has which GPUs is told in a thread of its own until `stop`: neither the kubelet nor
    the API delays a sample."""
    if not settings.placements_url:
        raise SettingsError(
            "KUBELET_PODS_SOCKET is set, and PLACEMENTS_URL says nothing: give the API's address, "
            "http://api:8080"
        )
    source = Kubelet(settings.kubelet_pods_socket)
    slices = ResourceSlices(settings.host_name or socket.gethostname(), clock)
    door = PlacementsDoor(settings.placements_url, settings.placements_api_key.get_secret_value())
    placements = PodPlacements(source, door, clock, host, slices.look_up, metrics)
    thread = threading.Thread(target=watch_pods, args=(placements, clock, stop), name="pods")
    _log.info("telling %s which pods of %s have which GPUs", settings.placements_url, host)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        source.close()


@contextmanager
def _reading_engines(
    targets: list[Target],
    host: str,
    settings: Settings,
    clock: Clock,
    metrics: EngineMetrics,
    stop: threading.Event,
) -> Iterator[None]:
    """Engines are read in a thread of their own, with a producer of their own, until `stop`: a slow
    engine delays no sample."""
    from gpu_token_analytics.kafka.producer import EventProducer

    interval = settings.engine_interval_seconds
    producer = EventProducer(settings, client="agent-engines")

    def read() -> None:
        try:
            run_engines(targets, producer, clock, host, interval, stop, metrics=metrics)
        finally:
            stop.set()  # what ends it ends the process: a supervisor starts it again

    thread = threading.Thread(target=read, name="engines")
    _log.info(
        "reading the counters of %d engines every %g s into %s",
        len(targets),
        interval,
        settings.kafka_topic,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _log.info(
            "stopped: %d events of engines delivered, %d not",
            producer.delivered,
            producer.sent - producer.delivered,
        )
