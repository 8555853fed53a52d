"""The demo's course: start, feed, show, settle, audit, stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.live import Live

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.audit_report import SECOND_LOOK_SECONDS, describe
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.demo.services import PacedProducer, Process, Services
from gpu_token_analytics.demo.view import Figures, read_figures, render
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import GpuTokensError, StoreError
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.simulate.disturb import Disturbances, disturb
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.simulate.replay import Assumptions, replay
from gpu_token_analytics.simulate.run import Sent, send_stream
from gpu_token_analytics.simulate.trace import read_trace, survey
from gpu_token_analytics.terminal.console import plain_line
from gpu_token_analytics.wire.kind import Event

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
PLAIN_EVERY_SECONDS = 5.0
LIVE_EVERY_SECONDS = 0.5
VIEW = timedelta(hours=1)


@dataclass(frozen=True)
class Plan:
    """What the user asked for."""

    folder: Path
    duration_seconds: float | None
    rate: float
    history_hours: float
    trace: Path | None
    speed: float
    seed: int


class Feed:
    """One stream of events on its own thread. Its failure is kept and raised by `check`."""

    def __init__(
        self,
        name: str,
        events: Iterable[Event],
        sink: PacedProducer,
        clock: Clock,
        stop: threading.Event,
        speed: float,
        live_from: datetime | None,
    ) -> None:
        """live_from: what is before it is sent at once, what is after it at `speed`."""
        self.sent = Sent()
        self._failure: BaseException | None = None
        self._work = (disturb(events, Disturbances(), 0), sink, clock, stop, speed, live_from)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        deliveries, sink, clock, stop, speed, live_from = self._work
        try:
            send_stream(
                deliveries, sink, clock, stop, speed=speed, paced_from=live_from, on_sent=self._keep
            )
        except GpuTokensError as error:
            self._failure = error

    def _keep(self, sent: Sent, _delivery: object) -> None:
        self.sent = sent

    @property
    def running(self) -> bool:
        """Whether it has more to send."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises what ended it early."""
        if self._failure is not None:
            raise self._failure

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)


class Demo:
    """One run. `console` shows; every effect is in `run`."""

    def __init__(
        self, plan: Plan, settings: Settings, services: Services, clock: Clock, console: Console
    ) -> None:
        self._plan, self._settings, self._services = plan, settings, services
        self._clock, self._console = clock, console
        self._feeds: list[Feed] = []
        self._stop_feeds = threading.Event()
        self._dashboard = ""
        self._extra: list[str] = []

    def run(self, processor: Process, api: Process | None, stop: threading.Event) -> bool:
        """Feed and show until the duration is over or `stop`; then settle and audit. True: the
        ledger holds."""
        begun = self._clock.monotonic()
        store = open_store(self._settings, "gpu-tokens-demo")
        producer = EventProducer(self._settings, client="demo")
        paced = PacedProducer(producer, self._settings, self._clock, threading.Event())
        try:
            self._start_feeds(store, producer)
            self._services.wait_ready(processor, "/ready", self._clock, stop)
            if api is not None:
                self._services.wait_ready(api, "/health", self._clock, stop)
                self._dashboard = f"dashboard {api.url}/   API {api.url}/v1/openapi.json"
            self._show(store, begun, stop)
            self._stop_feeds.set()
            for feed in self._feeds:
                feed.join(SETTLE_SECONDS)
                feed.check()
            return self._settle_and_audit(store, paced)
        finally:
            self._stop_feeds.set()
            producer.close()
            store.close()

    # -- feeding -----------------------------------------------------------------------------------

    def _start_feeds(self, store: Store, producer: EventProducer) -> None:
        plan = self._plan
        if plan.trace is not None:
            self._feed("trace", self._trace_events(plan.trace), producer, plan.speed)
            return
        # History and live load are one stream of one fleet: nothing begins anew where they meet.
        now = datetime.now(UTC)
        empty = store[Collection.LEDGER_CELLS].find_one({}, {"_id": 1}) is None
        begin = now - timedelta(hours=plan.history_hours) if empty else now
        self._feed(
            "fleet",
            generate(default_fleet(), begin, None, plan.seed, load=Load(plan.rate)),
            producer,
            1.0,
            now,
        )

    def _trace_events(self, file: Path) -> Iterable[Event]:
        facts = survey(file)
        assumptions = Assumptions(
            trace_sha256=facts.sha256, trace_name=file.stem[:128], sample_interval_seconds=5.0
        ).check()
        if facts.bad_rows:
            self._extra.append(
                f"{facts.bad_rows:,} rows of {file.name} cannot be read and are left out"
            )
        self._extra.append(
            f"{file.name}: {facts.rows:,} requests; durations are assumed (see `gpu-tokens replay "
            "--help`)"
        )
        return replay(read_trace(file, lambda _: None), assumptions)

    def _feed(
        self,
        name: str,
        events: Iterable[Event],
        producer: EventProducer,
        speed: float,
        live_from: datetime | None = None,
    ) -> None:
        sink = PacedProducer(producer, self._settings, self._clock, self._stop_feeds)
        self._feeds.append(
            Feed(name, events, sink, self._clock, self._stop_feeds, speed, live_from)
        )

    # -- showing -----------------------------------------------------------------------------------

    def _show(self, store: Store, begun: float, stop: threading.Event) -> None:
        reads = CostReads(store.database, store.timeout_ms)
        until = None if self._plan.duration_seconds is None else begun + self._plan.duration_seconds
        live = self._console.is_terminal
        every = LIVE_EVERY_SECONDS if live else PLAIN_EVERY_SECONDS
        with (
            Live(console=self._console, auto_refresh=False, transient=True)
            if live
            else _Quiet() as screen
        ):
            first = True
            while not stop.is_set() and (until is None or self._clock.monotonic() < until):
                self._services.check()
                for feed in self._feeds:
                    feed.check()
                figures = self._figures(reads, store)
                if figures is not None and (figures.has_money or live):
                    shown = render(figures, self._notes(begun), self._dashboard)
                    if isinstance(screen, Live):
                        screen.update(shown, refresh=True)
                    else:
                        self._console.print(shown)
                        self._console.print()
                    first = first and not figures.has_money
                left = (
                    every
                    if until is None
                    else min(every, max(0.0, until - self._clock.monotonic()))
                )
                self._clock.wait(stop, min(left, 0.25) if first else left)

    def _figures(self, reads: CostReads, store: Store) -> Figures | None:
        try:
            now = store.now()
            start, end = self._span(now)
            return read_figures(reads, start, end, now, self._settings.low_volume_tokens)
        except StoreError as error:
            _log.warning("figures cannot be read: %s", error)
            return None

    def _span(self, now: datetime) -> tuple[datetime, datetime]:
        """The last hour, or the time of the trace."""
        minute = timedelta(minutes=1)
        end = now.replace(second=0, microsecond=0) + minute
        sent = self._feeds[0].sent
        if self._plan.trace is None or sent.first_ts is None or sent.last_ts is None:
            return end - VIEW, end
        begin = (sent.first_ts - timedelta(minutes=10)).replace(minute=0, second=0, microsecond=0)
        return begin, sent.last_ts.replace(second=0, microsecond=0) + minute

    def _notes(self, begun: float) -> list[str]:
        sent = sum(feed.sent.records for feed in self._feeds)
        where = "broker in memory" if self._services.embedded_kafka else "Kafka as set"
        seconds = self._clock.monotonic() - begun
        return [f"{seconds:,.0f} s, {sent:,} events sent; {where}; Ctrl-C ends", *self._extra]

    # -- the end -----------------------------------------------------------------------------------

    def _settle_and_audit(self, store: Store, producer: PacedProducer) -> bool:
        """Wait until everything sent is stored and computed, show the final table, audit."""
        until = self._clock.monotonic() + SETTLE_SECONDS
        never = threading.Event()
        ledger = LedgerStore(store, self._settings.close_debounce_seconds)
        producer.wait_until_read(SETTLE_SECONDS)
        while ledger.cells.count_overdue() and self._clock.monotonic() < until:
            self._services.check()
            self._clock.wait(never, 0.25)
        reads = CostReads(store.database, store.timeout_ms)
        figures = self._figures(reads, store)
        if figures is not None:
            self._console.print(render(figures, self._extra))
        report = audit(
            ledger,
            params_of(self._settings),
            raw_complete_for=self._settings.raw_complete_for,
            before_second_look=lambda _: self._clock.wait(never, SECOND_LOOK_SECONDS),
        )
        self._console.print()
        for line in describe(report):
            self._console.print(plain_line(line), highlight=False)
        return report.holds


class _Quiet:
    """Where there is no terminal to draw on."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_error: object) -> None:
        return None
