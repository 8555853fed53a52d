"""A driver without memory says that its server does not answer: that is no outage to wait out."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.errors import OutOfMemory, StoreUnreachable
from gpu_token_analytics.ingest import settle
from gpu_token_analytics.ingest.settle import BatchWriter
from gpu_token_analytics.metrics import Metrics


class Writer(BatchWriter):
    """Only what waits."""

    def __init__(self) -> None:
        self._metrics, self._clock = Metrics(), ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self._abandon = threading.Event()
        self.waiting_since = None
        self.answers: list[Any] = [StoreUnreachable("no answer"), StoreUnreachable("none"), "done"]

    def ask(self) -> Any:
        """What the store says next."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_outage_is_waited_out_and_want_of_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cast("str", Writer()._through_outages("insert", Writer().ask)) == "done"
    monkeypatch.setattr(settle, "_LEAST_FREE_BYTES", 2**62)
    writer = Writer()
    with pytest.raises(OutOfMemory, match=r"no more memory.*no answer"):
        writer._through_outages("insert", writer.ask)
    assert writer.answers[-1] == "done", "it did not go on"
