"""Silence: the minutes of GPUs that say nothing are opened as they pass, at a price that many dead
GPUs do not raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from tests.integration.ledger_support import (
    MINUTE,
    Commands,
    Pipeline,
    close_due,
    minutes_ago,
    sample,
    usage,
)


class Silent:
    """GPUs that were sampled once, and a closer whose clock is moved by hand. Minutes count from
    that of the samples."""

    def __init__(self, one: Pipeline, monkeypatch: pytest.MonkeyPatch, gpus: int = 1) -> None:
        # of the machine, which may begin another minute meanwhile: up to two are none too many
        self.at = minutes_ago(1)
        self._now = self.at + 3 * MINUTE
        monkeypatch.setattr(one.store, "now", lambda: self._now)
        self._one, self.closer = one, one.closer()
        one.ingest(
            [
                sample(number, self.at, gpu_uuid=f"GPU-{number}", gpu_index=number)
                for number in range(gpus)
            ]
        )
        self.close()

    def close(self) -> None:
        close_due(self.closer)

    def housekeep(self, minute: float) -> None:
        self._now = self.at + minute * MINUTE
        self.closer.housekeep()

    @property
    def owned(self) -> list[float]:
        """The minutes of GPU-0 that are owned."""
        minutes = (
            cell["minute"] for cell in self._one.cells(gpu="GPU-0", owned_us={"$gt": 0}).values()
        )
        return sorted((minute - self.at) / MINUTE for minute in minutes)


def test_gpus_that_are_heard_of_cost_housekeeping_nothing(
    pipeline: Callable[..., Pipeline], commands: Commands
) -> None:
    def housekeeping(gpus: int) -> Counter[str]:
        one = pipeline(f"_{gpus}", silent_gpu_owned_minutes=1440)
        now = datetime.now(UTC)
        one.ingest(
            [
                sample(number, now, gpu_uuid=f"GPU-{number}", gpu_index=number)
                for number in range(gpus)
            ]
        )
        one.close()
        closer, before = one.closer(), commands.sent.copy()
        closer.housekeep()
        return commands.sent - before

    assert housekeeping(1) == housekeeping(20)


def test_a_silent_gpu_costs_a_command_a_minute_and_none_when_nobody_owns_it_any_more(
    pipeline: Callable[..., Pipeline], commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(silent: Silent, minute: float) -> int:
        before = commands.sent.total()
        silent.housekeep(minute)
        asked = commands.sent.total() - before
        silent.close()
        return asked

    few = Silent(pipeline("_few", silent_gpu_owned_minutes=5), monkeypatch, 1)
    many = Silent(pipeline("_many", silent_gpu_owned_minutes=5), monkeypatch, 11)
    assert sent(many, 3.1) > sent(few, 3.1)
    more = {
        minute: sent(many, minute) - sent(few, minute)
        for minute in (3.2, 3.9, 4.0, 4.1, 5.1, 9.0, 9.1, 30.0, 200.0)
    }
    assert more == {3.2: 0, 3.9: 0, 4.0: 10, 4.1: 0, 5.1: 10, 9.0: 10, 9.1: 0, 30.0: 0, 200.0: 30}
    assert few.owned == many.owned == [0, 1, 2, 3, 4, 5]


def test_silence_is_opened_minute_by_minute_and_goes_on_after_what_is_heard_in_it(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline(silent_gpu_owned_minutes=4)
    silent = Silent(one, monkeypatch)
    for minute, owned in ((3.0, 2), (3.9, 2), (4.0, 3), (7.0, 4), (9.0, 4)):
        silent.housekeep(minute)
        silent.close()
        assert silent.owned == list(range(owned + 1)), minute
    one.ingest([usage(1, silent.at + 1.5 * MINUTE, 5.0, gpu_uuids=["GPU-0"])])
    silent.close()
    silent.housekeep(9.1)
    silent.close()
    assert silent.owned == [0, 1, 2, 3, 4, 5], "heard of again in minute 1"
    one.ingest([usage(2, silent.at + 2.5 * MINUTE, 5.0, gpu_uuids=["GPU-0"])])
    close_due(one.closer())  # which dies then
    silent.housekeep(9.2)
    silent.close()
    assert silent.owned == [0, 1, 2, 3, 4, 5], "minute 6 has no cell yet"
    silent.housekeep(70.0)
    silent.close()
    assert silent.owned == [0, 1, 2, 3, 4, 5, 6]


def test_a_gpu_that_another_process_heard_of_is_looked_at_again(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline(silent_gpu_owned_minutes=4)
    silent = Silent(one, monkeypatch)
    silent.housekeep(3.0)
    silent.close()
    one.ingest([sample(2, silent.at + 2 * MINUTE, gpu_uuid="GPU-0", gpu_index=0)])
    close_due(one.closer())
    for minute in (3.1, 5.0, 9.0):
        silent.housekeep(minute)
        silent.close()
    assert silent.owned == [0, 1, 2, 3, 4, 5, 6]
