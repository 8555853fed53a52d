"""Any story of deliveries, deaths and late news ends in the ledger that the sent events, the prices
and the oracle say.

The machine draws the story: records are sent, sent again, late; two replicas read from where the
group is, die at any step, come back with an empty memory, read what the other one has stored
already, close; prices are written backwards. Its model is a dictionary: what was sent, by id.
MODEL_EXAMPLES (default 12) is how many stories are told.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.integration.killloop.oracle_judge import ledger_against_oracle
from tests.integration.killloop.world import World
from tests.integration.ledger_support import NoLetters, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.cells.store import CellStore
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.ingest.settle import BatchWriter, LoopStage
from gpu_token_analytics.kafka.dead_letters import DeadLetters
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "12"))
GPUS = ("GPU-a", "GPU-b")  # h1/0 and h1/1
REPLICAS = st.integers(0, 1)
STORY_MINUTES = 6


class Died(BaseException):
    """A process ends here."""


class Replica(Pipeline):
    """A pipeline that dies when a step is over; and what a process knows is gone with it."""

    dies_after: LoopStage | None = None

    def _new_writer(self) -> BatchWriter:
        letters = cast("DeadLetters", NoLetters())
        debounce_seconds = self.settings.close_debounce_seconds
        return BatchWriter(
            self.store,
            letters,
            debounce_seconds,
            self.metrics,
            SystemClock(),
            self._die,
            self._recent,
        )

    def _die(self, step: LoopStage) -> None:
        if step is self.dies_after:
            raise Died

    def read(self, events: list[Event], dies_after: LoopStage | None) -> bool:
        """Steps 2 to 6 of one batch. False: it died, and started again."""
        self.dies_after = dies_after
        try:
            self.ingest(events)
        except Died:
            self.restart()
            return False
        finally:
            self.dies_after = None
        return True


@contextmanager
def dying_writes(before: bool) -> Iterator[None]:
    """The closer dies before its cells are written, or when they just were."""
    write = CellStore.write

    def die(self: CellStore, *arguments: Any) -> Any:
        if not before:
            write(self, *arguments)
        raise Died

    with mock.patch.object(CellStore, "write", die), suppress(Died):
        yield


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """One event, but for its id and the start of the story."""
    gpu = draw(st.integers(0, 1))
    at = timedelta(milliseconds=draw(st.integers(0, STORY_MINUTES * 60_000)))
    if draw(st.booleans()):
        memory_mb = draw(st.sampled_from([4.0, 70_000.0, None]))
        return {"gpu": gpu, "at": at, "mem_used_mb": memory_mb}
    latency_s = draw(st.one_of(st.none(), st.integers(0, 200)))
    return {
        "gpu": gpu,
        "at": at,
        "latency_ms": None if latency_s is None else latency_s * 1000.0,
        # names its GPU by host and index; samples may teach later what that means
        "labelled": draw(st.booleans()),
        "tenant": draw(st.sampled_from(["t", "u"])),
        "prompt_tokens": draw(st.integers(0, 5000)),
        "completion_tokens": draw(st.integers(0, 500)),
    }


class Story(RuleBasedStateMachine):
    """`topic` is the log, `committed` where the group is in it, `world.valid` the model."""

    uri: str

    @initialize()
    def begin(self) -> None:
        database = f"model_{uuid.uuid4().hex[:12]}"
        self.replicas = [Replica(self.uri, database, silent_gpu_owned_minutes=2) for _ in range(2)]
        self.start = minutes_ago(60)
        self.world = World(0)
        self.topic: list[Event] = []
        self.committed = 0
        self.prices: list[dict[str, Any]] = []

    @rule(drawn=st.lists(events(), min_size=1, max_size=8), late=st.booleans())
    def send(self, drawn: list[dict[str, Any]], late: bool) -> None:
        start = self.start - timedelta(minutes=40) if late else self.start
        for fields in drawn:
            self._append(self._event(len(self.world.valid), start, dict(fields)))

    @rule(place=st.integers(0, 10_000), count=st.integers(1, 5))
    def send_again(self, place: int, count: int) -> None:
        if self.topic:
            first = place % len(self.topic)
            self.topic += self.topic[first : first + count]

    @rule(
        replica=REPLICAS,
        count=st.integers(1, 12),
        dies_after=st.sampled_from([None, None, *LoopStage]),
    )
    def deliver(self, replica: int, count: int, dies_after: LoopStage | None) -> None:
        """Read on from where the group is. Who dies has committed nothing, and who dies after the
        commit all of it."""
        batch = self.topic[self.committed : self.committed + count]
        if not batch:
            return
        inside = (
            dies_after
            if dies_after in (LoopStage.INSERTED, LoopStage.MARKED, LoopStage.DEAD_LETTERED)
            else None
        )
        if dies_after in (LoopStage.POLLED, LoopStage.SHAPED):
            self.replicas[replica].restart()
            return
        if self.replicas[replica].read(batch, inside):
            self.committed += len(batch)
            if dies_after is LoopStage.COMMITTED:
                self.replicas[replica].restart()

    @rule(replica=REPLICAS, back=st.integers(1, 30), count=st.integers(1, 12))
    def deliver_as_a_zombie(self, replica: int, back: int, count: int) -> None:
        """What somebody else has stored already; its commit is refused."""
        first = max(0, self.committed - back)
        if self.topic[first : first + count]:
            self.replicas[replica].read(self.topic[first : first + count], None)

    @rule()
    def replay(self) -> None:
        self.committed = 0

    @rule(replica=REPLICAS)
    def restart(self, replica: int) -> None:
        self.replicas[replica].restart()

    @rule(replica=REPLICAS)
    def close(self, replica: int) -> None:
        self.replicas[replica].closer().step()

    @rule(replica=REPLICAS, before=st.booleans())
    def close_and_die(self, replica: int, before: bool) -> None:
        with dying_writes(before):
            self.replicas[replica].closer().step()
        self.replicas[replica].restart()
        cells = self.replicas[replica].store[Collection.LEDGER_CELLS]
        cells.update_many({}, {"$unset": {"lease_until": ""}})  # it would run out by itself

    @rule(replica=REPLICAS)
    def housekeep(self, replica: int) -> None:
        self.replicas[replica].closer().housekeep()

    @rule(
        gpu=st.sampled_from([None, *GPUS]),
        minute=st.integers(-40, STORY_MINUTES),
        usd=st.sampled_from(["0.36", "3.60", "12.00"]),
    )
    def price(self, gpu: str | None, minute: int, usd: str) -> None:
        """A row of one GPU, or of all that have none; from a minute of the story on."""
        store = self.replicas[0].store
        row: dict[str, Any] = {
            "_id": f"p{len(self.prices)}",
            "scope": "gpu" if gpu else "default",
            "key": gpu,
        }
        row |= {"usd_per_hour": usd, "mode": "on_demand", "usd_per_kwh": None, "valid_to": None}
        row["created_at"] = store.now().replace(microsecond=0) + timedelta(
            milliseconds=len(self.prices)
        )
        row["valid_from"] = self.start + timedelta(minutes=minute)
        self.prices.append(dict(row))
        store[Collection.PRICES].insert_one({**row, "pending": True})

    @invariant()
    def what_is_committed_is_stored(self) -> None:
        if not hasattr(self, "replicas"):
            return
        ids = self._stored()
        assert len(ids) == len(set(ids)), "an event is stored twice"
        assert (
            {event.event_id for event in self.topic[: self.committed]}
            <= set(ids)
            <= self.world.valid.keys()
        )

    def teardown(self) -> None:
        if not hasattr(self, "replicas"):
            return
        one = self.replicas[0]
        try:
            while self.committed < len(self.topic):
                self.deliver(self.committed % 2, 12, None)
            one.close()
            assert set(self._stored()) == self.world.valid.keys()
            problems = ledger_against_oracle(one.store, one.settings, self.world, self.prices)
            assert not problems, "\n".join(problems)
            report = one.audit()
            assert report.holds, report.findings[:3]
        finally:
            one.store.client.drop_database(one.settings.mongodb_database)
            for replica in self.replicas:
                replica.store.close()

    def _append(self, event: Event) -> None:
        self.world.valid[event.event_id] = encode(event)
        self.topic.append(event)

    def _event(self, number: int, start: datetime, fields: dict[str, Any]) -> Event:
        gpu, at = fields.pop("gpu"), start + fields.pop("at")
        if "mem_used_mb" in fields:
            return sample(number, at.astimezone(UTC), gpu_uuid=GPUS[gpu], gpu_index=gpu, **fields)
        labelled = fields.pop("labelled")
        named: dict[str, Any] = (
            {"gpu_uuids": [], "gpu_index": gpu} if labelled else {"gpu_uuids": [GPUS[gpu]]}
        )
        return usage(number, at.astimezone(UTC), **named, **fields)

    def _stored(self) -> list[str]:
        store = self.replicas[0].store
        names = (USAGE.collection, SAMPLE.collection)
        return [
            event_id_of(document)
            for name in names
            for document in store[name].find({}, {"event_id": 1})
        ]


def test_any_story_ends_in_the_ledger_of_what_was_sent(mongo_uri: str) -> None:
    run_state_machine_as_test(
        type("StoryOnThisServer", (Story,), {"uri": mongo_uri}),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
