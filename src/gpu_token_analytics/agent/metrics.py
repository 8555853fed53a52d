"""What the agent counts, each declared once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AgentMetrics:
    """The agent's metrics in one registry. Labels are closed sets, never a GPU: fleets are large."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples = Counter("gpu_tokens_agent_samples", "GPU samples handed to Kafka", ["source"], registry=registry)
        self.source_up = Gauge(
            "gpu_tokens_agent_source_up",
            "1 while the GPU telemetry source answers, 0 while it does not",
            ["source"],
            registry=registry,
        )
        self.source_failures = Counter(
            "gpu_tokens_agent_source_failures",
            "Reads that the telemetry source could not answer at all",
            ["source"],
            registry=registry,
        )
        self.gpus = Gauge("gpu_tokens_agent_gpus", "GPUs and MIG slices in the last read", ["source"], registry=registry)
        self.gpu_problems = Gauge(
            "gpu_tokens_agent_gpu_problems",
            "GPUs that cannot be read now, by what is wrong (lost, reset_required, unreadable, gone, malformed); shared_uuid: "
            "they are read, but have no UUID of their own",
            ["source", "problem"],
            registry=registry,
        )
        self.gpu_problem_changes = Counter(
            "gpu_tokens_agent_gpu_problem_changes",
            "Times a GPU went from readable, or from another problem, into this problem",
            ["source", "problem"],
            registry=registry,
        )
        self.skipped_ticks = Counter(
            "gpu_tokens_agent_skipped_ticks", "Samples left out because reading or sending took too long", registry=registry
        )
        self.delivery_failures = Counter(
            "gpu_tokens_agent_delivery_failures", "Times Kafka did not acknowledge samples in time", registry=registry
        )
        self.last_sample = Gauge(
            "gpu_tokens_agent_last_sample_timestamp_seconds", "Unix time of the last round of samples", registry=registry
        )


class EngineMetrics:
    """Of the engines whose counters are read. Labels are closed sets, never an instance or a model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        engine = ["engine"]
        self.engines = Gauge("gpu_tokens_agent_engines", "Serving engines that are scraped", engine, registry=registry)
        self.engines_up = Gauge(
            "gpu_tokens_agent_engines_up", "Of these, those whose last scrape could be read", engine, registry=registry
        )
        self.seconds = Histogram(
            "gpu_tokens_agent_engine_scrape_seconds",
            "Time of one scrape of an engine, reading its page included; the count is that of all scrapes",
            engine,
            registry=registry,
        )
        self.failures = Counter(
            "gpu_tokens_agent_engine_scrape_failures", "Scrapes that could not be read", engine, registry=registry
        )
        self.resets = Counter(
            "gpu_tokens_agent_engine_resets", "Scrapes in which an engine's counters had begun anew", engine, registry=registry
        )
        self.gaps = Counter(
            "gpu_tokens_agent_engine_gaps", "Scrapes that count for missed ones before them, too", engine, registry=registry
        )
        self.tokens = Counter(
            "gpu_tokens_agent_engine_tokens",
            "Tokens that engines counted, by kind; cached ones are a part of prompt ones",
            ["engine", "kind"],
            registry=registry,
        )
        self.sent = Counter("gpu_tokens_agent_engine_events", "Events of engines that Kafka acknowledged", registry=registry)
        self.waiting = Gauge(
            "gpu_tokens_agent_engine_events_waiting", "Events of engines that Kafka has not taken yet", registry=registry
        )
        self.dropped = Counter(
            "gpu_tokens_agent_engine_events_dropped",
            "Events of engines that were given up because too many waited for Kafka: their tokens are not in the ledger",
            registry=registry,
        )
