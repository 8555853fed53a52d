"""The exporter's two loops: a look at Kafka and at the ledger every few seconds, and the recurring
audit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from gpu_token_analytics.clock import Clock
from gpu_token_analytics.closing.audit_report import SECOND_LOOK_SECONDS, AuditReport
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.errors import GpuTokensError, KafkaError, StoreError
from gpu_token_analytics.exporter.budget_figures import BudgetFigures
from gpu_token_analytics.exporter.figures import LedgerFigures, replace_series
from gpu_token_analytics.exporter.metrics import UNKNOWN, ExporterMetrics
from gpu_token_analytics.kafka.group_watch import GroupState, GroupWatch
from gpu_token_analytics.mongo.errors import store_errors
from gpu_token_analytics.rollups.spans import MINUTE, floor

_log = logging.getLogger(__name__)

Audit = Callable[[datetime, datetime, Callable[[int], object]], AuditReport]


class KafkaLook:
    """One look at the topic and its group, into the metrics."""

    name = "kafka"

    def __init__(
        self, watch: Callable[[], GroupWatch], metrics: ExporterMetrics, clock: Clock
    ) -> None:
        self._open, self._metrics, self._clock = watch, metrics, clock
        self._watch: GroupWatch | None = None

    def look(self) -> None:
        """Raises KafkaError. Then nothing is known of the group, and nothing is shown."""
        try:
            if self._watch is None:
                self._watch = self._open()
            self._show(self._watch.look())
        except KafkaError:
            self._forget()
            raise

    def close(self) -> None:
        """Release the connections."""
        if self._watch is not None:
            self._watch.close()

    def _show(self, state: GroupState) -> None:
        metrics = self._metrics
        lag: dict[tuple[str, ...], float] = {}
        lost: dict[tuple[str, ...], float] = {}
        for one in state.partitions:
            lag[(str(one.partition),)] = max(0, one.lag)
            lost[(str(one.partition),)] = (
                0 if one.committed is None else max(0, one.low - one.committed)
            )
        replace_series(metrics.lag, lag)
        replace_series(metrics.lost, lost)
        metrics.partitions.set(len(state.partitions))
        metrics.log_records.set(
            {"events": state.events_end, "dead_letters": state.dead_letters_end}
        )
        metrics.backlog_age.labels("kafka").set(
            self._age(sum(lag.values()), state.oldest_unread_at)
        )

    def _age(self, lag: float, oldest: datetime | None) -> float:
        if not lag:
            return 0.0
        return UNKNOWN if oldest is None else max(0.0, (self._clock.now() - oldest).total_seconds())

    def _forget(self) -> None:
        metrics = self._metrics
        metrics.lag.clear()
        metrics.lost.clear()
        metrics.partitions.set(UNKNOWN)
        metrics.log_records.set({})
        metrics.backlog_age.labels("kafka").set(UNKNOWN)


class LedgerLook:
    """One look at the ledger's money and at what waits to be computed, into the metrics."""

    name = "ledger"

    def __init__(
        self,
        reads: Reads,
        figures: Sequence[LedgerFigures | BudgetFigures],
        metrics: ExporterMetrics,
        server_now: Callable[[], datetime],
        debounce_seconds: float,
    ) -> None:
        """server_now: the database's clock, which due times are written by."""
        self._reads, self._figures, self._metrics = reads, figures, metrics
        self._now, self._debounce_seconds = server_now, debounce_seconds

    def look(self) -> None:
        """Raises StoreError. Then nothing is known of the ledger, and nothing is shown."""
        metrics = self._metrics
        try:
            with store_errors("read the ledger's figures"):
                due, first_due_at = self._reads.due()
                now = self._now()
                for figures in self._figures:
                    figures.update(now)
        except StoreError:
            for figures in self._figures:
                figures.forget()
            metrics.cells_due.set(UNKNOWN)
            metrics.backlog_age.labels("ledger").set(UNKNOWN)
            raise
        metrics.cells_due.set(due)
        overdue = 0.0 if first_due_at is None else (now - first_due_at).total_seconds()
        # A cell may rest until it is due; past that it has waited since it was touched, a debounce
        # earlier.
        metrics.backlog_age.labels("ledger").set(
            overdue + self._debounce_seconds if overdue > 0 else 0.0
        )


class Looks:
    """Looks again and again; a source that does not answer is said in a metric and looked at the
    next time."""

    def __init__(
        self,
        looks: list[KafkaLook | LedgerLook],
        metrics: ExporterMetrics,
        clock: Clock,
        every_seconds: float,
    ) -> None:
        self._looks, self._metrics, self._clock, self._every_seconds = (
            looks,
            metrics,
            clock,
            every_seconds,
        )
        self._failing: set[str] = set()
        self.last_at = clock.monotonic()  # when the loop last went round

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            self.look()
            self._clock.wait(stop, self._every_seconds)

    def look(self) -> None:
        """Look at each source once."""
        for source in self._looks:
            try:
                source.look()
            except (KafkaError, StoreError) as error:
                self._say(source.name, error)
            else:
                self._say(source.name, None)
        self.last_at = self._clock.monotonic()

    def _say(self, source: str, error: GpuTokensError | None) -> None:
        self._metrics.source_up.labels(source).set(error is None)
        self._metrics.looks.labels(source, "done" if error is None else "failed").inc()
        if error is not None and source not in self._failing:
            self._failing.add(source)
            _log.warning("%s does not answer, its figures are not shown: %s", source, error)
        elif error is None and source in self._failing:
            self._failing.discard(source)
            _log.info("%s answers again", source)


class RecurringAudit:
    """Audits the last hours again and again, and shows the last result and its age."""

    def __init__(
        self,
        audit: Audit,
        metrics: ExporterMetrics,
        clock: Clock,
        every_seconds: float,
        last_hours: float,
    ) -> None:
        self._audit, self._metrics, self._clock = audit, metrics, clock
        self._every_seconds, self._length = every_seconds, timedelta(hours=last_hours)
        metrics.audit_interval.set(every_seconds)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            self.audit(stop)
            self._clock.wait(stop, self._every_seconds)

    def audit(self, stop: threading.Event) -> None:
        """One audit. One that cannot be done is counted, and its result and age stay those of the
        last one."""
        metrics, begun = self._metrics, self._clock.monotonic()
        end = floor(self._clock.now(), MINUTE)
        try:
            report = self._audit(
                end - self._length, end, lambda _cells: self._clock.wait(stop, SECOND_LOOK_SECONDS)
            )
        except StoreError as error:
            metrics.audits.labels("failed").inc()
            _log.warning(
                "the audit cannot be done, it is tried again in %g s: %s",
                self._every_seconds,
                error,
            )
            return
        if stop.is_set():
            return  # the second look was cut short: what it says is not a finding
        metrics.audit_findings.set(report.findings_count)
        metrics.audit_cells.set(report.compared)
        metrics.audit_last.set(self._clock.now().timestamp())
        metrics.audit_seconds.observe(self._clock.monotonic() - begun)
        metrics.audits.labels("holds" if report.holds else "broken").inc()
        for finding in report.findings[:10]:
            _log.error("audit: %s: %s", finding.cell, finding.problem, extra={"cell": finding.cell})
