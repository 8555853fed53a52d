"""The api process: settings in, an HTTP server until told to stop."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import uvicorn

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.auth import is_loopback
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.budgets.receivers import TIMEOUT_SECONDS, receivers_of
from gpu_token_analytics.budgets.watch import BudgetWatch
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.errors import KafkaError, SettingsError
from gpu_token_analytics.http_guard import MAX_CONNECTIONS, guarded
from gpu_token_analytics.http_server import in_thread
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.kind import Event, encode

_log = logging.getLogger(__name__)

GRACE_SECONDS = 5
DEAD_LETTERS_EVERY_SECONDS = 60.0
MAX_DEAD_LETTERS = 100_000


class LateProducer:
    """A Kafka producer from the first event on: an API that only reads needs no Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: EventProducer | None = None

    def send(self, event: Event) -> None:
        """Queue one event."""
        self.send_raw(encode(event), event.host)

    def send_raw(self, value: bytes, key: str) -> None:
        """Queue bytes. Raises KafkaError when Kafka cannot be reached or lacks the topic."""
        if self._producer is None:
            producer = EventProducer(self._settings, client="api")
            producer.check()
            self._producer = producer
        self._producer.send_raw(value, key)

    def flush(self, timeout_seconds: float) -> None:
        """Wait for the acknowledgment of all. Raises DeliveryFailed."""
        if self._producer is not None:
            self._producer.flush(timeout_seconds)

    def close(self) -> None:
        """Release the connection. Everything accepted was acknowledged before it was answered."""
        if self._producer is not None:
            try:
                self._producer.close(GRACE_SECONDS)
            except KafkaError as error:
                _log.warning("closing the producer: %s", error)


class DeadLetterCounts:
    """Dead letters by reason, read from their topic at most once a minute."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._counts: dict[str, int] = {}
        self._failure: KafkaError | None = None

    def __call__(self) -> dict[str, int]:
        """Counts of the first MAX_DEAD_LETTERS. Raises KafkaError.

        While one request asks Kafka, which takes seconds where it is away, the others get what is
        known already.
        """
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._at > DEAD_LETTERS_EVERY_SECONDS:
                    self._refresh()
            finally:
                self._lock.release()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return dict(self._counts)

    def _refresh(self) -> None:
        try:
            letters = islice(read_dead_letters(self._settings), MAX_DEAD_LETTERS)
            self._counts = dict(Counter(letter.reason for letter in letters))
        except KafkaError as error:
            self._failure = error
        else:
            self._failure = None
        self._at = time.monotonic()


def run_api(settings: Settings, stop: threading.Event) -> None:
    """Serve until `stop`. Raises StoreError when MongoDB cannot be used, SettingsError for an
    unsafe combination."""
    loopback = is_loopback(settings.http_host)
    if settings.api_allow_anonymous_loopback and not loopback:
        raise SettingsError(
            f"API_ALLOW_ANONYMOUS_LOOPBACK=true with HTTP_HOST={settings.http_host}: without keys "
            "the API listens on "
            "loopback only; set HTTP_HOST=127.0.0.1 or create keys with `gpu-tokens keys create`"
        )
    with ExitStack() as stack:
        store = open_store(settings, "gpu-tokens-api")
        stack.callback(store.close)
        ensure_indexes(store, settings)
        producer = LateProducer(settings)
        stack.callback(producer.close)
        services = Services.of(
            store,
            settings,
            sink=producer,
            dead_letters=DeadLetterCounts(settings),
            loopback_only=loopback,
        )
        stack.enter_context(_watched_budgets(services, settings))
        _serve(services, settings, stop)


@contextmanager
def _watched_budgets(services: Services, settings: Settings) -> Iterator[None]:
    """Budgets are looked at, and alerts sent, in a thread beside the answers."""
    if not settings.budget_check_seconds:
        yield
        return
    watch = BudgetWatch(
        services.budgets.store,
        services.budgets.spending,
        receivers_of(settings),
        services.desk.now,
        lambda receiver, result: services.metrics.budget_deliveries.labels(receiver, result).inc(),
    )
    stop = threading.Event()
    thread = threading.Thread(
        target=watch.run,
        args=(stop, SystemClock(), settings.budget_check_seconds),
        name="budgets",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(2 * TIMEOUT_SECONDS)  # what is being sent is written down as sent


def _serve(services: Services, settings: Settings, stop: threading.Event) -> None:
    config = uvicorn.Config(
        create_app(services),
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,  # request ids, tenants and keys are not for logs
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        http=guarded(settings.http_max_connections_per_address, settings.http_silence_seconds),
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=32_768,
    )
    _calm_garbage_collection()
    try:
        with in_thread(config, GRACE_SECONDS + 5) as server:
            try:
                while server.is_alive and not stop.wait(0.2):
                    pass
            finally:
                services.stopping.set()  # open streams end themselves; the server waits for them
    except SettingsError:
        if services.start_failure is not None:
            raise services.start_failure from None
        raise


def _calm_garbage_collection() -> None:
    """What was read for an answer has no cycles and is freed by reference counts alone.

    With Python's defaults the collector walks it, and the whole framework, again and again while a
    page is read.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
