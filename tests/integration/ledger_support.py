"""Events into a real MongoDB through the product's own ingest steps, without Kafka; then closing
until nothing is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

from pymongo.monitoring import CommandListener

from gpu_token_analytics.books.declarations import DeclarationStore
from gpu_token_analytics.books.gpu_names import NameLimits
from gpu_token_analytics.books.instances import KnownPlacements
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.audit_report import AuditReport
from gpu_token_analytics.closing.closer import Closer, ClosingRules
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.ingest.limits import Limits
from gpu_token_analytics.ingest.live_rate import LiveRate
from gpu_token_analytics.ingest.settle import BatchWriter
from gpu_token_analytics.ingest.shape import Shaper
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.kafka.dead_letters import DeadLetters
from gpu_token_analytics.kafka.records import RecordBatch
from gpu_token_analytics.ledger.document import CellFields
from gpu_token_analytics.ledger.params import LedgerParams, params_of
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

MINUTE = timedelta(minutes=1)
HOUR_NUSD = 850_000_000  # PRICE_PER_HOUR_USD's default


class NoLetters:
    """These tests send nothing bad; a dead letter is a failure."""

    def deliver(self, letters: Sequence[object], timeout_seconds: float) -> None:
        raise AssertionError(f"unexpected dead letters: {letters}")


def close_due(closer: Closer) -> None:
    """Compute until nothing is due, and nothing else."""
    while closer.step():
        pass


class Pipeline:
    """One database with the ingest steps and a closer on it."""

    def __init__(self, uri: str, database: str, **overrides: Any) -> None:
        overrides = {"close_debounce_seconds": 0, **overrides}
        self.settings: Settings = load(mongodb_uri=uri, mongodb_database=database, **overrides)
        self.store: Store = open_store(self.settings)
        ensure_indexes(self.store, self.settings)
        self.params: LedgerParams = params_of(self.settings)
        self.ledger = LedgerStore(self.store, self.settings.close_debounce_seconds)
        self.ledger.books.ensure_default_price(self.settings.price_per_hour_usd)
        self.metrics = Metrics()
        self._recent = RecentEvents()
        self._offsets = count()
        self._writer = self._new_writer()
        self._shaper = self._new_shaper()

    def restart(self) -> None:
        """Forget everything a process remembers."""
        self._recent = RecentEvents()
        self._writer = self._new_writer()
        self._writer.recall_gpus()
        self._shaper = self._new_shaper()  # which uses the writer's names

    def _new_writer(self) -> BatchWriter:
        letters = cast("DeadLetters", NoLetters())
        return BatchWriter(
            self.store,
            letters,
            self.settings.close_debounce_seconds,
            self.metrics,
            SystemClock(),
            lambda _: None,
            self._recent,
            NameLimits.of(self.settings),
        )

    def _new_shaper(self) -> Shaper:
        known = self._writer.known_gpus
        rate = LiveRate(
            self.settings.live_rate_window_seconds, self.settings.price_per_hour_usd, known=known
        )
        placements = KnownPlacements(self.store, SystemClock())
        return Shaper(
            rate, self.settings.sample_gap_limit_seconds, Limits.of(self.settings), placements.book
        )

    def declare(self, gpu: str = "GPU-a", host: str = "h1", **fields: Any) -> None:
        """Make a GPU known without a sample."""
        values: dict[str, Any] = {"name": None, "valid_from": None, "valid_to": None, **fields}
        store = DeclarationStore(self.store.database)
        store.declare(gpu=gpu, host=host, declared_at=datetime.now(UTC), source="test", **values)

    def ingest(self, events: Sequence[Event], batch: int = 1000) -> None:
        """Steps 2 to 5 of the loop."""
        for shaped in self._batches(events, batch):
            self._writer.settle(shaped, self._writer.store(shaped))

    def store_only(self, events: Sequence[Event]) -> None:
        """Steps 2 to 4: as if the process had died then."""
        for shaped in self._batches(events, len(events)):
            self._writer.store(shaped)

    def _batches(self, events: Sequence[Event], batch: int) -> Iterator[Shaped]:
        for at in range(0, len(events), batch):
            values: list[bytes | None] = [encode(event) for event in events[at : at + batch]]
            now = datetime.now(UTC)
            size = len(values)
            records = RecordBatch(
                "tokens",
                values,
                [0] * size,
                [next(self._offsets) for _ in values],
                [int(now.timestamp() * 1000)] * size,
            )
            yield self._shaper.shape(records, now)

    def closer(self) -> Closer:
        noting = bool(self.settings.ledger_topic)
        ledger = LedgerStore(
            self.store, self.settings.close_debounce_seconds, self._recent, noting_unsent=noting
        )
        rules = replace(ClosingRules.of(self.settings), others_wait=timedelta())
        return Closer(ledger, self.params, rules, self.metrics)

    @property
    def own_gpus(self) -> frozenset[str]:
        """The GPUs whose events this one stored."""
        return self._recent.gpus

    def close(self) -> None:
        """Compute until nothing is due."""
        closer = self.closer()
        closer.housekeep()
        close_due(closer)
        closer.housekeep()
        close_due(closer)

    def cells(self, **where: Any) -> dict[str, Document]:
        return {cell["_id"]: cell for cell in self.store[Collection.LEDGER_CELLS].find(where)}

    def audit(self, before_second_look: Callable[[int], object] = lambda _: None) -> AuditReport:
        return audit(
            self.ledger,
            self.params,
            raw_complete_for=self.settings.raw_complete_for,
            before_second_look=before_second_look,
        )


class Commands(CommandListener):
    """Counts what is sent to MongoDB, by command and collection, and the documents that `find`
    answers with, by collection."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.documents: Counter[str] = Counter()

    def started(self, event: Any) -> None:
        self.sent[f"{event.command_name} {event.command.get(event.command_name)}"] += 1

    def succeeded(self, event: Any) -> None:
        if event.command_name == "find":
            cursor = event.reply["cursor"]
            self.documents[cursor["ns"].split(".", 1)[1]] += len(cursor["firstBatch"])

    def failed(self, event: Any) -> None:
        """Counted when it started."""


CONTENT = sorted(CellFields.__required_keys__)


def contents(cells: dict[str, Document]) -> dict[str, Document]:
    """What a cell says, without when and how often it was computed; void cells are no content."""
    return {
        name: {key: cell[key] for key in CONTENT}
        for name, cell in cells.items()
        if cell["owned_us"]
    }


def usage(number: int, end: datetime, seconds: float = 20.0, **fields: Any) -> TokenUsage:
    values: dict[str, Any] = {
        "event_id": f"usage-{number}",
        "ts": end,
        "host": "h1",
        "model": "m",
        "request_id": f"r{number}",
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "latency_ms": seconds * 1000,
        "gpu_uuids": ["GPU-a"],
    }
    return TokenUsage(**{**values, **fields})


def sample(number: int, at: datetime, **fields: Any) -> GpuSample:
    values: dict[str, Any] = {
        "event_id": f"sample-{number}",
        "ts": at,
        "host": "h1",
        "gpu_index": 0,
        "gpu_uuid": "GPU-a",
        "name": "H100",
        "utilization": 0.0,
        "mem_used_mb": 4.0,
        "mem_total_mb": 81559.0,
        "power_w": 70.0,
        "source": "nvml",
    }
    return GpuSample(**{**values, **fields})


def minutes_ago(count: int) -> datetime:
    """The start of a minute."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - count * MINUTE


def fleet_events(seconds: float = 240, seed: int = 3) -> list[Event]:
    """Eight GPUs at work, an hour ago."""
    fleet = default_fleet(2, 4)
    return list(
        generate(
            fleet, minutes_ago(60), seconds, seed, load=Load(8.0), sample_interval_seconds=10.0
        )
    )
