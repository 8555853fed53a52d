"""The `gpu-tokens` command. Each process brings its own commands; this file only lists them.

Exit codes: 0 done, 1 it failed (one line on stderr says why), 2 a setting or an argument is wrong.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gpu_token_analytics import __version__
from gpu_token_analytics.agent import commands as agent_commands
from gpu_token_analytics.errors import GpuTokensError, SettingsError
from gpu_token_analytics.kafka import commands as kafka_commands
from gpu_token_analytics.simulate import commands as simulate_commands

app = typer.Typer(
    name="gpu-tokens",
    help="What each LLM token really costs on your own GPUs. Settings come from the environment; see docs/settings.md.",
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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _commands in (kafka_commands, agent_commands, simulate_commands):
    _commands.register(app)


def main() -> None:
    """Run the command line; an error of ours is one clear line, not a traceback."""
    try:
        app()
    except SettingsError as error:
        print(f"gpu-tokens: {error}", file=sys.stderr)
        sys.exit(2)
    except GpuTokensError as error:
        print(f"gpu-tokens: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
