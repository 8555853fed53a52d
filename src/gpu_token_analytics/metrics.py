"""Every Prometheus metric of the processor, declared once, with the sentence it tells you.

Labels are closed sets or bounded (models, partitions): no request ids, no tenants. docs/metrics are
generated from here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from gpu_token_analytics.foreign_text import visible

MAX_MODEL_LABELS = 200
OTHER_MODELS = "(other)"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DELAY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 900, 3600)
_RECORDS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 4000, 10_000, 100_000)


class SiteRegistry(CollectorRegistry):
    """A registry whose every sample has the label `site`, where there are several sites;
    prometheus_client has no constant labels of its own, and a metric that forgot its site would be
    added up with the other site's."""

    def __init__(self, site: str = "") -> None:
        super().__init__()
        self._site = site

    def collect(self) -> Iterator[Metric]:
        """What is exposed."""
        for metric in super().collect():
            if self._site:
                metric.samples = [
                    sample._replace(labels={"site": self._site, **sample.labels})
                    for sample in metric.samples
                ]
            yield metric


class Declared:
    """Metrics of a registry, each declared by its name without `gpu_tokens_`, the sentence it tells
    you, and its labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, sentence: str, *labels: str) -> Counter:
        """What only grows; its name ends in `_total` where it is asked for."""
        return Counter(f"gpu_tokens_{name}", sentence, labels, registry=self._registry)

    def gauge(self, name: str, sentence: str, *labels: str, value: float = 0.0) -> Gauge:
        """What is so now. value: until it is set, where it has no labels."""
        gauge = Gauge(f"gpu_tokens_{name}", sentence, labels, registry=self._registry)
        if not labels:
            gauge.set(value)
        return gauge

    def histogram(
        self, name: str, sentence: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        """How often it was how much. buckets: upper bounds."""
        return Histogram(
            f"gpu_tokens_{name}", sentence, labels, buckets=buckets, registry=self._registry
        )


class Metrics:
    """The processor's metrics in one registry, so that tests can have several processors."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._models: set[str] = set()
        declared = Declared(self.registry)
        counter, gauge, histogram = declared.counter, declared.gauge, declared.histogram

        self.cpu_seconds = counter(
            "step_cpu_seconds_total",
            (
                "CPU time by step: read, shape, store, settle (of batches), close (cells), "
                "roll_up. Without Kafka's own threads."
            ),
            "step",
        )

        # Ingest
        self.consumed = counter(
            "consumed_total", "Records read from Kafka; after a crash some are read again."
        )
        self.inserted = counter(
            "inserted_total", "Events stored for the first time, by collection.", "collection"
        )
        self.duplicates = counter(
            "duplicates_total",
            "Events that were stored already (replays, re-sends), by collection.",
            "collection",
        )
        self.dead_letters = counter(
            "dead_letters_total",
            "Records refused and put into the dead letters, by reason.",
            "reason",
        )
        self.unknown_fields = counter(
            "unknown_fields_total",
            (
                "Fields of records that the contract does not know, misspelt perhaps: they are "
                "left out."
            ),
        )
        self.bad_record_ratio = gauge(
            "bad_record_ratio",
            (
                "Share of the last 1,000 records that were bad; past BAD_RECORD_LIMIT_RATIO the "
                "processor warns."
            ),
        )
        self.gpu_names_dropped = counter(
            "gpu_names_dropped_total",
            (
                "Names of GPUs nobody knows that were not kept (GPU_NAMES_PER_HOUR) or were "
                "forgotten (GPU_NAMES_KEPT)."
            ),
        )
        self.marks = counter("marks_total", "Ledger cells marked to be computed.")
        self.marks_pending = gauge(
            "marks_pending",
            (
                "Ledger cells that are still to be marked: those of requests that reach too far "
                "for their batch."
            ),
        )
        self.shared = gauge(
            "shared_uuids",
            (
                "UUIDs that were sampled on several hosts at once: each host's card is paid, as "
                "host/UUID."
            ),
        )
        self.lag = gauge(
            "lag_records",
            "Records in Kafka not read yet, by partition owned by this process.",
            "partition",
        )
        self.assigned = gauge("assigned_partitions", "Partitions this process reads now.")
        self.store_up = gauge(
            "store_up", "1 while writes to MongoDB succeed, 0 while a batch waits for it."
        )
        self.clock_skew = gauge(
            "clock_skew_seconds",
            (
                "MongoDB's clock less this machine's; from 5 s on it is warned of, over 300 s "
                "nothing is stored or computed."
            ),
        )
        self.retries = counter(
            "write_retries_total",
            "Batches repeated because MongoDB or Kafka did not acknowledge them.",
        )
        self.commits = counter(
            "commits_total", "Offset commits by result: done or refused (moved away).", "result"
        )
        self.batch_records = histogram("batch_records", "Records in one ingest batch.", _RECORDS)
        self.write_seconds = histogram(
            "write_seconds",
            "Time of one step of a batch against MongoDB or Kafka, by step.",
            _SECONDS,
            "step",
        )
        self.stored_delay = histogram(
            "event_to_stored_seconds",
            (
                "Delay from an event's own time to its being durable; a sample of each batch's new "
                "events."
            ),
            _DELAY_SECONDS,
        )
        self.last_progress = gauge(
            "last_progress_timestamp_seconds",
            "When the consuming loop last went round, in seconds since 1970.",
        )
        self.live_cost = gauge(
            "live_cost_per_token_usd",
            "Estimate of the moment: price of the GPUs over their token rate, by model.",
            "model",
        )
        self.live_tokens = counter(
            "tokens_total", "Tokens of usages read (prompt and completion), by model.", "model"
        )

        # Ledger
        self.due = gauge(
            "cells_due", "Ledger cells that wait to be computed, their debounce included."
        )
        self.computed = counter("cells_computed_total", "Ledger cells computed.")
        self.changed = counter(
            "cells_changed_total", "Ledger cells whose content changed when computed."
        )
        self.kept = counter(
            "cells_kept_total",
            "Ledger cells touched, but left as they were: their raw events may have expired.",
        )
        self.ledger_delay = histogram(
            "event_to_ledger_seconds",
            "Delay from a cell's first open mark to its being in the ledger.",
            _DELAY_SECONDS,
        )
        self.aside = gauge(
            "documents_set_aside",
            (
                "Cells and sums that MongoDB refuses for good: they stay as they were, all else "
                "goes on."
            ),
        )
        self.set_aside_now = 0
        self.sums_lag = gauge(
            "sums_lag_seconds",
            "For how long a computed cell has been waiting to be in the hourly and daily sums.",
        )
        self.topic_records = counter(
            "ledger_topic_records_total", "Records written to the ledger's topic (LEDGER_TOPIC)."
        )
        self.topic_lag = gauge(
            "ledger_topic_lag_seconds",
            "For how long the oldest cell that the ledger's topic does not hold has been waiting; "
            "0 in processors that do not "
            "write it.",
        )
        self.closer_up = gauge("closer_up", "1 while the thread that computes ledger cells runs.")

    def model_label(self, model: str) -> str:
        """The model as a label value; past MAX_MODEL_LABELS different ones they share one."""
        model = visible(model)
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODEL_LABELS:
            return OTHER_MODELS
        self._models.add(model)
        return model

    @contextmanager
    def cpu(self, step: str) -> Iterator[None]:
        """What this thread computes within is a part of a step."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.cpu_seconds.labels(step).inc(time.thread_time() - begun)

    # What closing reports (closing/closer.py, Observer)

    def cells_closed(self, computed: int, changed: int) -> None:
        """So many cells were computed, so many of them changed."""
        self.computed.inc(computed)
        self.changed.inc(changed)

    def cells_kept(self, count: int) -> None:
        """So many cells were touched, but left as they are: their raw events may have expired."""
        self.kept.inc(count)

    def cells_due(self, count: int) -> None:
        """So many cells wait, their debounce included."""
        self.due.set(count)

    def cells_unmarked(self, count: int) -> None:
        """So many cells are still to be marked."""
        self.marks_pending.set(count)

    def uuids_shared(self, count: int) -> None:
        """So many UUIDs are those of several cards."""
        self.shared.set(count)

    def event_to_ledger_seconds(self, seconds: float) -> None:
        """Time from a cell's first open mark to its being written."""
        self.ledger_delay.observe(seconds)

    def set_aside(self, count: int) -> None:
        """So many cells and sums are set aside, because MongoDB refuses them for good."""
        self.set_aside_now = count
        self.aside.set(count)

    # What the ledger's topic reports (warehouse/publish.py, Observer)

    def ledger_records(self, count: int) -> None:
        """So many records were written to the topic."""
        self.topic_records.inc(count)

    def ledger_topic_lag(self, seconds: float) -> None:
        """For so long the oldest cell that the topic does not hold has been waiting."""
        self.topic_lag.set(seconds)
