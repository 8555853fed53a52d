"""The ledger's side of the store: its cells, the raw events they are computed from, the books they
are priced by."""

from __future__ import annotations

from gpu_token_analytics.books.store import BookStore
from gpu_token_analytics.cells.changes import ChangeMarks
from gpu_token_analytics.cells.store import CellStore
from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.raw.pending_marks import PendingMarks
from gpu_token_analytics.raw.read import RawReads
from gpu_token_analytics.raw.recent import RecentEvents
from gpu_token_analytics.rollups.store import RollupStore


class LedgerStore:
    """One database as closing, the audit and the API's request view see it."""

    def __init__(
        self,
        store: Store,
        debounce_seconds: float = 10.0,
        recent: RecentEvents | None = None,
        *,
        noting_unsent: bool = False,
    ) -> None:
        """recent: events that need not be read back; None reads everything from MongoDB, as an
        audit must. noting_unsent: changed cells are to be sent to the ledger's topic."""
        self.now, self.check_clock = store.now, store.check_clock
        self.recent = recent
        self.cells = CellStore(store, debounce_seconds, noting_unsent=noting_unsent)
        self.changes = ChangeMarks(store, debounce_seconds)
        self.raw = RawReads(store)
        self.pending_marks = PendingMarks(store, debounce_seconds)
        self.books = BookStore(store)
        self.rollups = RollupStore(store.database, store.now)

    @property
    def own_gpus(self) -> frozenset[GpuId] | None:
        """GPUs whose events this process stored lately; None: it stores none."""
        return None if self.recent is None else self.recent.gpus
