"""What the agent counts, each declared once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


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
