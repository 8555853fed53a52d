"""How far this machine's clock may be from MongoDB's."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.mongo.client import Store, check_skew
from gpu_token_analytics.settings import load


@pytest.mark.parametrize(
    ("seconds", "side"), [(301, "behind"), (-301, "ahead of"), (40 * 86_400, "behind")]
)
def test_a_large_skew_is_refused(seconds: int, side: str) -> None:
    with pytest.raises(StoreRefused, match=f"is [0-9,]+ s {side} MongoDB's: set both by NTP"):
        check_skew(timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "warnings"), [(0, 0), (4.9, 0), (-4.9, 0), (6, 1), (-299, 1)])
def test_a_smaller_one_is_told(
    seconds: float, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check_skew(timedelta(seconds=seconds))
    assert len(caplog.records) == warnings


class Server:
    """All of a MongoClient that the clock asks, and a database for the Store's sake."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self.admin = self

    def command(self, _name: str) -> dict[str, Any]:
        return {"localTime": (datetime.now(UTC) + self.ahead).replace(tzinfo=None)}

    def get_database(self, *_name: Any, **_options: Any) -> None:
        return None


def test_a_clock_that_is_set_while_running_is_seen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server: Any = Server()
    store = Store(server, load(), "test")
    monotonic, passed = time.monotonic, [0.0]
    monkeypatch.setattr(
        "gpu_token_analytics.mongo.client.time.monotonic", lambda: monotonic() + passed[0]
    )
    store.check_clock()
    store.now()
    assert abs(store.clock_ahead) < timedelta(seconds=1)
    server.ahead = timedelta(seconds=20)
    passed[0] += 31  # the next look
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            store.now()
            store.check_clock()
    assert timedelta(seconds=19) < store.clock_ahead < timedelta(seconds=21)
    assert len(caplog.records) == 1, "not with every batch"
    server.ahead = timedelta(seconds=301)
    passed[0] += 31
    store.now()
    with pytest.raises(StoreRefused, match=r"is 301 s behind MongoDB's.*Nothing is lost"):
        store.check_clock()
    server.ahead = timedelta()
    store.check_clock()  # it looks before it refuses
    passed[0] += 400  # as if the machine had slept for so long
    store.check_clock()
