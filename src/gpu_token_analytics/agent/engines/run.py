"""The loop over engines: look at each page, take differences, send what was counted; through any
failure of engine or Kafka.

    wait for the tick -> look at all pages, some at once -> differences -> send
        -> wait for Kafka's word

Ticks are whole multiples of the interval in UTC, so that intervals end with minutes: what is
counted in a minute then counts for that minute, whatever else tells of it. Events that Kafka did
not acknowledge are sent again with the same ids.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from gpu_token_analytics.agent.engines.deltas import Counts, EngineCounter, events_of
from gpu_token_analytics.agent.engines.names import NAMES
from gpu_token_analytics.agent.engines.target import Target
from gpu_token_analytics.agent.metrics import EngineMetrics
from gpu_token_analytics.agent.sources.exposition import fetch
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import KafkaError, SourceUnavailable
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.sinks import EventSink

_log = logging.getLogger(__name__)

MOST_PAGE_BYTES = 8 * 1024 * 1024
MOST_WAITING = 20_000  # events that Kafka has not taken: more than an hour of 64 engines
_AT_ONCE = 8
_LONGEST_LOOK_SECONDS = 5.0
_LAST_FLUSH_SECONDS = 10.0

Fetch = Callable[[Target, float], str]


def fetch_page(target: Target, seconds: float) -> str:
    """The page of an engine. Raises SourceUnavailable: which engine, what is wrong, the fix."""
    try:
        return fetch(
            target.url, f"give its address: --engine {target.engine}=URL", MOST_PAGE_BYTES, seconds
        )
    except SourceUnavailable as error:
        raise SourceUnavailable(f"{target.engine}: {error} ({NAMES[target.engine].hint})") from None


def run_engines(
    targets: Sequence[Target],
    sink: EventSink,
    clock: Clock,
    host: str,
    interval_seconds: float,
    stop: threading.Event,
    *,
    metrics: EngineMetrics,
    fetch_one: Fetch = fetch_page,
) -> None:
    """Look at engines every `interval_seconds` until `stop`; then send what is left. Raises nothing
    for failures of engines or of Kafka: they are logged once per change, and counted."""
    loop = _Loop(targets, sink, clock, host, interval_seconds, metrics, fetch_one)
    with ThreadPoolExecutor(min(_AT_ONCE, len(targets)), "engines") as threads:
        loop.look(threads)
        while not clock.wait(stop, _until_tick(clock, interval_seconds)):
            loop.look(threads)
            loop.send(interval_seconds)
        loop.look(threads)  # what is counted from here on, whoever starts next does not know of
    loop.send(_LAST_FLUSH_SECONDS)


def _until_tick(clock: Clock, interval_seconds: float) -> float:
    """Seconds to the next whole multiple of the interval; one that is (almost) now was just looked
    at."""
    seconds = interval_seconds - clock.now().timestamp() % interval_seconds
    return seconds if seconds > interval_seconds / 20 else seconds + interval_seconds


class _Loop:
    """What it remembers: the counters of each engine, which of them fail, and what Kafka has not
    taken."""

    def __init__(
        self,
        targets: Sequence[Target],
        sink: EventSink,
        clock: Clock,
        host: str,
        interval_seconds: float,
        metrics: EngineMetrics,
        fetch_one: Fetch,
    ) -> None:
        self._counters = [EngineCounter(target, interval_seconds) for target in targets]
        self._sink, self._clock, self._host, self._metrics, self._fetch = (
            sink,
            clock,
            host,
            metrics,
            fetch_one,
        )
        self._seconds = min(_LONGEST_LOOK_SECONDS, interval_seconds)
        self._failing: dict[str, str] = {}
        self._waiting: deque[EngineCounters] = deque()
        self._kafka_failing = False
        for target in targets:
            metrics.engines.labels(target.engine).inc()
            metrics.engines_up.labels(target.engine).set(0)

    def look(self, threads: ThreadPoolExecutor) -> None:
        """One round over all engines."""
        looks = [(counter, threads.submit(self._one, counter)) for counter in self._counters]
        for counter, look in looks:
            engine = counter.target.engine
            try:
                counts = look.result()
            except SourceUnavailable as error:
                self._failed(counter.target, str(error))
                continue
            self._answers(counter.target)
            if counts is not None:
                self._keep(list(events_of(counts, counter.target, self._host)))
                self._metrics.resets.labels(engine).inc(counts.reset)
                self._metrics.gaps.labels(engine).inc(counts.gap)
                for tokens in counts.models.values():
                    for kind, count in tokens.items():
                        self._metrics.tokens.labels(engine, kind).inc(count)
        for engine in {counter.target.engine for counter in self._counters}:
            up = [
                c
                for c in self._counters
                if c.target.engine == engine and c.target.instance not in self._failing
            ]
            self._metrics.engines_up.labels(engine).set(len(up))

    def send(self, flush_seconds: float) -> None:
        """Everything that waits. What Kafka does not take is sent again in the next round, under
        the same ids."""
        if not self._waiting:
            return
        try:
            for event in self._waiting:
                self._sink.send(event)
            self._sink.flush(flush_seconds)
        except KafkaError as error:
            report = _log.debug if self._kafka_failing else _log.error
            report("what engines counted is not delivered, trying again: %s", error)
            self._kafka_failing = True
            self._metrics.waiting.set(len(self._waiting))
            return
        if self._kafka_failing:
            _log.info("Kafka takes what engines counted again")
        self._kafka_failing = False
        self._metrics.sent.inc(len(self._waiting))
        self._waiting.clear()
        self._metrics.waiting.set(0)

    def _one(self, counter: EngineCounter) -> Counts | None:
        """One look, in a thread of its own: only this one touches the counter."""
        begun = perf_counter()
        try:
            # what is counted while the page is made is at most counted for the next interval
            at = self._clock.now()
            return counter.look(self._fetch(counter.target, self._seconds), at)
        finally:
            self._metrics.seconds.labels(counter.target.engine).observe(perf_counter() - begun)

    def _failed(self, target: Target, message: str) -> None:
        self._metrics.failures.labels(target.engine).inc()
        if target.instance not in self._failing:
            _log.error("engine %s cannot be read, trying again: %s", target.instance, message)
        self._failing[target.instance] = message

    def _answers(self, target: Target) -> None:
        if self._failing.pop(target.instance, None) is not None:
            _log.info("engine %s answers again", target.instance)

    def _keep(self, events: Sequence[EngineCounters]) -> None:
        self._waiting.extend(events)
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._metrics.dropped.inc()
