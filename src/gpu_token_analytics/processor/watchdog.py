"""Ends a process whose loop stands still, or that does not come to its end: without a liveness
probe nobody else would.

Out of memory, a thread of Python can fail to begin without a word, and whoever started it waits for
ever: the loop, or a client's own thread, for which the interpreter then waits as it ends. What ends
the process waits outside of Python (`faulthandler`): it needs no memory and nobody's lock, and says
what each thread was at.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

# more than giving partitions away, or stopping, may take after the last round
_LONGEST_STEP_SECONDS = 60.0
_LOOKS = 5  # within the time that it may stand still


@contextmanager
def watched(idle_seconds: Callable[[], float], stuck_after_seconds: float) -> Iterator[None]:
    """For a block that is the last thing its process does: the process ends with exit code 1, and
    the stack of each thread on stderr, once the loop has stood still for `stuck_after_seconds` and
    a minute, and when it is still there as long after the block. idle_seconds: for how long the
    loop has stood still; any thread may ask."""
    limit = stuck_after_seconds + _LONGEST_STEP_SECONDS
    over = threading.Event()

    def watch() -> None:
        try:
            while not over.is_set():
                if idle_seconds() < stuck_after_seconds:
                    faulthandler.dump_traceback_later(limit, exit=True)
                over.wait(stuck_after_seconds / _LOOKS)
        except BaseException:  # noqa: BLE001  # out of memory nothing else would end it
            _log.exception("nobody watches the loop any more: ending")
            os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()
