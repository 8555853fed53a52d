"""A loop that stands still ends its process, whatever else of it runs; one that goes round does
not, until it is over and its process does not come to its end."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROCESS = """
import sys, threading, time
from gpu_token_analytics.processor import watchdog

watchdog._LONGEST_STEP_SECONDS = 0.5
begun = time.monotonic()
stands_still = sys.argv[1] == "stands still"
with watchdog.watched(lambda: time.monotonic() - begun if stands_still else 0.0, 0.5):
    threading.Event().wait(30 if stands_still else 2.5)
print("the loop is over", flush=True)
if sys.argv[1] == "never ends":
    threading.Thread(target=threading.Event().wait).start()  # the interpreter waits for it
"""


@pytest.mark.parametrize(
    ("loop", "code", "is_over"),
    [("stands still", 1, False), ("never ends", 1, True), ("goes round", 0, True)],
)
def test_only_what_stands_still_is_ended(loop: str, code: int, is_over: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, loop],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ("the loop is over" in ended.stdout) is is_over
    assert ("most recent call first" in ended.stderr) is (code == 1), "where each thread was"
