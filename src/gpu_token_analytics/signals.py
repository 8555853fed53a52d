"""Clean stops: SIGTERM and Ctrl-C become an event that loops wait on. Main thread only (a rule of
Python's signals)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CAUGHT = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        for name in _CAUGHT:
            signal.signal(name, signal.SIG_DFL)
        stop.set()

    for name in _CAUGHT:
        signal.signal(name, on_signal)
    return stop


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """`stop_on_signals()` for a block: the handlers that were there before come back at its end."""
    before = {name: signal.getsignal(name) for name in _CAUGHT}
    try:
        yield stop_on_signals()
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
