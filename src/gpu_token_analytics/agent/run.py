"""The agent's loop: read every GPU, stamp, send; at a fixed rate, through any failure of driver,
GPU or Kafka.

    wait for the tick -> read the source -> report what changed -> stamp UTC -> send
        -> look at deliveries

A GPU without a reading gets no sample: downstream its time is `unobserved`, never idle.
"""

from __future__ import annotations

import logging
import math
import threading

from prometheus_client import CollectorRegistry

from gpu_token_analytics.agent.metrics import AgentMetrics
from gpu_token_analytics.agent.readings import (
    GpuProblem,
    GpuReading,
    GpuSource,
    Problem,
    Reading,
    tell_apart,
)
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import KafkaError, SourceUnavailable
from gpu_token_analytics.wire.sinks import EventSink

_log = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60.0
_LAST_FLUSH_SECONDS = 10.0


def run_agent(
    source: GpuSource,
    sink: EventSink,
    clock: Clock,
    host: str,
    interval_seconds: float,
    stop: threading.Event,
    *,
    metrics: AgentMetrics | None = None,
) -> None:
    """Sample `source` every `interval_seconds` until `stop`; then flush what is queued.

    Ticks are counted from the start, so the rate does not drift; a tick that a slow read has passed
    is skipped, not made up for. A source that cannot be read is asked again after 1, 2, 4 ...
    intervals, at most a minute (or one interval, if that is longer). Raises nothing for failures of
    the source or of Kafka: they are logged once per change and counted.
    """
    agent = _Agent(source, sink, clock, host, metrics or AgentMetrics(CollectorRegistry()))
    begun = clock.monotonic()
    try:
        while not stop.is_set():
            answered = agent.sample(interval_seconds)
            pause = 1 if answered else agent.backoff_ticks(interval_seconds)
            tick = math.floor((clock.monotonic() - begun) / interval_seconds) + 1
            agent.skipped(tick)
            agent.next_tick = tick + pause - 1
            clock.wait(stop, begun + agent.next_tick * interval_seconds - clock.monotonic())
    finally:
        source.close()
        agent.flush(_LAST_FLUSH_SECONDS)


class _Agent:
    """What the loop remembers: which GPUs there were, and what was last said about them."""

    def __init__(
        self, source: GpuSource, sink: EventSink, clock: Clock, host: str, metrics: AgentMetrics
    ) -> None:
        self.next_tick = 0
        self._source = source
        self._sink = sink
        self._clock = clock
        self._host = host
        self._metrics = metrics
        self._failures = 0
        self._problems: dict[str, GpuProblem] = {}
        # every whole GPU seen so far; MIG slices come and go on purpose
        self._cards: set[str] = set()
        self._kafka_failing = False

    def sample(self, flush_seconds: float) -> bool:
        """One round. False when the source could not be read at all."""
        name = self._source.name
        try:
            readings = tell_apart(self._source.read(), self._host)
        except SourceUnavailable as error:
            self._failures += 1
            self._metrics.source_failures.labels(name).inc()
            self._metrics.source_up.labels(name).set(0)
            self._metrics.gpus.labels(name).set(0)
            report = _log.error if self._failures == 1 else _log.debug
            report("GPU source %s cannot be read, trying again: %s", name, error)
            return False
        if self._failures:
            _log.info("GPU source %s answers again after %d failed reads", name, self._failures)
        self._failures = 0
        self._metrics.source_up.labels(name).set(1)
        self._note_problems(readings)
        if self._send(
            [reading for reading in readings if isinstance(reading, GpuReading)]
        ) and self.flush(flush_seconds):
            if self._kafka_failing:
                _log.info("Kafka takes samples again")
            self._kafka_failing = False
        return True

    def backoff_ticks(self, interval_seconds: float) -> int:
        """How many intervals to wait after this many failures in a row."""
        most = max(1, int(_LONGEST_BACKOFF_SECONDS / interval_seconds))
        return int(min(most, 2 ** min(self._failures - 1, 16)))

    def skipped(self, tick: int) -> None:
        """Count the ticks that were passed while reading and sending."""
        missed = tick - self.next_tick - 1
        if missed > 0:
            self._metrics.skipped_ticks.inc(missed)
            _log.warning(
                "%d samples skipped: reading the GPUs takes longer than SAMPLE_INTERVAL_SECONDS",
                missed,
            )

    def flush(self, timeout_seconds: float) -> bool:
        """Whether Kafka took all samples. What it did not take is said and counted; sampling goes
        on."""
        try:
            self._sink.flush(timeout_seconds)
        except KafkaError as error:
            self._failed_delivery(error)
            return False
        return True

    def _send(self, readings: list[GpuReading]) -> bool:
        now = self._clock.now()
        name = self._source.name
        self._metrics.gpus.labels(name).set(len(readings))
        try:
            for reading in readings:
                self._sink.send(reading.to_sample(self._host, now, name))
                self._metrics.samples.labels(name).inc()
        except KafkaError as error:
            self._failed_delivery(error)
            return False
        self._metrics.last_sample.set(now.timestamp())
        return True

    def _failed_delivery(self, error: KafkaError) -> None:
        self._metrics.delivery_failures.inc()
        report = _log.debug if self._kafka_failing else _log.error
        report("samples are not delivered: %s", error)
        self._kafka_failing = True

    def _note_problems(self, readings: list[Reading]) -> None:
        """Report each GPU once when its state changes, and keep the gauges."""
        problems = {reading.gpu: reading for reading in readings if isinstance(reading, GpuProblem)}
        present = {
            reading.gpu(self._host) for reading in readings if isinstance(reading, GpuReading)
        }
        self._cards |= {
            reading.gpu(self._host)
            for reading in readings
            if isinstance(reading, GpuReading) and not reading.parent_uuid
        }
        for gpu in self._cards - present - set(problems):
            problems[gpu] = GpuProblem(
                gpu, Problem.GONE, "it was there before and is no longer listed"
            )
        name = self._source.name
        for gpu, problem in problems.items():
            before = self._problems.get(gpu)
            if before is None or before.problem != problem.problem:
                trouble = (
                    "has no identity"
                    if problem.problem is Problem.SHARED_UUID
                    else "cannot be read"
                )
                _log.error("GPU %s %s (%s): %s", gpu, trouble, problem.problem, problem.message)
                self._metrics.gpu_problem_changes.labels(name, problem.problem).inc()
        for gpu in self._problems.keys() - problems.keys():
            _log.info("GPU %s can be read again", gpu)
        self._problems = problems
        for kind in Problem:
            count = sum(1 for problem in problems.values() if problem.problem == kind)
            self._metrics.gpu_problems.labels(name, kind).set(count)
