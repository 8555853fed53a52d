"""What the api process tells Prometheus, in a registry of its own. Labels are closed sets: no keys, no tenants, no paths."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics:
    """One per application, so that tests can have several."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.requests = Counter(
            "gpu_tokens_api_requests_total",
            "Requests answered, by route of the table and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "gpu_tokens_api_request_seconds",
            "Time from a request to the first byte of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.events = Counter(
            "gpu_tokens_api_events_total",
            "Records received on POST /v1/events: accepted (acknowledged by Kafka) or rejected.",
            ["outcome"],
            registry=self.registry,
        )
        self.unknown_fields = Counter(
            "gpu_tokens_api_unknown_fields_total",
            "Fields of records on POST /v1/events that no contract knows, misspelt ones among them.",
            registry=self.registry,
        )
        self.spans = Counter(
            "gpu_tokens_api_spans_total",
            "Spans on POST /v1/traces that tell of a request: counted (acknowledged by Kafka), refused, or left out, and why.",
            ["outcome"],
            registry=self.registry,
        )
        self.sampled_spans = Counter(
            "gpu_tokens_api_sampled_spans_total",
            "Spans on POST /v1/traces that say that others were not sent: their requests are missing in every figure.",
            registry=self.registry,
        )
        self.budget_deliveries = Counter(
            "gpu_tokens_api_budget_deliveries_total",
            "Attempts to tell a receiver of a budget alert, by result: sent or failed (tried again later).",
            ["receiver", "result"],
            registry=self.registry,
        )
        self.streams = Gauge("gpu_tokens_api_streams", "Open live streams.", registry=self.registry)
