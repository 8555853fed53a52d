"""What the api process tells Prometheus, in a registry of its own. Labels are closed sets: no keys,
no tenants, no paths."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from gpu_token_analytics.metrics import Declared

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics:
    """One per application, so that tests can have several."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        declared = Declared(self.registry)
        self.requests = declared.counter(
            "api_requests_total",
            "Requests answered, by route of the table and status.",
            "method",
            "route",
            "status",
        )
        self.seconds = declared.histogram(
            "api_request_seconds",
            "Time from a request to the first byte of its answer.",
            _SECONDS,
            "route",
        )
        self.events = declared.counter(
            "api_events_total",
            "Records received on POST /v1/events: accepted (acknowledged by Kafka) or rejected.",
            "outcome",
        )
        self.unknown_fields = declared.counter(
            "api_unknown_fields_total",
            "Fields of records on POST /v1/events that no contract knows, "
            "misspelt ones among them.",
        )
        self.spans = declared.counter(
            "api_spans_total",
            (
                "Spans on POST /v1/traces that tell of a request: counted (acknowledged by Kafka), "
                "refused, or left out, and why."
            ),
            "outcome",
        )
        self.sampled_spans = declared.counter(
            "api_sampled_spans_total",
            (
                "Spans on POST /v1/traces that say that others were not sent: their requests are "
                "missing in every figure."
            ),
        )
        self.budget_deliveries = declared.counter(
            "api_budget_deliveries_total",
            (
                "Attempts to tell a receiver of a budget alert, by result: sent or failed (tried "
                "again later)."
            ),
            "receiver",
            "result",
        )
        self.streams = declared.gauge("api_streams", "Open live streams.")
