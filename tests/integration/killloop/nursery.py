"""Processors that die: one warm parent forks a life whenever it is told to, and says how each one
ended.

A life is the real `run_processor`, with a checkpoint that now and then is its last. Forking spares
each of a hundred lives the second that importing costs; the parent has no threads and no clients,
so the children start as clean as new processes.

    stdin   "spawn <number>" | end of file: kill all, stop
    stdout  "born <number> <pid>" | "ended <number> <exit code, negative: signal>"

    KILL_SEED, KILL_PROBABILITY   when lives end        KILL_VARIANT   a wrong processor of
                                  variants.py
    KILL_CALM_FILE                while it exists nobody dies at a checkpoint
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from tests.integration.killloop import variants

from gpu_token_analytics import logs
from gpu_token_analytics.ingest.settle import LoopStage
from gpu_token_analytics.processor.service import run_processor
from gpu_token_analytics.settings import load
from gpu_token_analytics.signals import stop_on_signals


def main() -> None:
    """Serve until stdin ends."""
    variants.install(os.environ.get("KILL_VARIANT", ""))
    lives: dict[int, int] = {}  # pid -> number
    buffered = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, buffered = (buffered + data).split(b"\n")
            for line in lines:
                number = int(line.split()[1])
                pid = os.fork()
                if pid == 0:
                    _live(number)
                lives[pid] = number
                print(f"born {number} {pid}", flush=True)
        _reap(lives)
    for pid in lives:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap(lives: dict[int, int]) -> None:
    while lives:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        print(f"ended {lives.pop(pid)} {os.waitstatus_to_exitcode(status)}", flush=True)


def _live(number: int) -> NoReturn:
    """One processor, from its start to its end; never returns to the parent's loop."""
    dice = random.Random(f"{os.environ['KILL_SEED']}-{number}")
    probability = float(os.environ["KILL_PROBABILITY"])
    calm = Path(os.environ["KILL_CALM_FILE"])

    def checkpoint(_step: LoopStage) -> None:
        if dice.random() < probability and not calm.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        os.dup2(2, 1)  # stdout speaks the protocol above
        settings = load()
        logs.configure(settings)
        run_processor(settings, stop_on_signals(), checkpoint=checkpoint)
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it is, it is this life's end
        print(f"life {number} failed:", file=sys.stderr)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
