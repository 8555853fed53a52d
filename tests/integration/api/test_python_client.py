"""The Python client against the real API: acknowledged, refused singly, refused for its key, and
Kafka away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.integration.api.conftest import NOW, Api

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.errors import DeliveryFailed
from gpu_tokens_client import UsageClient, sender


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(sender, "_FIRST_RETRY_SECONDS", 0.05)


@pytest.fixture
def client(api: Api, tmp_path: Path) -> Iterator[UsageClient]:
    api.sink.records.clear()
    with UsageClient(
        api.url,
        api.key(KeyScope.INGEST),
        spool_dir=tmp_path,
        host="h1",
        gpu_uuids=["GPU-1"],
        model="m",
    ) as client:
        yield client


def ids_of(api: Api) -> list[str]:
    """Ids of the records that reached Kafka's place."""
    return [msgspec.json.decode(record)["event_id"] for _, record in api.sink.records]


def test_accepted_records_reach_the_topic_and_refused_ones_are_set_aside(
    api: Api, client: UsageClient
) -> None:
    good = client.emit(ended_at=NOW, prompt_tokens=10, completion_tokens=5, latency_ms=100.0)
    # more cached than there are
    bad = client.emit(ended_at=NOW, prompt_tokens=10, completion_tokens=5, cached_tokens=11)
    last = client.emit(ended_at=NOW, prompt_tokens=0, completion_tokens=0)
    assert client.flush(30)
    stats = client.stats()
    assert (stats.delivered, stats.rejected) == (2, 1)
    assert "cached_tokens=11" in str(stats.last_error)
    assert ids_of(api) == [good, last]
    assert bad not in ids_of(api)


def test_a_batch_of_which_nothing_is_accepted_ends_too(api: Api, client: UsageClient) -> None:
    for _ in range(5):
        client.emit(ended_at=NOW, prompt_tokens=-1, completion_tokens=5)
    assert client.flush(30)
    assert client.stats().rejected == 5
    assert ids_of(api) == []


def test_while_kafka_is_away_events_wait_and_then_arrive_under_their_ids(
    api: Api, client: UsageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [1, 2]
    flush = api.sink.flush

    def failing(timeout_seconds: float) -> None:
        if failures:
            failures.pop()
            api.sink.records.clear()
            raise DeliveryFailed("no broker")
        flush(timeout_seconds)

    monkeypatch.setattr(api.sink, "flush", failing)
    monkeypatch.setattr(sender, "_LAST_RETRY_SECONDS", 0.2)
    ids = [client.emit(ended_at=NOW, prompt_tokens=1, completion_tokens=1) for _ in range(3)]
    assert client.flush(60)
    assert ids_of(api) == ids
    assert "Kafka" in str(client.stats().last_error)
