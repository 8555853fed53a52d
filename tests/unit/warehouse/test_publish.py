"""What the process that writes the ledger's topic says of how far it is behind."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.warehouse.publish import Publisher


class Leads:
    """An outbox with a cell that waits, whose lead is free."""

    def lead(self, _holder: str) -> bool:
        return True

    def oldest_seconds(self) -> float:
        return 1234.0


class Closed:
    """A topic that cannot be opened."""

    name, is_open = "ledger", False

    def open(self) -> None:
        raise KafkaError("topic ledger is not there")

    def close(self) -> None:
        pass


class Observed:
    def __init__(self) -> None:
        self.lag: list[float] = []

    def ledger_topic_lag(self, seconds: float) -> None:
        self.lag.append(seconds)


def test_the_lag_grows_while_the_topic_cannot_be_opened() -> None:
    observed = Observed()
    publisher = Publisher(cast(Any, Leads()), cast(Any, Closed()), cast(Any, observed))
    with pytest.raises(KafkaError):
        publisher.step()
    assert observed.lag == [1234.0]
