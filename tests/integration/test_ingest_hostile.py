"""Hostile records through the real loop: each ends in the dead letters with its reason; nothing
stops, nothing grows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.contract.example_records import load as examples
from tests.integration.delivery_support import (
    Processor,
    delivery_settings,
    eventually,
    lag,
    send,
    stored,
    usages,
)

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import seed_offsets
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.kind import encode

BAD = examples("bad")


@pytest.fixture
def settings(mock_broker: EmbeddedBroker, mongo_uri: str, mongo_database: str) -> Settings:
    # These tests send little else, so the breaker is off; test_ingest_faults.py tests it.
    found = delivery_settings(
        mock_broker.bootstrap, mongo_uri, mongo_database, bad_record_limit_ratio=1.0
    )
    seed_offsets(found)
    return found


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    found = open_store(settings)
    yield found
    found.close()


@pytest.fixture
def processor(
    settings: Settings, tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[Processor]:
    with Processor(settings, tmp_path / "processor.log") as found:
        keep_log(found.log)
        yield found.wait_ready()


def send_bad(settings: Settings, rounds: int = 1) -> None:
    with EventProducer(settings) as producer:
        for _ in range(rounds):
            for number, example in enumerate(BAD):
                producer.send_raw(example.value, f"vm{number % 12}")
            producer.flush(30)


def test_each_ends_in_the_dead_letters_with_its_reason(
    settings: Settings, store: Store, processor: Processor
) -> None:
    good = usages(300)
    sent = send(settings, good[:150])
    send_bad(settings)
    sent |= send(settings, good[150:])
    eventually(lambda: lag(settings) == 0, what="reading everything")
    letters = list(read_dead_letters(settings))
    found = Counter(
        (letter.reason, (letter.value or b"")[:65536], letter.cut_from_bytes) for letter in letters
    )
    expected = Counter(
        (
            example.case["reason"],
            (example.value or b"")[:65536],
            len(example.value)
            if example.value is not None and len(example.value) > 900 * 1024
            else None,
        )
        for example in BAD
    )
    assert found == expected
    assert {letter.value is None for letter in letters if letter.reason == "empty"} == {
        True,
        False,
    }, "null stays null"
    assert all(letter.message and letter.topic == settings.kafka_topic for letter in letters)
    assert stored(store).keys() == sent.keys(), "everything valid around them is stored"
    assert processor.get("/health")[0] == 200
    for reason, count in Counter(example.case["reason"] for example in BAD).items():
        assert processor.metric("gpu_tokens_dead_letters_total", reason=reason) == count
    assert processor.stop() == 0


def test_the_same_id_with_another_payload_is_a_dead_letter(
    settings: Settings, store: Store, processor: Processor
) -> None:
    event = usages(1)[0]
    sent = send(settings, [event])
    eventually(lambda: lag(settings) == 0)
    other = json.loads(sent[event.event_id]) | {"prompt_tokens": 999_999}
    with EventProducer(settings) as producer:
        for value in (json.dumps(other).encode(), sent[event.event_id], json.dumps(other).encode()):
            producer.send_raw(value, event.host)
    eventually(lambda: lag(settings) == 0)
    letters = list(read_dead_letters(settings))
    assert [letter.reason for letter in letters] == ["id_conflict", "id_conflict"]
    assert event.event_id in letters[0].message
    assert stored(store)[event.event_id]["prompt_tokens"] == event.prompt_tokens, (
        "the first one stays"
    )
    assert processor.metric("gpu_tokens_duplicates_total", collection="token_usage") == 1


def test_ten_thousand_headers_are_read_by_nobody(
    settings: Settings, store: Store, processor: Processor
) -> None:
    (event,) = usages(1)
    with EventProducer(settings) as producer:
        producer.send_raw(
            encode(event), event.host, headers=[(f"x{number}", b"y") for number in range(10_000)]
        )
        producer.flush(30)
    eventually(lambda: lag(settings) == 0)
    assert stored(store).keys() == {event.event_id}
    assert not list(read_dead_letters(settings))
    assert processor.get("/health")[0] == 200


def test_memory_stays_flat(settings: Settings, store: Store, processor: Processor) -> None:
    before = after = 0.0

    def round_trip(rounds: int) -> float:
        send_bad(settings, rounds)
        send(settings, usages(2000))
        eventually(lambda: lag(settings) == 0, 90)
        return processor.rss_mb()

    for _ in range(3):  # buffers, caches and the allocator's arenas reach their size
        before = round_trip(20)
    for _ in range(6):
        after = round_trip(20)
    assert after - before < 25, (
        f"{before:.0f} MB -> {after:.0f} MB over 120 x {len(BAD)} hostile records"
    )
    assert after < 400
    assert processor.get("/health")[0] == 200
