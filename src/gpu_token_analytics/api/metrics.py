"""What the api process tells Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "gta_api_requests_total", "Requests answered, by route of the table and status.", ["method", "route", "status"]
)
SECONDS = Histogram(
    "gta_api_request_seconds",
    "Time from the request to the first byte of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("gta_api_events_total", "Records received on POST /v1/events.", ["outcome"])
STREAMS = Gauge("gta_api_streams", "Open live streams.")
