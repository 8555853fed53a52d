"""The agent's loop: a steady rate, one report per change, and nothing that stops it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from gpu_token_analytics.agent.metrics import AgentMetrics
from gpu_token_analytics.agent.readings import GpuProblem, GpuReading, Problem, Reading
from gpu_token_analytics.agent.run import run_agent
from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.errors import DeliveryFailed, KafkaUnreachable, SourceUnavailable
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.sinks import MemorySink

START = datetime(2026, 3, 1, tzinfo=UTC)
A = GpuReading(gpu_index=0, gpu_uuid="GPU-a", utilization=0.5)
B = GpuReading(gpu_index=1, gpu_uuid="GPU-b", utilization=None)
SLICE = GpuReading(gpu_index=0, gpu_uuid="MIG-1", mig_profile="1g.10gb", parent_uuid="GPU-a")
LOST_B = GpuProblem("GPU-b", Problem.LOST, "GPU is lost")


class Scripted:
    """A source that plays a list of answers, then stops the agent."""

    name: Source = "nvml"

    def __init__(self, world: World, answers: list[Sequence[Reading] | str]) -> None:
        self.world = world
        self.answers = answers
        self.asked_at: list[float] = []
        self.closed = 0

    def read(self) -> list[Reading]:
        self.asked_at.append(round(self.world.clock.monotonic(), 6))
        answer = self.answers.pop(0)
        if not self.answers:
            self.world.stop.set()
        self.world.clock.advance(self.world.read_seconds)
        if isinstance(answer, str):
            raise SourceUnavailable(answer)
        return list(answer)

    def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self, *answers: Sequence[Reading] | str, read_seconds: float = 0.01) -> None:
        self.clock = ManualClock(START)
        self.stop = threading.Event()
        self.read_seconds = read_seconds
        self.registry = CollectorRegistry()
        self.source = Scripted(self, list(answers))
        self.sink = MemorySink()

    def run(self, interval_seconds: float = 5.0, sink: MemorySink | None = None) -> World:
        metrics = AgentMetrics(self.registry)
        run_agent(
            self.source,
            sink or self.sink,
            self.clock,
            "vm1",
            interval_seconds,
            self.stop,
            metrics=metrics,
        )
        return self

    def samples(self) -> list[GpuSample]:
        found = [decode(value) for _, value in self.sink.records]
        assert all(isinstance(event, GpuSample) for event in found)
        return [event for event in found if isinstance(event, GpuSample)]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"gpu_tokens_agent_{name}", labels)


@pytest.fixture
def reports(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [
        record.getMessage() for record in caplog.records if record.levelno >= logging.INFO
    ]


def test_each_reading_becomes_one_sample_stamped_in_utc() -> None:
    world = World([A, B, SLICE], [A, B, SLICE]).run()
    samples = world.samples()
    assert [sample.gpu_uuid for sample in samples] == ["GPU-a", "GPU-b", "MIG-1"] * 2
    assert {key for key, _ in world.sink.records} == {"vm1"}
    assert len({sample.event_id for sample in samples}) == 6
    assert samples[1].utilization is None
    assert [(sample.ts - START).total_seconds() for sample in samples[::3]] == [0.01, 5.01]
    assert samples[0].source == "nvml"


def test_the_rate_does_not_drift() -> None:
    world = World(*[[A]] * 100, read_seconds=0.7).run()
    assert world.source.asked_at == [5.0 * tick for tick in range(100)]
    assert world.metric("skipped_ticks_total") == 0


def test_a_slow_read_skips_ticks_instead_of_catching_up() -> None:
    world = World(*[[A]] * 4, read_seconds=12.0).run()
    assert world.source.asked_at == [0.0, 15.0, 30.0, 45.0]
    assert world.metric("skipped_ticks_total") == 2 * 4


def test_a_source_that_is_away_is_asked_less_often_and_reported_once(
    reports: Callable[[], list[str]],
) -> None:
    world = World(*["no driver: install it"] * 8, [A], read_seconds=0.0).run()
    waits = [
        after - before
        for before, after in zip(world.source.asked_at, world.source.asked_at[1:], strict=False)
    ]
    assert waits == [5, 10, 20, 40, 60, 60, 60, 60]
    assert [message for message in reports() if "no driver" in message] == [
        "GPU source nvml cannot be read, trying again: no driver: install it"
    ]
    assert "GPU source nvml answers again after 8 failed reads" in reports()
    assert len(world.samples()) == 1  # nothing was sent for the time nobody knows about
    assert world.metric("source_failures_total", source="nvml") == 8
    assert world.metric("source_up", source="nvml") == 1


def test_a_source_that_stays_away_shows_as_down_with_no_gpu() -> None:
    world = World([A, B], "gone").run()
    assert world.metric("source_up", source="nvml") == 0
    assert world.metric("gpus", source="nvml") == 0


def test_a_lost_gpu_is_reported_once_per_change_and_sends_nothing(
    reports: Callable[[], list[str]],
) -> None:
    reset = GpuProblem("GPU-b", Problem.RESET_REQUIRED, "GPU requires reset")
    world = World([A, B], [A, LOST_B], [A, LOST_B], [A, LOST_B], [A, reset], [A, B]).run()
    assert [sample.gpu_uuid for sample in world.samples()] == [
        "GPU-a",
        "GPU-b",
        "GPU-a",
        "GPU-a",
        "GPU-a",
        "GPU-a",
        "GPU-a",
        "GPU-b",
    ]
    assert reports() == [
        "GPU GPU-b cannot be read (lost): GPU is lost",
        "GPU GPU-b cannot be read (reset_required): GPU requires reset",
        "GPU GPU-b can be read again",
    ]
    assert world.metric("gpu_problem_changes_total", source="nvml", problem="lost") == 1
    assert world.metric("gpu_problems", source="nvml", problem="lost") == 0


def test_a_gpu_that_is_no_longer_listed_is_missed(reports: Callable[[], list[str]]) -> None:
    world = World([A, B], [A], [A]).run()
    assert reports() == [
        "GPU GPU-b cannot be read (gone): it was there before and is no longer listed"
    ]
    assert world.metric("gpu_problems", source="nvml", problem="gone") == 1
    assert world.metric("gpus", source="nvml") == 1


def test_a_mig_slice_that_is_taken_away_is_not_missed(reports: Callable[[], list[str]]) -> None:
    World([A, SLICE], [A]).run()
    assert reports() == []


class Failing(MemorySink):
    """A sink whose Kafka is away for the first `failures` calls of `what`."""

    def __init__(self, what: str, failures: int) -> None:
        super().__init__()
        self.what = what
        self.failures = failures

    def send(self, event: Event) -> None:
        if self.what == "send" and self.failures:
            self.failures -= 1
            raise KafkaUnreachable("no broker answered")
        super().send(event)

    def flush(self, timeout_seconds: float) -> None:
        super().flush(timeout_seconds)
        if self.what == "flush" and self.failures:
            self.failures -= 1
            raise DeliveryFailed("1 record was not acknowledged")


@pytest.mark.parametrize("what", ["send", "flush"])
def test_kafka_being_away_is_reported_once_and_survived(
    what: str, reports: Callable[[], list[str]]
) -> None:
    world = World(*[[A]] * 6)
    sink = Failing(what, 3)
    world.run(sink=sink)
    assert world.source.answers == []
    assert len(sink.records) == (3 if what == "send" else 6)
    assert world.metric("delivery_failures_total") == 3
    said = reports()
    assert len(said) == 2
    assert said[0].startswith("samples are not delivered")
    assert said[1] == "Kafka takes samples again"


def test_stopping_releases_the_source_and_flushes() -> None:
    world = World([A]).run()
    assert world.source.closed == 1
    assert len(world.sink.flushes) == 2  # after the round, and at the end


def test_two_cards_that_show_one_uuid_of_zeros_are_both_sampled(
    reports: Callable[[], list[str]],
) -> None:
    zeros = "GPU-00000000-0000-0000-0000-000000000000"
    world = World(
        [GpuReading(gpu_index=0, gpu_uuid=zeros), GpuReading(gpu_index=1, gpu_uuid=zeros)]
    ).run()
    assert [sample.gpu for sample in world.samples()] == ["vm1/0", "vm1/1"]
    assert [message.split(" (")[0] for message in reports()] == [
        "GPU vm1/0 has no identity",
        "GPU vm1/1 has no identity",
    ]
    assert world.metric("gpu_problems", source="nvml", problem="shared_uuid") == 2
    assert world.metric("gpus", source="nvml") == 2
