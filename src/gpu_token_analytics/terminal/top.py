"""`gpu-tokens top`: GPUs and models live, full screen, as users of nvtop know it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live as Drawing
from rich.text import Text

from gpu_token_analytics.costs.answers import GpuState, Live
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.gpus import gpu_states
from gpu_token_analytics.costs.live import live_figures
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.rollups.spans import UTC_ZONE, Step, bucket_start
from gpu_token_analytics.terminal.console import Column, FittedTable
from gpu_token_analytics.terminal.money import USD, Shown
from gpu_token_analytics.terminal.support import count, percent

STYLES: dict[str, str] = {
    MoneyClass.ATTRIBUTED: "green",
    MoneyClass.UNMETERED_WORK: "cyan",
    MoneyClass.WARM_IDLE: "yellow",
    MoneyClass.COLD_IDLE: "blue",
    MoneyClass.UNOBSERVED: "red",
}
LETTERS: dict[str, str] = dict(zip(MoneyClass, "#+wc?", strict=True))
BAR = 12
SORTS = {"h": "host", "c": "today's money", "u": "utilisation", "i": "idle share"}
GPU_FRAME_LINES = 3  # title, headings, how many more there are
DOWN, UP = ("j", "\x1b[B", "\x1bOB"), ("k", "\x1b[A", "\x1bOA")
PAGE_DOWN, PAGE_UP = (" ", "\x1b[6~"), ("b", "\x1b[5~")


def snapshot(desk: Desk) -> tuple[Live, list[GpuState]]:
    """(live figures, GPU states): what one screen shows, and what `--json` prints."""
    now = desk.now()
    midnight = bucket_start(now, Step.DAY, UTC_ZONE)
    return live_figures(desk, None), gpu_states(desk, desk.reads.gpus(), now, midnight)


def screen(
    figures: Live,
    gpus: list[GpuState],
    sort: str,
    console: Console,
    first: int,
    shown: Shown = USD,
) -> tuple[Group, int, int]:
    """(one screen, the first GPU on it, how many GPUs there is room for). first: the GPU that was
    asked to be the first."""
    above = Group(
        _header(figures, shown),
        *(Text(note, "dim") for note in shown.notes()),
        _identity(figures),
        Text(),
        _models(figures, max(1, console.height // 6), shown),
        Text(),
    )
    used = len(console.render_lines(above, pad=False))
    room = max(1, console.height - used - GPU_FRAME_LINES)
    first = max(0, min(first, len(gpus) - room))
    return Group(above, *_gpus(gpus, sort, first, room, shown)), first, room


def _header(figures: Live, shown: Shown) -> Text:
    return Text.assemble(
        ("gpu-tokens top  ", "bold"),
        f"{figures.gpus or 0} GPUs   ",
        (f"{shown.ratio(figures.usd_per_hour, 2)} {shown.per('h')}   ", "bold"),
        f"{count(figures.tokens_per_second or 0)} tok/s   ",
        (
            f"{shown.per('M')} active {shown.ratio(figures.active_usd_per_million)}  loaded "
            f"{shown.ratio(figures.loaded_usd_per_million)}   "
        ),
        f"due {figures.cells_due}   {figures.at:%Y-%m-%d %H:%M:%S}Z",
    )


def _identity(figures: Live) -> Text:
    """The identity as a bar that always fills."""
    classes, total = figures.classes or {}, figures.cost_nusd
    width = 60
    text = Text("last minutes  [")
    used = 0
    parts = [(name, classes.get(name, 0)) for name in LETTERS]
    for index, (name, nusd) in enumerate(parts):
        length = (
            width - used if index == len(parts) - 1 else round(width * nusd / total) if total else 0
        )
        length = max(0, min(length, width - used))
        text.append(LETTERS[name] * length, STYLES[name])
        used += length
    text.append("]  ")
    for name, nusd in parts:
        text.append(
            f"{LETTERS[name]} {name} {percent(nusd / total if total else None)}  ", STYLES[name]
        )
    return text


def _models(figures: Live, room: int, shown: Shown) -> FittedTable:
    numbers = (
        Column("tok/s", 2),
        Column(shown.code, 3),
        Column(f"{shown.per('M')} active"),
        Column(f"{shown.per('M')} loaded", 1),
    )
    models = sorted(figures.models, key=lambda model: -(model.attributed_nusd or 0))
    more = f"   {len(models) - room} more" if len(models) > room else ""
    made = FittedTable(f"models{more}", (Column("model", right=False), *numbers))
    for model in models[:room]:
        made.add_row(
            model.model,
            count(model.tokens_per_second),
            shown.amount(model.attributed_nusd),
            shown.ratio(model.active_usd_per_million),
            shown.ratio(model.loaded_usd_per_million),
        )
    if not figures.models:
        made.add_row("(no request in the last minutes)")
    return made


def _gpu_columns(shown: Shown) -> tuple[Column, ...]:
    return (
        Column("gpu", right=False),
        Column("name", 4, right=False),
        Column("util", right=False),
        Column("memory", 3, right=False),
        Column("W", 5),
        Column(shown.per("h"), 2),
        Column("idle today", 1),
        Column("last hour", 7, right=False),
        Column("models", 6, right=False),
    )


def _gpus(
    gpus: list[GpuState], sort: str, first: int, room: int, shown: Shown
) -> list[RenderableType]:
    """One line each of the GPUs from `first` on, and what is not shown."""
    made = FittedTable(
        f"sorted by {SORTS[sort]}   keys: h c u i sort, arrows scroll, q quit", _gpu_columns(shown)
    )
    for gpu in sorted(gpus, key=_order(sort))[first : first + room]:
        label = f"{gpu.host}/{gpu.gpu_index}" if gpu.host and gpu.gpu_index is not None else gpu.gpu
        used, size = gpu.mem_used_mb, gpu.mem_total_mb
        made.add_row(
            Text(label, "" if gpu.state == "live" else "red"),
            gpu.name or gpu.mig_profile or "-",
            _bar(gpu.utilization) if gpu.state == "live" else Text(gpu.state, "red"),
            _bar(used / size if used is not None and size else None),
            "-" if gpu.power_w is None else f"{gpu.power_w:,.0f}",
            shown.ratio(gpu.usd_per_hour),
            percent(gpu.idle_share_today),
            _history(gpu.newest_minutes),
            ", ".join(gpu.models) or "-",
        )
    if not gpus:
        made.add_row("(no GPU known: start `gpu-tokens agent` or set GPU_METRICS_SOURCE)")
    above, below = first, len(gpus) - first - room
    more = [
        f"{count} more {where}"
        for count, where in ((above, "above"), (below, "below"))
        if count > 0
    ]
    return [made, Text(", ".join(more), "dim")]


def _order(sort: str) -> Any:
    def key(gpu: GpuState) -> tuple[float, str, int, str]:
        value = {
            "h": 0.0,
            "c": -float(0 if gpu.today is None else gpu.today.total_nusd or 0),
            "u": -(gpu.utilization or 0.0),
            "i": -(gpu.idle_share_today or 0.0),
        }[sort]
        return value, gpu.host or "", gpu.gpu_index or 0, gpu.gpu

    return key


def _bar(share: float | None) -> Text:
    if share is None:
        return Text("unknown", "dim")
    filled = round(BAR * min(1.0, share))
    return Text.assemble(
        ("|" * filled, "green"), ("." * (BAR - filled), "dim"), f" {100 * share:3.0f}%"
    )


def _history(minutes: list[str | None]) -> Text:
    text = Text()
    for name in minutes[-30:]:
        text.append(LETTERS[name] if name else " ", STYLES[name] if name else "")
    return text


def run(
    desk: Desk,
    console: Console,
    stop: threading.Event,
    interval_seconds: float,
    shown: Shown = USD,
) -> None:
    """Draw until `q`, Ctrl-C or `stop`."""
    sort, first = "h", 0
    with _keys() as pressed, Drawing(console=console, screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            figures, gpus = snapshot(desk)
            until = time.monotonic() + interval_seconds
            while time.monotonic() < until and not stop.is_set():
                drawn, first, room = screen(figures, gpus, sort, console, first, shown)
                live.update(drawn, refresh=True)
                key = pressed(min(0.5, max(0.0, until - time.monotonic())))
                if key == "q":
                    return
                sort = key if key in SORTS else sort
                first += (
                    (key in DOWN) - (key in UP) + room * ((key in PAGE_DOWN) - (key in PAGE_UP))
                )


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits for one key (or nothing), without Enter where the terminal allows
    it."""
    try:
        import termios
        import tty
    except ImportError:  # not a Unix terminal: no keys, Ctrl-C ends it
        yield _no_key
        return
    if not sys.stdin.isatty():
        yield _no_key
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin.fileno())

        def pressed(seconds: float) -> str:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            # All that came at once: a key with an escape sequence is several bytes.
            return os.read(sys.stdin.fileno(), 16).decode(errors="replace") if ready else ""

        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
