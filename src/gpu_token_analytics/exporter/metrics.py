"""Every metric of the exporter, declared once, with the sentence it tells you.

This is the only process whose metrics name tenants: its port belongs to Prometheus alone. Models
and tenants past METRICS_MAX_NAMES share the label value `(other)`, so no sender makes series
without bound, and the sums stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gpu_token_analytics.metrics import Declared

_AUDIT_SECONDS = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 900, 1800)
UNKNOWN = float("nan")


class LogRecords(Collector):
    """Ends of the topics: counters that Kafka keeps, so they survive restarts of every process of
    ours."""

    # as prometheus_client's own collectors have it; docs/metrics.md is made from it
    _labelnames = ("kind",)

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    def set(self, ends: dict[str, int]) -> None:
        """Records ever appended, by kind; empty: unknown."""
        self._ends = dict(ends)

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Its name and labels, for the registry and for docs/metrics.md."""
        yield self._family()

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counters as they are now."""
        family = self._family()
        for kind, records in self._ends.items():
            family.add_metric([kind], records)
        yield family

    @staticmethod
    def _family() -> CounterMetricFamily:
        return CounterMetricFamily(
            "gpu_tokens_log_records",
            (
                "Records ever appended to the topic (events) and to its dead letters "
                "(dead_letters), as Kafka counts them."
            ),
            labels=["kind"],
        )


class ExporterMetrics:
    """The exporter's metrics in one registry. What is not known now is absent or NaN, never 0."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        declared = Declared(self.registry)

        def gauge(name: str, sentence: str, *labels: str) -> Gauge:
            return declared.gauge(name, sentence, *labels, value=UNKNOWN)

        # What can be looked at
        self.source_up = gauge(
            "exporter_source_up",
            "1 while this source answered the last look: kafka or ledger.",
            "source",
        )
        self.looks = declared.counter(
            "exporter_looks_total",
            "Looks at a source, by result: done or failed.",
            "source",
            "result",
        )

        # The log and its group
        self.log_records = LogRecords()
        self.registry.register(self.log_records)
        self.lag = gauge(
            "group_lag_records",
            (
                "Records of the partition that the group has not committed; the number to scale "
                "processors by."
            ),
            "partition",
        )
        self.lost = gauge(
            "group_lost_records",
            "Records that retention deleted before the group read them. Anything over 0 is a loss.",
            "partition",
        )
        self.partitions = gauge(
            "topic_partitions", "Partitions of the topic: the most processors that have work."
        )
        self.backlog_age = gauge(
            "backlog_age_seconds",
            (
                "Age of the oldest that waits, by stage: kafka (a record not committed) or ledger "
                "(a touched cell not computed)."
            ),
            "stage",
        )

        # The ledger
        self.cells_due = gauge(
            "ledger_cells_due", "Ledger cells that wait to be computed, their debounce included."
        )
        self.cost = gauge(
            "ledger_cost_usd",
            (
                "Money of the fleet by class, in a window: last_hour (the last whole UTC hour), "
                "this_hour or today (so far)."
            ),
            "window",
            "class",
        )
        self.gpu_seconds = gauge(
            "ledger_gpu_seconds",
            "Owned GPU time by what it was spent on, in a window.",
            "window",
            "class",
        )
        self.model_cost = gauge(
            "ledger_model_cost_usd",
            (
                "Money by model, in a window: attributed, unmetered work whose tokens its engine "
                "counted, and the warm idle money of GPUs that held it."
            ),
            "window",
            "model",
            "class",
        )
        self.model_tokens = gauge(
            "ledger_model_tokens",
            "Tokens (prompt and completion) by model, in a window.",
            "window",
            "model",
        )
        self.model_priced_tokens = gauge(
            "ledger_model_priced_tokens",
            "Those of them whose money is known, in a window: what money by model is divided by.",
            "window",
            "model",
        )
        self.tenant_cost = gauge(
            "ledger_tenant_cost_usd", "Attributed money by tenant, in a window.", "window", "tenant"
        )
        self.tenant_tokens = gauge(
            "ledger_tenant_tokens",
            "Tokens (prompt and completion) by tenant, in a window.",
            "window",
            "tenant",
        )
        self.requests = gauge("ledger_requests", "Requests in the ledger, in a window.", "window")
        self.default_price_cost = gauge(
            "ledger_default_price_cost_usd",
            "Money at the default price, in a window: no price row or sample names these GPUs.",
            "window",
        )
        self.unknown_gpu_requests = gauge(
            "ledger_unknown_gpu_requests",
            "Requests on GPUs that nobody sampled or declared, in a window: "
            "their money is unknown.",
            "window",
        )
        self.unknown_gpu_tokens = gauge(
            "ledger_unknown_gpu_tokens",
            "Tokens (prompt and completion) of such requests, in a window.",
            "window",
        )

        # Budgets
        of_budget = ("budget", "scope", "key", "period")
        self.budget_limit = gauge(
            "budget_limit_usd", "What a budget allows in its period.", *of_budget
        )
        self.budget_spent = gauge(
            "budget_spent_usd", "What is spent of a budget in its period so far.", *of_budget
        )
        self.budget_forecast = gauge(
            "budget_forecast_usd",
            "What the period will have cost at its end; absent: there is too little history.",
            *of_budget,
        )
        self.budgets_not_shown = gauge(
            "budgets_not_shown",
            (
                "Budgets past METRICS_MAX_NAMES, those with the smallest share spent: they have no "
                "series."
            ),
        )
        self.budget_alerts = gauge(
            "budget_alerts_undelivered",
            (
                "Budget alerts that a receiver did not take: waiting (tried again) or failed "
                "(given up)."
            ),
            "state",
        )

        # The audit
        self.audit_findings = gauge(
            "audit_findings", "What the last audit found wrong. Anything over 0 breaks the promise."
        )
        self.audit_cells = gauge(
            "audit_cells", "Cells that the last audit computed again and compared."
        )
        self.audit_last = gauge(
            "audit_last_timestamp_seconds", "When the last audit ended, in seconds since 1970."
        )
        self.audit_interval = gauge(
            "audit_interval_seconds", "Time between two audits (AUDIT_EVERY_SECONDS); 0: none."
        )
        self.audits = declared.counter(
            "audits_total",
            "Audits by result: holds, broken (something found) or failed (could not be done).",
            "result",
        )
        self.audit_seconds = declared.histogram(
            "audit_seconds", "Duration of an audit.", _AUDIT_SECONDS
        )
