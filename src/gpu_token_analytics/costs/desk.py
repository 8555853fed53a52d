"""Where questions are asked, with or without HTTP: the stores to read, the settings that shape answers, the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpu_token_analytics.books.declarations import DeclarationStore
from gpu_token_analytics.books.instances import InstanceStore
from gpu_token_analytics.books.prices import PriceStore
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.mongo.client import Store, store_errors
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.sources.instances import InstanceBook

EXPORT_PATIENCE = 30
PLACEMENTS_EVERY_SECONDS = 5.0


@dataclass
class Desk:
    """One database as questions see it, and the books that people write."""

    settings: Settings
    store: Store
    now: Callable[[], datetime]
    clock_ahead: Callable[[], timedelta]  # MongoDB's clock less this machine's
    costs: CostReads
    exports: CostReads  # the same with more patience: an export reads for minutes, page by page
    reads: Reads
    ledger: LedgerStore
    prices: PriceStore
    declarations: DeclarationStore
    instances: InstanceStore
    dead_letters: Callable[[], dict[str, int]] | None = None
    _placements: InstanceBook | None = None
    _placements_at: float = 0.0
    _placements_lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def over(store: Store, settings: Settings, dead_letters: Callable[[], dict[str, int]] | None = None) -> Desk:
        """A desk over a store, which it does not own: who opened it closes it."""
        timeout_ms = settings.api_query_timeout_ms
        database = store.database
        return Desk(
            settings=settings,
            store=store,
            now=store.now,
            clock_ahead=lambda: store.clock_ahead,
            costs=CostReads(database, timeout_ms),
            exports=CostReads(database, EXPORT_PATIENCE * timeout_ms),
            reads=Reads(database, timeout_ms),
            ledger=LedgerStore(store),
            prices=PriceStore(database, timeout_ms),
            declarations=DeclarationStore(database, timeout_ms),
            instances=InstanceStore(database, timeout_ms),
            dead_letters=dead_letters,
        )

    def placements(self) -> InstanceBook:
        """Which instance runs on which GPUs, as of at most PLACEMENTS_EVERY_SECONDS ago."""
        with self._placements_lock:
            if self._placements is None or time.monotonic() - self._placements_at > PLACEMENTS_EVERY_SECONDS:
                with store_errors("read placements"):
                    self._placements = self.instances.book()
                self._placements_at = time.monotonic()
            return self._placements

    def forget_placements(self) -> None:
        """A row was appended here: ask again."""
        with self._placements_lock:
            self._placements = None
