"""What the agent counts, each declared once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

from gpu_token_analytics.metrics import Declared


class AgentMetrics:
    """The agent's metrics in one registry. Labels are closed sets, never a GPU: fleets are
    large."""

    def __init__(self, registry: CollectorRegistry) -> None:
        declared = Declared(registry)
        self.samples = declared.counter("agent_samples", "GPU samples handed to Kafka", "source")
        self.source_up = declared.gauge(
            "agent_source_up",
            "1 while the GPU telemetry source answers, 0 while it does not",
            "source",
        )
        self.source_failures = declared.counter(
            "agent_source_failures",
            "Reads that the telemetry source could not answer at all",
            "source",
        )
        self.gpus = declared.gauge("agent_gpus", "GPUs and MIG slices in the last read", "source")
        self.gpu_problems = declared.gauge(
            "agent_gpu_problems",
            "GPUs that cannot be read now, by what is wrong (lost, reset_required, unreadable, "
            "gone, malformed); shared_uuid: "
            "they are read, but have no UUID of their own",
            "source",
            "problem",
        )
        self.gpu_problem_changes = declared.counter(
            "agent_gpu_problem_changes",
            "Times a GPU went from readable, or from another problem, into this problem",
            "source",
            "problem",
        )
        self.skipped_ticks = declared.counter(
            "agent_skipped_ticks", "Samples left out because reading or sending took too long"
        )
        self.delivery_failures = declared.counter(
            "agent_delivery_failures", "Times Kafka did not acknowledge samples in time"
        )
        self.last_sample = declared.gauge(
            "agent_last_sample_timestamp_seconds", "Unix time of the last round of samples"
        )


class EngineMetrics:
    """Of the engines whose counters are read. Labels are closed sets, never an instance or a
    model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        declared = Declared(registry)
        engine = ["engine"]
        self.engines = declared.gauge("agent_engines", "Serving engines that are scraped", *engine)
        self.engines_up = declared.gauge(
            "agent_engines_up", "Of these, those whose last scrape could be read", *engine
        )
        self.seconds = declared.histogram(
            "agent_engine_scrape_seconds",
            (
                "Time of one scrape of an engine, reading its page included; the count is that of "
                "all scrapes"
            ),
            Histogram.DEFAULT_BUCKETS,
            *engine,
        )
        self.failures = declared.counter(
            "agent_engine_scrape_failures", "Scrapes that could not be read", *engine
        )
        self.resets = declared.counter(
            "agent_engine_resets", "Scrapes in which an engine's counters had begun anew", *engine
        )
        self.gaps = declared.counter(
            "agent_engine_gaps", "Scrapes that count for missed ones before them, too", *engine
        )
        self.tokens = declared.counter(
            "agent_engine_tokens",
            "Tokens that engines counted, by kind; cached ones are a part of prompt ones",
            "engine",
            "kind",
        )
        self.sent = declared.counter(
            "agent_engine_events", "Events of engines that Kafka acknowledged"
        )
        self.waiting = declared.gauge(
            "agent_engine_events_waiting", "Events of engines that Kafka has not taken yet"
        )
        self.dropped = declared.counter(
            "agent_engine_events_dropped",
            (
                "Events of engines that were given up because too many waited for Kafka: their "
                "tokens are not in the ledger"
            ),
        )


class PodMetrics:
    """Of the pods whose GPUs the kubelet tells. Labels are closed sets, never a pod."""

    def __init__(self, registry: CollectorRegistry) -> None:
        declared = Declared(registry)
        self.kubelet_up = declared.gauge(
            "agent_kubelet_up",
            "1 while the kubelet says which pod has which GPUs, 0 while it does not",
        )
        self.placements = declared.counter(
            "agent_placements", "Placements of pods that the API has taken"
        )
        self.failures = declared.counter(
            "agent_placement_failures", "Times the API did not take placements; they are told again"
        )
        self.waiting = declared.gauge("agent_placements_waiting", "Placements still to be told")
        self.dropped = declared.counter(
            "agent_placements_dropped",
            "Placements that were given up: refused for good, or too many waited for the API",
        )
