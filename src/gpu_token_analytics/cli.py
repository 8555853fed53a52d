"""The `gpu-tokens` command. Each process brings its own commands; this file only lists them.

Exit codes: 0 done, 1 it failed (one line on stderr says why), 2 a setting or an argument is wrong.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from gpu_token_analytics import __version__
from gpu_token_analytics.agent import commands as agent_commands
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.demo import commands as demo_commands
from gpu_token_analytics.embedded import commands as embedded_commands
from gpu_token_analytics.errors import GpuTokensError, SettingsError
from gpu_token_analytics.exporter import commands as exporter_commands
from gpu_token_analytics.foreign_text import visible_lines
from gpu_token_analytics.processor import commands as processor_commands
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.simulate import commands as simulate_commands
from gpu_token_analytics.simulate import replay_command
from gpu_token_analytics.terminal import commands as api_commands
from gpu_token_analytics.terminal.console import no_color
from gpu_token_analytics.tools import backup_commands, kafka_commands, schemas_command, size_command
from gpu_token_analytics.tools import commands as tools_commands

app = typer.Typer(
    name="gpu-tokens",
    help=(
        "What each LLM token really costs on your own GPUs. Settings come from the environment; "
        "see docs/settings.md."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpu-tokens {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def _agent_beside(settings: Settings) -> Callable[[threading.Event], None]:
    """The GPU agent as a part of another process; its samples go through Kafka like everyone's."""
    from gpu_token_analytics.agent.run import run_agent
    from gpu_token_analytics.agent.sources import open_source
    from gpu_token_analytics.kafka.producer import EventProducer

    host = settings.host_at_site(settings.host_name or socket.gethostname())
    gpus = open_source(settings.gpu_metrics_source, settings, host)

    def sample(stop: threading.Event) -> None:
        producer = EventProducer(settings, client="agent")
        run_agent(gpus, producer, SystemClock(), host, settings.sample_interval_seconds, stop)

    return sample


# In the order --help lists them.
demo_commands.register(app)
processor_commands.register(app, agent=_agent_beside)
for _commands in (
    api_commands,
    exporter_commands,
    agent_commands,
    simulate_commands,
    replay_command,
    kafka_commands,
    tools_commands,
    backup_commands,
    size_command,
    schemas_command,
    embedded_commands,
):
    _commands.register(app)


# What to do about an error of the system's that names a path or a disk.
_REMEDIES = {
    errno.ENOENT: "make its folder first, or give another path",
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.ENAMETOOLONG: "that name is too long: give another path",
    errno.EISDIR: "that is a folder: give a file",
    errno.EEXIST: "give a path that is free",
    errno.EACCES: "give a path that you may use, or get the right to it",
    errno.EPERM: "give a path that you may use, or get the right to it",
    errno.EROFS: "that disk is read-only: give a path on another",
    errno.ENOSPC: "that disk is full: make room, or give a path on another",
    errno.EDQUOT: "your part of that disk is full: make room, or give a path on another",
}


def _system_error(error: OSError) -> str | None:
    """One sentence with the remedy; None for an error that no operator can have caused by a
    path."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    path = "" if error.filename is None else f"{error.filename}: "
    return f"{path}{error.strerror}; {remedy}"


def _without_escape_codes() -> None:
    """NO_COLOR is for help and usage errors, too: Typer leaves bold in them."""
    if no_color():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = None
        rich_utils.FORCE_TERMINAL = False


def main() -> None:
    """Run the command line; an error of ours, or of a path or disk, is one clear line, not a
    traceback."""
    _without_escape_codes()
    try:
        app()
    except SettingsError as error:
        print(visible_lines(f"gpu-tokens: {error}"), file=sys.stderr)
        sys.exit(2)
    except GpuTokensError as error:
        print(visible_lines(f"gpu-tokens: {error}"), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        said = _system_error(error)
        if said is None:
            raise
        print(visible_lines(f"gpu-tokens: {said}"), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
