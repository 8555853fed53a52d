"""`gpu-tokens demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gpu_token_analytics import logs
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stop_on_signals

_MARKER = "gpu-tokens-demo"
_SEED_FILE = "gpu_seed.json"


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("demo")(demo)


def demo(
    duration: Annotated[float | None, typer.Option(min=1, help="End by itself after this many seconds.")] = None,
    trace: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Replay this request trace instead of a simulated fleet.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Of the trace: 1 is real time, 0 as fast as the pipeline takes it.")
    ] = 0.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second of the simulated fleet.")] = 12.0,
    history_hours: Annotated[
        float, typer.Option(min=0, max=24, help="Simulated hours before now, sent into an empty ledger.")
    ] = 3.0,
    data_dir: Annotated[Path, typer.Option(help="Where MongoDB's files and the logs are kept between runs.")] = Path(
        "data/demo"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the data folder first.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the simulated fleet.")] = 1,
    no_api: Annotated[bool, typer.Option("--no-api", help="Without API and dashboard.")] = False,
) -> None:
    """Run the whole pipeline on this machine and watch what tokens cost.

    Kafka is librdkafka's mock cluster in this process (real protocol, in memory: its records end with the demo) and MongoDB
    a real mongod in the data folder, so neither Docker nor Java is needed; KAFKA_BOOTSTRAP and MONGODB_URI are used instead
    where they are set. GPUs are simulated; those of gpu_seed.json in this folder are sampled by the processor's own agent.

    Ends with the final table and an audit of the ledger; exit code 0 when it holds to the nano-dollar.

    Examples: `gpu-tokens demo` | `gpu-tokens demo --duration 20` | `gpu-tokens demo --trace trace.csv --fresh`
    """
    from gpu_token_analytics.demo.run import Demo, Plan
    from gpu_token_analytics.demo.services import Services

    base = load()
    logs.configure(load(log_level="WARNING"))
    _prepare(data_dir, fresh)
    console, clock, stop = _console(), SystemClock(), stop_on_signals()
    console.print(f"starting in {data_dir} ...", style="dim", highlight=False)
    plan = Plan(data_dir, duration, rate, 0.0 if trace else history_hours, trace, speed, seed)
    with Services(data_dir, base, _overrides(base)) as services:
        settings = services.start()
        agent = {"gpu_metrics_source": "seed", "host_name": "this-machine"} if _with_agent(base, trace) else {}
        processor = services.run("processor", agent)
        api = None if no_api else services.run("api", {"api_allow_anonymous_loopback": "true"})
        holds = Demo(plan, settings, services, clock, console).run(processor, api, stop)
    if services.embedded_kafka:
        console.print("the broker in memory is gone with its records; what was stored stays in the data folder", style="dim")
    if not holds:
        raise typer.Exit(1)


def _console() -> Console:
    """The terminal as it is; a pipe or a log is wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _overrides(base: Settings) -> dict[str, str]:
    """A demo is watched: cells close after a second, and its GPUs are not paid for while it does not run."""
    wanted = {"close_debounce_seconds": "1", "silent_gpu_owned_minutes": "2"}
    return {name: value for name, value in wanted.items() if name not in base.model_fields_set}


def _with_agent(base: Settings, trace: Path | None) -> bool:
    return trace is None and not base.gpu_metrics_source and Path(base.gpu_seed_file or _SEED_FILE).is_file()


def _prepare(folder: Path, fresh: bool) -> None:
    """Make the data folder; --fresh deletes only a folder that a demo made."""
    marker = folder / _MARKER
    if fresh and folder.exists():
        if not marker.exists():
            raise SettingsError(
                f"--fresh would delete {folder}, which no demo made; remove it yourself or give another --data-dir"
            )
        shutil.rmtree(folder)
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        raise SettingsError(f"--data-dir {folder} holds other files; give an empty or new folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
