"""A long run with deaths: two processors on a real broker and mongod, live events, one of the two
killed again and again.

    every sample    lag of the group, resident memory of the processor that lives, events sent and
                    stored
    at the end      nothing lost, nothing doubled, the audit holds; memory was flat; the lag was
                    bounded

Run: `make soak MINUTES=10` or `python -m bench soak --minutes 10 [--rate EVENTS_PER_SECOND]`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.ingest_bench import wait_until
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.child import ChildServer, free_port
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics, describe_group
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

SESSION_MS = 6000
SAMPLE_SECONDS = 5.0
KILL_SECONDS = (10.0, 30.0)  # between two deaths
LAG_SECONDS = 60.0  # of events: what may wait after a death, on a busy machine too
MEMORY_GROWTH = 0.10
LEAST_QUARTER = 12  # samples: a processor that has run for less is still growing to its size
_LAST_SECONDS = 300


@dataclass(frozen=True)
class Sample:
    """At one moment."""

    seconds: float
    sent: int
    stored: int
    lag: int
    rss_mb: float


class Sender:
    """Sends a live fleet at `rate` events a second, in a thread of its own, and knows what it
    sent."""

    def __init__(
        self, settings: Settings, rate: float, events: Iterator[Event] | None = None
    ) -> None:
        """events: instead of those of a live fleet."""
        self._events = live_events(rate) if events is None else events
        self.ids: set[str] = set()
        self.error: BaseException | None = None
        self._settings, self._rate, self._stop = settings, rate, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Raises what sending failed with."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with EventProducer(self._settings) as producer:
                begun = time.monotonic()
                for number, event in enumerate(self._events):
                    if self._stop.wait(max(0.0, begun + number / self._rate - time.monotonic())):
                        break
                    producer.send(event)
                    self.ids.add(event.event_id)
        except BaseException as error:  # noqa: BLE001  # stop() raises it
            self.error = error


def live_events(rate: float) -> Iterator[Event]:
    """Requests of 64 GPUs from now on, and their samples; endless."""
    load_of_fleet = Load(requests_per_second=rate * 0.9, diurnal_amplitude=0.0)
    return generate(
        default_fleet(8, 8), datetime.now(UTC), None, random.randrange(2**32), load=load_of_fleet
    )


class Processors:
    """One that lives, one that dies."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._servers = [
            ChildServer(f"processor {number}", folder / f"processor-{number}.log")
            for number in range(2)
        ]
        self.deaths = 0

    def start(self, number: int) -> None:
        """Start one, and return at once."""
        settings = self._settings
        environment = {
            "KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "KAFKA_EXTRA_CONFIG": json.dumps(settings.kafka_extra_config),
            "MONGODB_URI": settings.mongodb_uri.get_secret_value(),
            "MONGODB_DATABASE": settings.mongodb_database,
            "CLOSE_DEBOUNCE_SECONDS": str(settings.close_debounce_seconds),
            "LOG_LEVEL": "WARNING",
            "HTTP_PORT": str(free_port()),
        }
        command = [sys.executable, "-m", "gpu_token_analytics", "processor"]
        self._servers[number].start(
            command, lambda _log: True, 30, env={**os.environ, **environment}
        )

    def kill(self, number: int) -> None:
        """SIGKILL, and start it again."""
        self.check()
        self._servers[number].kill()
        self.deaths += 1
        self.start(number)

    def check(self) -> None:
        """Raises RuntimeError when one ended by itself."""
        for server in self._servers:
            if server.pid is None:
                raise RuntimeError(f"{server.name} ended by itself. {server.log_tail()}")

    def rss_mb(self, number: int) -> float:
        """Resident now."""
        pages = int(Path(f"/proc/{self._servers[number].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        """SIGTERM to both."""
        for server in self._servers:
            server.stop()


def main(argv: list[str]) -> None:
    """Exit code 1, with every problem in a line, when something did not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m bench soak",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=300, help="events a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all of it is removed
    print(
        (
            f"{given.minutes:g} minutes at {given.rate:g} events/s, seed {given.seed}; load "
            f"{os.getloadavg()[0]:.1f}"
        ),
        flush=True,
    )
    problems = soak(given.minutes * 60, given.rate, random.Random(given.seed))
    print(
        "\n".join(problems)
        if problems
        else "nothing lost, nothing doubled, the audit holds, memory flat, lag bounded"
    )
    sys.exit(1 if problems else 0)


def soak(seconds: float, rate: float, dice: random.Random) -> list[str]:
    """Problems; none when all held."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        broker = stack.enter_context(KafkaBroker(CURRENT_VERSION, folder / "kafka"))
        mongod = stack.enter_context(EmbeddedMongod(folder / "mongod", cache_mb=512))
        settings = load(
            mongodb_uri=mongod.uri,
            mongodb_database="soak",
            kafka_bootstrap=broker.bootstrap,
            kafka_extra_config={
                "session.timeout.ms": str(SESSION_MS),
                "heartbeat.interval.ms": "1500",
            },
            close_debounce_seconds=10,
        )
        store = open_store(settings, "soak")
        stack.callback(store.close)
        ensure_indexes(store, settings)
        create_topics(settings)
        processors = Processors(settings, folder)
        stack.callback(processors.stop)
        processors.start(0)
        processors.start(1)
        sender = Sender(settings, rate)
        try:
            samples = _run(processors, sender, store, settings, seconds, dice)
        finally:
            sender.stop()
        wait_until(lambda: _lag(settings) == 0, "all is read", lambda: 0.5, _LAST_SECONDS)
        # a live ledger is never done; the audit tells what is still due from what is wrong
        processors.stop()
        print(f"{len(sender.ids):,} events, {processors.deaths} deaths")
        return [*_end_problems(store, settings, sender.ids), *problems_of(samples, rate)]


def _run(
    processors: Processors,
    sender: Sender,
    store: Store,
    settings: Settings,
    seconds: float,
    dice: random.Random,
) -> list[Sample]:
    begun = time.monotonic()
    samples: list[Sample] = []
    next_kill = dice.uniform(*KILL_SECONDS)
    print(f"{'s':>6}{'sent':>10}{'stored':>10}{'lag':>8}{'RSS MB':>8}")
    while (passed := time.monotonic() - begun) < seconds:
        processors.check()
        samples.append(
            Sample(passed, len(sender.ids), _stored(store), _lag(settings), processors.rss_mb(0))
        )
        last = samples[-1]
        print(
            f"{passed:6.0f}{last.sent:10,}{last.stored:10,}{last.lag:8,}{last.rss_mb:8.0f}",
            flush=True,
        )
        if passed > next_kill:
            processors.kill(1)
            next_kill = passed + dice.uniform(*KILL_SECONDS)
        time.sleep(SAMPLE_SECONDS)
    return samples


def _stored(store: Store) -> int:
    return sum(
        store[name].estimated_document_count() for name in (USAGE.collection, SAMPLE.collection)
    )


def _lag(settings: Settings) -> int:
    return sum(state.lag for state in describe_group(settings))


def _end_problems(store: Store, settings: Settings, sent: set[str]) -> list[str]:
    documents, ids = 0, set()
    for name in (USAGE.collection, SAMPLE.collection):
        for document in store[name].find({}, {"event_id": 1}):
            documents += 1
            ids.add(event_id_of(document))
    problems = []
    if lost := len(sent - ids):
        problems.append(f"{lost:,} events are lost")
    if doubled := documents - len(ids):
        problems.append(f"{doubled:,} events are stored twice")
    if strange := len(ids - sent):
        problems.append(f"{strange:,} events are stored that nobody sent")
    if letters := sum(1 for _ in read_dead_letters(settings)):
        problems.append(f"{letters:,} dead letters, and nothing bad was sent")
    report = audit(
        LedgerStore(store), params_of(settings), raw_complete_for=settings.raw_complete_for
    )
    return (
        problems if report.holds else [*problems, f"the audit does not hold: {report.findings[:3]}"]
    )


def problems_of(samples: Sequence[Sample], rate: float) -> list[str]:
    """Of memory and lag over time. The first quarter is left out of memory's: buffers and caches
    reach their size."""
    problems = []
    most = rate * LAG_SECONDS
    if (highest := max(sample.lag for sample in samples)) > most:
        problems.append(
            f"the lag reached {highest:,} records; {most:,.0f} is what {LAG_SECONDS:g} s send"
        )
    quarter = len(samples) // 4
    if quarter >= LEAST_QUARTER:
        early = statistics.median(sample.rss_mb for sample in samples[quarter : 2 * quarter])
        late = statistics.median(sample.rss_mb for sample in samples[-quarter:])
        if late > early * (1 + MEMORY_GROWTH):
            problems.append(
                f"memory grew from {early:.0f} MB (second quarter) to {late:.0f} MB (last one)"
            )
    else:
        problems.append(f"{len(samples)} samples say nothing of memory; give more minutes")
    return problems
