"""All of the processor in one process: the ingest loop, the closer, the HTTP server, and what runs
beside them.

    main thread   ingest (it owns the Kafka consumer, and the signals end here)
    closer        due cells -> the ledger, rollups
    ledger topic  changed cells -> Kafka, where LEDGER_TOPIC is set
    http          /health /ready /metrics /gpu/info
    companions    such as the agent, where GPU_METRICS_SOURCE is set
    watchdog      ends the process when ingest stands still

Whatever ends with an error ends the process with it: a supervisor starts it again, and nothing is
lost by that.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.closing.closer import Closer, ClosingRules
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.http_server import serving
from gpu_token_analytics.ingest.run import Ingest
from gpu_token_analytics.ingest.settle import LoopStage
from gpu_token_analytics.kafka.consumer import EventSource
from gpu_token_analytics.kafka.dead_letters import DeadLetters
from gpu_token_analytics.kafka.ledger_topic import LedgerTopic
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.metrics import Metrics, SiteRegistry
from gpu_token_analytics.mongo.client import Store, open_store, skew_message
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.processor.app import Condition, make_app
from gpu_token_analytics.processor.watchdog import watched
from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.warehouse.outbox import Outbox
from gpu_token_analytics.warehouse.publish import Publisher

_log = logging.getLogger(__name__)

_JOIN_SECONDS = 10.0
_M_ARENA_MAX = -8  # of glibc's mallopt(3)
_ARENAS = 2

Companion = Callable[[threading.Event], None]


def run_processor(
    settings: Settings,
    stop: threading.Event,
    *,
    companions: dict[str, Companion] | None = None,
    checkpoint: Callable[[LoopStage], None] = lambda _step: None,
) -> None:
    """Run until `stop`. Raises the error that ended it, such as OffsetsLost or StoreRefused.

    companions: functions that run in threads of their own until the event they are given is set.
    checkpoint: see ingest/run.py.
    """
    _calm_garbage_collection()
    _hand_over_sooner()
    _share_heaps()
    clock, metrics = SystemClock(), Metrics(SiteRegistry(settings.site))
    with ExitStack() as stack:
        store = open_store(settings, "gpu-tokens-processor")
        stack.callback(store.close)
        _log.info("MongoDB %s", store.server)
        ensure_indexes(store, settings)
        recent = RecentEvents(clock)
        ledger = LedgerStore(
            store,
            settings.close_debounce_seconds,
            recent,
            noting_unsent=bool(settings.ledger_topic),
        )
        ledger.books.ensure_default_price(settings.price_per_hour_usd)
        source = EventSource(settings, clock)
        dead_letters = DeadLetters(settings)
        stack.callback(dead_letters.close)
        dead_letters.check()
        ingest = Ingest(source, store, dead_letters, settings, metrics, clock, checkpoint, recent)
        rollups = Rollups(ledger.rollups)
        metrics.clock_skew.set_function(lambda: store.clock_ahead / timedelta(seconds=1))
        metrics.sums_lag.set_function(lambda: rollups.lag_seconds)
        closer = _closer(ledger, settings, metrics, clock, rollups, lambda: ingest.catching_up)
        tasks = {
            "the closer": closer,
            **_publishing(store, settings, metrics, clock),
            **(companions or {}),
        }
        threads = {name: _Task(name, task, stop) for name, task in tasks.items()}

        def condition() -> Condition:
            return Condition(
                idle_seconds=ingest.idle_seconds,
                waiting_seconds=ingest.waiting_seconds,
                partitions=len(source.owned),
                clock_skew=skew_message(store.clock_ahead),
                bad_records=ingest.bad_records,
                threads={name: thread.is_alive() for name, thread in threads.items()},
                sums_lag_seconds=rollups.lag_seconds,
                set_aside=metrics.set_aside_now,
            )

        app = make_app(store, metrics, clock, settings.stuck_after_seconds, condition)
        stack.enter_context(serving(app, settings))
        stack.callback(stop.set)  # whatever ended ingest ends the others
        for thread in threads.values():
            thread.start()
        stack.enter_context(watched(lambda: ingest.idle_seconds, settings.stuck_after_seconds))
        try:
            ingest.run(stop)
        finally:
            stop.set()
            for thread in threads.values():
                thread.join(_JOIN_SECONDS)
        for thread in threads.values():
            thread.check()
        _log.info("stopped; all that was read is stored and committed")


def _calm_garbage_collection() -> None:
    """Batches are tens of thousands of small containers without cycles, freed by reference counts
    alone.

    With Python's defaults the collector walks all of them again and again: a third of the CPU time
    of ingest and closing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def _hand_over_sooner() -> None:
    """The writer has little to compute but often: after each answer of MongoDB it waits for the
    interpreter, which the reader would keep for 5 ms a time while MongoDB idles."""
    sys.setswitchinterval(0.001)


def _share_heaps() -> None:
    """glibc gives threads heaps of their own (arenas), up to eight a core, and a heap keeps what is
    free below the last thing that is still held in it. So the process would grow for hours, to the
    sum of what each thread has ever needed. With two for all it takes 25 MB less at full speed,
    grows half as fast under hostile records, and is no slower. Other C libraries have no such
    heaps, and no such option.
    """
    if (
        sys.platform == "linux"
        and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None
    ):
        mallopt(_M_ARENA_MAX, _ARENAS)


def _closer(
    ledger: LedgerStore,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    rollups: Rollups,
    catching_up: Callable[[], bool],
) -> Companion:
    rules = ClosingRules.of(settings)
    closer = Closer(ledger, params_of(settings), rules, metrics)

    def run(stop: threading.Event) -> None:
        metrics.closer_up.set(1)
        try:
            closer.run(stop, clock, rollups, catching_up)
        finally:
            metrics.closer_up.set(0)

    return run


def _publishing(
    store: Store, settings: Settings, metrics: Metrics, clock: Clock
) -> dict[str, Companion]:
    """Sending cells to the ledger's topic, where there is one."""
    outbox = Outbox(store)
    if not settings.ledger_topic:
        outbox.forget()
        return {}
    publisher = Publisher(outbox, LedgerTopic(settings), metrics)
    return {"the ledger's topic": lambda stop: publisher.run(stop, clock)}


class _Task(threading.Thread):
    """A thread whose error stops the process instead of vanishing with it."""

    def __init__(self, name: str, task: Companion, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._task, self._stop_all, self._error = task, stop, None

    _error: BaseException | None

    def run(self) -> None:
        try:
            self._task(self._stop_all)
        except BaseException as error:  # noqa: BLE001  # check() raises it in the main thread
            self._error = error
            _log.critical("%s failed: %s", self.name, error)
            self._stop_all.set()

    def check(self) -> None:
        """Raise what it ended with."""
        if self._error is not None:
            raise self._error
