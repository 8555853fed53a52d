"""Batches in flight: one settles while the next are stored, and they are committed in order or not
at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import StoreRefused
from gpu_token_analytics.ingest import run
from gpu_token_analytics.ingest.run import Ingest
from gpu_token_analytics.ingest.settle import Stored
from gpu_token_analytics.ingest.shaped import Raws, Shaped
from gpu_token_analytics.kafka.records import Position, RecordBatch
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.encoded import EncodedDocuments
from gpu_token_analytics.settings import load
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE, TokenUsage

STORE_NOW = datetime(2031, 1, 1, tzinfo=UTC)
BATCHES = 4
LONG_SECONDS = 10.0


def batch(number: int, event_id: str) -> RecordBatch:
    event = TokenUsage(
        event_id=event_id,
        ts=datetime(2026, 1, 1, tzinfo=UTC),
        host="h",
        model="m",
        request_id="r",
        prompt_tokens=1,
        completion_tokens=1,
        gpu_uuids=["GPU-a"],
    )
    return RecordBatch("tokens", [encode(event)], [0], [number], [-1], {0: Position(number + 1, 1)})


class Source:
    """The topic: BATCHES batches of one record, then `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self.on_revoke: Callable[[], None] = lambda: None
        self.committed: list[int] = []
        self.revoke_at = -1
        self.ids = [f"u{number}" for number in range(BATCHES)]
        self._stop, self._next = stop, 0
        self.owned: frozenset[int] = frozenset({0})

    def poll(self, _max_records: int, _wait_seconds: float) -> RecordBatch:
        number, self._next = self._next, self._next + 1
        if number == self.revoke_at:
            self.on_revoke()
        if number < BATCHES:
            return batch(number, self.ids[number])
        if number > BATCHES:
            self._stop.set()
        return RecordBatch("tokens")

    def commit(self, positions: Mapping[int, Position]) -> bool:
        self.committed.append(positions[0].offset - 1)
        return True

    def start(self) -> None: ...

    def keep_alive(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def lag(self) -> dict[int, int]:
        return {}


class StoreClock:
    """All that is asked of the store here. It is far from this machine's clock."""

    refused_after = BATCHES  # so many looks at the clock find nothing wrong

    def now(self) -> datetime:
        return STORE_NOW

    def check_clock(self) -> None:
        self.refused_after -= 1
        if self.refused_after < 0:
            raise StoreRefused("far apart")


class Writer:
    """Stores and settles as each test says."""

    def __init__(self) -> None:
        self.waiting_since = None
        self.settled: list[int] = []
        self.stored = [threading.Event() for _ in range(BATCHES)]
        self.ingested_at: list[datetime] = []
        self.known_gpus: set[str] = set()

    def store(self, shaped: Shaped) -> Stored:
        self.stored[number_of(shaped)].set()
        self.ingested_at += [
            document["ingested_at"] for document in shaped.raws[USAGE].documents.decoded()
        ]
        return Stored([], first_time=True)

    def recall_gpus(self) -> None:
        """It knows none."""

    def settle(self, shaped: Shaped, _stored: Stored) -> None:
        self.settled.append(number_of(shaped))

    def abandon(self) -> None: ...


def number_of(shaped: Shaped) -> int:
    return shaped.records.offsets[0]


def ingest(
    monkeypatch: pytest.MonkeyPatch,
    writer: Writer,
    revoke_at: int = -1,
    clock: StoreClock | None = None,
) -> tuple[Ingest, Source, threading.Event]:
    monkeypatch.setattr(run, "BatchWriter", lambda *_: writer)
    stop = threading.Event()
    source = Source(stop)
    source.revoke_at = revoke_at
    nothing: Any = None
    store: Any = clock or StoreClock()
    topic: Any = source
    return Ingest(topic, store, nothing, load(), Metrics(), SystemClock()), source, stop


@pytest.mark.parametrize("revoke_at", [-1, 2])
def test_one_settles_while_the_next_is_stored(
    monkeypatch: pytest.MonkeyPatch, revoke_at: int
) -> None:
    class Patient(Writer):
        """A batch settles when the next one is stored, and not before: one at a time would wait for
        ever."""

        def settle(self, shaped: Shaped, stored: Stored) -> None:
            following = number_of(shaped) + 1
            if following < BATCHES and following != revoke_at:
                assert self.stored[following].wait(LONG_SECONDS), "nothing is stored meanwhile"
            super().settle(shaped, stored)

    writer = Patient()
    loop, source, stop = ingest(monkeypatch, writer, revoke_at)
    loop.run(stop)
    assert source.committed == writer.settled == list(range(BATCHES))


def test_two_are_stored_at_once_and_whichever_is_first_they_are_committed_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Overtaken(Writer):
        """An even batch is stored when the next one has been: one at a time would wait for ever."""

        def store(self, shaped: Shaped) -> Stored:
            number = number_of(shaped)
            if number % 2 == 0:
                assert self.stored[number + 1].wait(LONG_SECONDS), (
                    "the next one is not stored meanwhile"
                )
            return super().store(shaped)

    writer = Overtaken()
    loop, source, stop = ingest(monkeypatch, writer)
    loop.run(stop)
    assert source.committed == writer.settled == list(range(BATCHES))


def test_what_was_read_before_a_failed_batch_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Writer):
        """The second batch fails while the first is being stored."""

        failed = threading.Event()

        def store(self, shaped: Shaped) -> Stored:
            if number_of(shaped) == 1:
                self.failed.set()
                raise StoreRefused("full")
            assert self.failed.wait(LONG_SECONDS)
            return super().store(shaped)

    loop, source, stop = ingest(monkeypatch, Failing())
    with pytest.raises(StoreRefused):
        loop.run(stop)
    assert source.committed == [0]


@pytest.mark.parametrize("stage", ["store", "settle"])
def test_what_was_read_after_a_failed_batch_is_not_committed(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    class Failing(Writer):
        """The second batch fails; the third would go through."""

        def store(self, shaped: Shaped) -> Stored:
            if (stage, number_of(shaped)) == ("store", 1):
                raise StoreRefused("full")
            return super().store(shaped)

        def settle(self, shaped: Shaped, stored: Stored) -> None:
            if number_of(shaped) == 1:
                assert self.stored[2].wait(LONG_SECONDS)
                raise StoreRefused("full")
            super().settle(shaped, stored)

    loop, source, stop = ingest(monkeypatch, Failing())
    with pytest.raises(StoreRefused):
        loop.run(stop)
    assert source.committed == [0]


def test_batches_with_an_id_in_common_are_stored_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Writer):
        """The second batch takes its time, in which the third would be stored."""

        def store(self, shaped: Shaped) -> Stored:
            if number_of(shaped) == 1:
                assert not self.stored[2].wait(0.5), (
                    "of two events with one id the second is stored"
                )
            return super().store(shaped)

    loop, source, stop = ingest(monkeypatch, Slow())
    source.ids = ["u0", "same", "same", "u3"]
    loop.run(stop)
    assert source.committed == list(range(BATCHES))


def test_a_batch_with_an_id_of_one_that_failed_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(Writer):
        def store(self, shaped: Shaped) -> Stored:
            if number_of(shaped) == 1:
                threading.Event().wait(0.3)  # the third has begun, and waits
                raise StoreRefused("full")
            return super().store(shaped)

    writer = Failing()
    loop, source, stop = ingest(monkeypatch, writer)
    source.ids = ["u0", "same", "same", "u3"]
    with pytest.raises(StoreRefused):
        loop.run(stop)
    assert not writer.stored[2].wait(0.3), "after a restart the first one would be the conflict"
    assert source.committed == [0]


@pytest.mark.parametrize(("samples", "shared"), [(["a", "b"], True), (["b"], False)])
def test_ids_are_in_common_within_a_collection(samples: list[str], shared: bool) -> None:
    def shaped(usages: list[str], samples: list[str]) -> Shaped:
        return Shaped(
            RecordBatch("tokens"),
            raws={
                USAGE: Raws(EncodedDocuments(ids=[name.encode() for name in usages])),
                SAMPLE: Raws(EncodedDocuments(ids=[name.encode() for name in samples])),
            },
        )

    here = shaped(["u0", "b"], ["a"])
    assert here.shares_ids(shaped(["u1", "a"], samples)) is shared
    assert here.shares_ids(shaped(["u1", "u0"], [])) is True


def test_what_is_deleted_by_the_stores_clock_is_dated_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A processor that is 40 days slow would else have its raw events deleted at once."""
    writer = Writer()
    loop, _, stop = ingest(monkeypatch, writer)
    loop.run(stop)
    assert set(writer.ingested_at) == {STORE_NOW.replace(tzinfo=None)}
    assert len(writer.ingested_at) == BATCHES


def test_a_clock_that_is_set_while_running_destroys_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was read before it is stored and committed, what was read after it is neither: it is
    read again."""
    clock, writer = StoreClock(), Writer()
    clock.refused_after = 2
    loop, source, stop = ingest(monkeypatch, writer, clock=clock)
    with pytest.raises(StoreRefused):
        loop.run(stop)
    assert source.committed == writer.settled == [0, 1]
    assert not writer.stored[2].is_set()
