"""The first signal asks, the second one ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from gpu_token_analytics.signals import stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process() -> None:
    program = (
        "import signal\n"
        "from gpu_token_analytics.signals import stoppable\n"
        "with stoppable():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('asked', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.returncode) == ("asked\n", -signal.SIGTERM)
