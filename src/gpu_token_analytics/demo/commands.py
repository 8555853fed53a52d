"""`gpu-tokens demo`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gpu_token_analytics import logs
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.embedded.child import LOOPBACK, port_from
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.running_demo import RunningDemo, published, record_path, shared_settings
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stop_on_signals
from gpu_token_analytics.terminal.console import on_terminal, plain_console, plain_line

if TYPE_CHECKING:  # drivers are not loaded for `--help`
    from gpu_token_analytics.demo.services import Process, Services

_MARKER = "gpu-tokens-demo"
_SEED_FILE = "gpu_seed.json"
DASHBOARD_PORT = 8765  # always the same: a bookmark of the dashboard works again the next time


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("demo")(demo)


def demo(
    duration: Annotated[
        float | None, typer.Option(min=1, help="End by itself after this many seconds.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Replay this request trace instead of a simulated fleet.",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0, help="Of the trace: 1 is real time, 0 as fast as the pipeline takes it."
        ),
    ] = 0.0,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Requests per second of the simulated fleet.")
    ] = 4.0,
    history_hours: Annotated[
        float,
        typer.Option(min=0, max=24, help="Simulated hours before now, sent into an empty ledger."),
    ] = 2.0,
    data_dir: Annotated[
        Path, typer.Option(help="Where MongoDB's files and the logs are kept between runs.")
    ] = Path("data/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the data folder first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the simulated fleet.")] = 1,
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="Port of the dashboard; the next free one where it is taken."
        ),
    ] = DASHBOARD_PORT,
    no_api: Annotated[bool, typer.Option("--no-api", help="Without API and dashboard.")] = False,
) -> None:
    """Run the whole pipeline on this machine and watch what tokens cost.

    Kafka is librdkafka's mock cluster in this process (real protocol, in memory: its records end
    with the demo) and MongoDB a real mongod in the data folder, so neither Docker nor Java is
    needed; KAFKA_BOOTSTRAP and MONGODB_URI are used instead where they are set. GPUs are simulated;
    those of gpu_seed.json in this folder are sampled by the processor's own agent.

    While it runs, other commands beside it talk to it: `gpu-tokens report`, `gpu-tokens top`. Ends
    with the final table and an audit of the ledger; exit code 0 when it holds to the nano-dollar.

    Examples: `gpu-tokens demo` | `gpu-tokens demo --duration 20` | `gpu-tokens demo --trace
    trace.csv --fresh`
    """
    from gpu_token_analytics.demo.run import Demo, Plan
    from gpu_token_analytics.demo.services import Services

    base = load()
    logs.configure(load(log_level="WARNING"))
    _prepare(data_dir, fresh)
    console, clock, stop = _console(), SystemClock(), stop_on_signals()
    chosen = None if no_api else port_from(port)
    if chosen is not None:
        dashboard = f"http://{LOOPBACK}:{chosen}/"
        taken = "" if chosen == port else f" (port {port} is taken)"
        console.print(
            f"dashboard {dashboard}{taken}, in some seconds", highlight=False, soft_wrap=True
        )
    console.print(plain_line(f"starting in {data_dir} ..."), style="dim", highlight=False)
    plan = Plan(data_dir, duration, rate, 0.0 if trace else history_hours, trace, speed, seed)
    with Services(data_dir, base, _overrides(base)) as services:
        settings = services.start()
        agent = (
            {"gpu_metrics_source": "seed", "host_name": "this-machine"}
            if _with_agent(base, trace)
            else {}
        )
        processor = services.run("processor", agent)
        api = (
            None
            if chosen is None
            else services.run("api", {"api_allow_anonymous_loopback": "true"}, chosen)
        )
        with _found_by_others(data_dir, api, settings, services, console):
            holds = Demo(plan, settings, services, clock, console).run(processor, api, stop)
    if services.embedded_kafka:
        console.print(
            (
                "the broker in memory is gone with its records; what was stored stays in the data "
                "folder"
            ),
            style="dim",
        )
    if api is not None:
        console.print(
            f"dashboard {api.url}/ has ended; the next demo shows it there again",
            highlight=False,
            soft_wrap=True,
        )
    if not holds:
        raise typer.Exit(1)


@contextmanager
def _found_by_others(
    folder: Path, api: Process | None, settings: Settings, services: Services, console: Console
) -> Iterator[None]:
    """Other commands of this user find the demo for a block, where its database is its own."""
    if not services.embedded_mongodb:
        yield
        return
    demo = RunningDemo(
        str(folder.absolute()), "" if api is None else f"{api.url}/", shared_settings(settings)
    )
    with published(demo) as shown:
        if not shown:
            by = f"MONGODB_URI={settings.mongodb_uri.get_secret_value()}"
            if services.embedded_kafka:
                by = f"{by} KAFKA_BOOTSTRAP={settings.kafka_bootstrap}"
            why = f"another demo is running, or {record_path()} cannot be written"
            console.print(
                plain_line(f"other commands find this demo by {by} ({why})"),
                soft_wrap=True,
            )
        yield


def _console() -> Console:
    """The terminal as it is; a pipe or a log is wide enough for the tables."""
    console = plain_console()
    return console if on_terminal() else plain_console(width=120)


def _overrides(base: Settings) -> dict[str, str]:
    """A demo is watched: cells close after a second, and its GPUs are not paid for while it does
    not run."""
    wanted = {"close_debounce_seconds": "1", "silent_gpu_owned_minutes": "2"}
    return {name: value for name, value in wanted.items() if name not in base.model_fields_set}


def _with_agent(base: Settings, trace: Path | None) -> bool:
    return (
        trace is None
        and not base.gpu_metrics_source
        and Path(base.gpu_seed_file or _SEED_FILE).is_file()
    )


def _prepare(folder: Path, fresh: bool) -> None:
    """Make the data folder; --fresh deletes only a folder that a demo made."""
    marker = folder / _MARKER
    if fresh and folder.exists():
        if not marker.exists():
            raise SettingsError(
                f"--fresh would delete {folder}, which no demo made; remove it yourself or give "
                "another --data-dir"
            )
        shutil.rmtree(folder)
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        raise SettingsError(f"--data-dir {folder} holds other files; give an empty or new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise SettingsError(
            f"--data-dir {folder} cannot be written ({error.strerror}); give a folder of yours"
        ) from None
