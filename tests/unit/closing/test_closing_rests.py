"""When closing works and when it leaves the machine to ingest."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime

import pytest

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.closing.closer import (
    CATCH_UP_REST_SECONDS,
    IDLE_WAIT_SECONDS,
    Closer,
    ClosingRules,
)
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.settings import load

UNTIL_SECONDS = 60.0


class CountingCloser(Closer):
    """Each round finds cells to do in two steps; notes when."""

    def __init__(
        self, clock: ManualClock, stop: threading.Event, recent: RecentEvents | None = None
    ) -> None:
        store = LedgerStore.__new__(LedgerStore)
        store.recent = recent
        super().__init__(store, LedgerParams(), ClosingRules.of(load()), Metrics())
        self._clock, self._stop = clock, stop
        self.steps: list[float] = []

    def housekeep(self) -> None:
        """Nothing."""

    def step(self) -> int:
        self.steps.append(self._clock.monotonic())
        if self._clock.monotonic() >= UNTIL_SECONDS:
            self._stop.set()
        return 0 if len(self.steps) % 3 == 0 else 1


class StoringClock(ManualClock):
    """A second in which `share` of what is remembered is stored."""

    def __init__(self, recent: RecentEvents, share: float) -> None:
        super().__init__(datetime(2026, 1, 1, tzinfo=UTC))
        self._recent, self._bytes = recent, round(1000 * share)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """As a ManualClock, with events stored meanwhile."""
        self._recent.add(
            [], [{"_id": b"", "gpu": "g", "ts_us": 0}], round(self._bytes * seconds), [], []
        )
        return super().wait(stop, seconds)


@pytest.mark.parametrize(
    ("share", "rest_seconds"), [(0.2, 2.0), (0.05, 8.0), (0.01, CATCH_UP_REST_SECONDS)]
)
def test_a_rest_ends_before_what_was_stored_meanwhile_is_forgotten(
    share: float, rest_seconds: float
) -> None:
    recent = RecentEvents(most_bytes=1000)
    clock, stop = StoringClock(recent, share), threading.Event()
    closer = CountingCloser(clock, stop, recent)
    closer.run(stop, clock, catching_up=lambda: True)
    waits = [after - before for before, after in itertools.pairwise(closer.steps[::3])]
    assert waits == pytest.approx([rest_seconds] * len(waits), abs=0.4)


@pytest.mark.parametrize("catching_up", [True, False])
def test_a_round_is_finished_and_followed_by_a_rest_while_ingest_catches_up(
    catching_up: bool,
) -> None:
    clock, stop = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), threading.Event()
    closer = CountingCloser(clock, stop)
    closer.run(stop, clock, catching_up=lambda: catching_up)
    rounds = closer.steps[::3]
    assert closer.steps[1::3] == rounds[: len(closer.steps[1::3])], (
        "a round goes on until nothing is due"
    )
    waits = {round(after - before, 1) for before, after in itertools.pairwise(rounds)}
    if catching_up:
        assert min(waits) >= CATCH_UP_REST_SECONDS
        assert max(waits) <= CATCH_UP_REST_SECONDS + 2 * IDLE_WAIT_SECONDS
    else:
        assert waits == {IDLE_WAIT_SECONDS}
