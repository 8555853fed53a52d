"""`gpu-tokens processor`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated

import typer

from gpu_token_analytics import logs
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.signals import stoppable

# Set by cli.py, as processes do not import each other: what samples this machine's GPUs.
AgentFactory = Callable[[Settings], Callable[[threading.Event], None]]


def register(app: typer.Typer, agent: AgentFactory | None = None) -> None:
    """Add this command. `agent` builds what runs beside the processor where GPU_METRICS_SOURCE is
    set."""

    @app.command("processor")
    def processor(
        port: Annotated[
            int | None,
            typer.Option(min=0, max=65535, help="HTTP port; default HTTP_PORT, 0: a free one."),
        ] = None,
    ) -> None:
        """Store the events of the topic, each once, and keep the ledger, until stopped.

        Run as many as there are partitions: they share them. SIGTERM finishes and commits the batch
        in hand; a second one ends the process at once, which is safe, too. /health, /ready,
        /metrics and /gpu/info on HTTP_HOST:HTTP_PORT. With GPU_METRICS_SOURCE set, the GPUs of this
        machine are sampled as well; their samples go through Kafka.

        Examples: `gpu-tokens processor` | `GPU_METRICS_SOURCE=nvml gpu-tokens processor --port 0`
        """
        # loads drivers: not for `--help`
        from gpu_token_analytics.processor.service import run_processor

        settings = load(http_port=port)
        logs.configure(settings)
        companions = (
            {"the GPU agent": agent(settings)}
            if settings.gpu_metrics_source and agent is not None
            else {}
        )
        with stoppable() as stop:
            run_processor(settings, stop, companions=companions)
