"""How far the sums are behind is told without asking MongoDB: /health and /metrics say it while
MongoDB is silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpu_token_analytics.errors import StoreUnreachable
from gpu_token_analytics.rollups.step import Rollups


class Sums:
    """Sums with one dirty cell, computed seven seconds before the server's time; `silent`: no
    question is answered."""

    def __init__(self) -> None:
        self.server_time = datetime(2026, 1, 31, 12, tzinfo=UTC)
        self.dirty: dict[str, Any] | None = {"computed_at": self.server_time - timedelta(seconds=7)}
        self.silent = False

    def now(self) -> datetime:
        if self.silent:
            raise StoreUnreachable("MongoDB does not answer")
        return self.server_time

    def oldest_dirty(self) -> dict[str, Any] | None:
        self.now()
        return self.dirty

    def sweep(self) -> int:
        return 0

    def retry_set_aside(self) -> None:
        pass

    def dirty_gpu_hours(self, _limit: int) -> list[Any]:
        return []

    def dirty_hours(self, _scope: str, _limit: int) -> list[Any]:
        return []

    def roll_fleet_hours(self, _hours: object) -> None:
        pass

    roll_fleet_days = roll_gpu_days = mark_rolled = roll_fleet_hours


def test_the_lag_goes_on_without_a_question_while_mongodb_is_silent() -> None:
    monotonic = [100.0]
    sums = Sums()
    rollups = Rollups(sums, monotonic_seconds=lambda: monotonic[0])  # type: ignore[arg-type]
    assert rollups.lag_seconds == 0
    rollups.step_now()
    assert rollups.lag_seconds == 7
    sums.silent = True
    monotonic[0] += 30
    with pytest.raises(StoreUnreachable):
        rollups.step_now()
    assert rollups.lag_seconds == 37
    sums.silent, sums.dirty = False, None
    rollups.step_now()
    assert rollups.lag_seconds == 0
