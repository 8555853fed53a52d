"""Where questions are asked, with or without HTTP: the stores to read, the settings that shape
answers, the clock.

What a desk holds is only named here: whoever answers a question at one loads no driver; `over`
does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from gpu_token_analytics.mongo.errors import store_errors

if TYPE_CHECKING:
    from gpu_token_analytics.books.declarations import DeclarationStore
    from gpu_token_analytics.books.instances import InstanceStore
    from gpu_token_analytics.books.owners import OwnerStore
    from gpu_token_analytics.books.prices import PriceStore
    from gpu_token_analytics.books.rates import RateStore
    from gpu_token_analytics.books.store import BookStore
    from gpu_token_analytics.books.teams import TeamStore
    from gpu_token_analytics.books.unknown_names import UnknownName
    from gpu_token_analytics.closing.request_view import RequestPart
    from gpu_token_analytics.costs.lookups import Reads
    from gpu_token_analytics.costs.read import CostReads
    from gpu_token_analytics.mongo.client import Store
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
    books: BookStore
    prices: PriceStore
    declarations: DeclarationStore
    instances: InstanceStore
    teams: TeamStore
    owners: OwnerStore
    rates: RateStore
    # (a stored usage, now in us) -> its part of each cell, computed again from raw events
    request_parts: Callable[[Mapping[str, Any], int], list[RequestPart]]
    # at most so many names -> (how many there are, the first of them)
    unknown_names: Callable[[int], tuple[int, list[UnknownName]]]
    # from when to when (us) -> how many cells far-reaching requests have still to mark
    unmarked: Callable[[int, int], int]
    dead_letters: Callable[[], dict[str, int]] | None = None
    _placements: InstanceBook | None = None
    _placements_at: float = 0.0
    _placements_lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def over(
        store: Store, settings: Settings, dead_letters: Callable[[], dict[str, int]] | None = None
    ) -> Desk:
        """A desk over a store, which it does not own: who opened it closes it."""
        from gpu_token_analytics.books.declarations import DeclarationStore
        from gpu_token_analytics.books.instances import InstanceStore
        from gpu_token_analytics.books.owners import OwnerStore
        from gpu_token_analytics.books.prices import PriceStore
        from gpu_token_analytics.books.rates import RateStore
        from gpu_token_analytics.books.store import BookStore
        from gpu_token_analytics.books.teams import TeamStore
        from gpu_token_analytics.books.unknown_names import unknown_names
        from gpu_token_analytics.closing.request_view import request_parts
        from gpu_token_analytics.costs.lookups import Reads
        from gpu_token_analytics.costs.read import CostReads
        from gpu_token_analytics.ledger.params import params_of
        from gpu_token_analytics.raw.pending_marks import PendingMarks
        from gpu_token_analytics.raw.read import RawReads

        timeout_ms = settings.api_query_timeout_ms
        database = store.database
        raw, books, params = RawReads(store), BookStore(store), params_of(settings)
        return Desk(
            settings=settings,
            store=store,
            now=store.now,
            clock_ahead=lambda: store.clock_ahead,
            costs=CostReads(database, timeout_ms),
            exports=CostReads(database, EXPORT_PATIENCE * timeout_ms),
            reads=Reads(database, timeout_ms),
            books=books,
            prices=PriceStore(database, timeout_ms),
            declarations=DeclarationStore(database, timeout_ms),
            instances=InstanceStore(database, timeout_ms),
            teams=TeamStore(database, timeout_ms),
            owners=OwnerStore(database, timeout_ms),
            rates=RateStore(database, timeout_ms),
            request_parts=lambda usage, now_us: request_parts(
                raw, books.read(), params, usage, now_us
            ),
            unknown_names=lambda limit: unknown_names(store, books, limit),
            unmarked=PendingMarks(store, settings.close_debounce_seconds).count,
            dead_letters=dead_letters,
        )

    def placements(self) -> InstanceBook:
        """Which instance runs on which GPUs, as of at most PLACEMENTS_EVERY_SECONDS ago."""
        with self._placements_lock:
            if (
                self._placements is None
                or time.monotonic() - self._placements_at > PLACEMENTS_EVERY_SECONDS
            ):
                with store_errors("read placements"):
                    self._placements = self.instances.book()
                self._placements_at = time.monotonic()
            return self._placements

    def forget_placements(self) -> None:
        """A row was appended here: ask again."""
        with self._placements_lock:
            self._placements = None
