"""Keeps the rollups equal to the sums of their cells. Called by the closer's thread; safe to run in
every replica.

    1 dirty cells        -> hourly documents of their GPUs   (then the cells are marked rolled)
    2 dirty GPU hours    -> fleet hours and GPU days         (then the GPU hours are marked rolled)
    3 dirty fleet hours  -> fleet days                       (then the fleet hours are marked
      rolled)

A crash between any two lines leaves something dirty, and the next step does it again. What is dirty
is in the database, so no step remembers anything.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.rollups.store import RollupStore, chunks, day_of

CELLS_PER_STEP = 10_000
GPU_HOURS_PER_WRITE = 100
HOURS_PER_STEP = 2_000
LOOK_AFTER_SECONDS = 600.0


class Rollups:
    """One stepper. `min_interval_seconds`: the hour under way changes every few seconds; roll it no
    more often than that."""

    def __init__(
        self,
        store: RollupStore,
        *,
        min_interval_seconds: float = 5.0,
        monotonic_seconds: Callable[[], float] = monotonic,
        crash_point: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """crash_point: called with a name between the effects, so that a test can die there."""
        self._store = store
        self._interval_seconds = min_interval_seconds
        self._clock = monotonic_seconds
        self._crash_point = crash_point
        self._behind_since: float | None = None  # on the clock above
        self._not_before = self._look_after_at = float("-inf")

    @property
    def lag_seconds(self) -> float:
        """For how long a computed cell has been waiting to be in the sums, as of the last step; 0:
        none waits.

        Asks nobody: /health and /metrics answer with it while MongoDB does not.
        """
        since = self._behind_since
        return 0.0 if since is None else max(0.0, self._clock() - since)

    def step(self) -> int:
        """Roll a bounded part of what is dirty. Returns how many GPU hours and hours were
        recomputed; 0: nothing to do."""
        if self._clock() < self._not_before:
            return 0
        self._not_before = self._clock() + self._interval_seconds
        return self.step_now()

    def step_now(self) -> int:
        """`step` without the pause between steps. Raises StoreError; what was not done then stays
        dirty."""
        with store_errors("roll cells up"):
            return self._step()

    def _look_after(self) -> None:
        """Now and then: what crashes left, what was set aside."""
        if self._clock() >= self._look_after_at:
            self._look_after_at = self._clock() + LOOK_AFTER_SECONDS
            self._store.sweep()
            self._store.retry_set_aside()

    def _step(self) -> int:
        self._look_after()
        oldest = self._store.oldest_dirty()
        computed_at = None if oldest is None else oldest.get("computed_at")
        waits = None if computed_at is None else (self._store.now() - computed_at).total_seconds()
        self._behind_since = None if waits is None else self._clock() - max(0.0, waits)
        gpu_hours = self._store.dirty_gpu_hours(CELLS_PER_STEP)
        for chunk in chunks(gpu_hours, GPU_HOURS_PER_WRITE):
            self._store.roll_gpu_hours(chunk)
            self._crash_point("gpu_hours")
        done = len(gpu_hours) + self._gpu_hours() + self._fleet_hours()
        if len(gpu_hours) and done >= CELLS_PER_STEP // 60:
            self._not_before = float("-inf")  # a backlog: go on at once
        return done

    def _gpu_hours(self) -> int:
        hours = self._store.dirty_hours("gpu", HOURS_PER_STEP)
        fleet_hours = self._store.roll_fleet_hours(hour["start"] for hour in hours)
        self._crash_point("fleet_hours")
        gpu_days = self._store.roll_gpu_days((hour["gpu"], day_of(hour["start"])) for hour in hours)
        self._crash_point("gpu_days")
        self._store.mark_rolled(
            [
                hour
                for hour in hours
                if hour["start"] in fleet_hours and (hour["gpu"], day_of(hour["start"])) in gpu_days
            ]
        )
        return len(hours)

    def _fleet_hours(self) -> int:
        hours = self._store.dirty_hours("fleet", HOURS_PER_STEP)
        days = self._store.roll_fleet_days(day_of(hour["start"]) for hour in hours)
        self._crash_point("fleet_days")
        self._store.mark_rolled([hour for hour in hours if day_of(hour["start"]) in days])
        return len(hours)
