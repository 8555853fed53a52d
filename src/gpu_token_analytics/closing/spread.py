"""What changed in the books is spread to the cells it concerns: GPUs, declarations, what names
mean, prices.

A row is `pending` until its cells are marked: after a crash in between it is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from gpu_token_analytics.closing.neighbours import evidence_before, evidence_from
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.names_moved import NameMoved, families
from gpu_token_analytics.ledger.params import LedgerParams

log = logging.getLogger(__name__)


def spread_books(store: LedgerStore, params: LedgerParams, raw_complete_for: timedelta) -> None:
    """Mark the cells of everything that changed in the books. raw_complete_for: older cells are
    never computed again."""
    _spread_gpus(store, params)
    _spread_declarations(store, params)
    _spread_placements(store, params)
    _spread_stays(store)
    _spread_prices(store, raw_complete_for)


def _spread_gpus(store: LedgerStore, params: LedgerParams) -> None:
    """A GPU is new, or its card, profile, name or being live changed: mark what was computed
    without knowing."""
    for row in store.books.pending_gpus():
        books = store.books.read()
        gpus = families({row["_id"], row.get("parent_uuid") or row["_id"]}, books)
        store.changes.mark_computed_before(gpus, row["changed_at"])
        aliases = set(books.placements.aliases_of(row["_id"]))
        if row["_id"] in books.shared:
            aliases |= store.books.names_like(row["_id"])  # which mean none of its cards now
        _spread_names(store, books, params, sorted(aliases))
        store.books.clear_pending_gpu(row)


def _spread_declarations(store: LedgerStore, params: LedgerParams) -> None:
    """An operator declared a GPU, or changed or took back what he had declared: mark its cells."""
    for row in store.books.pending_declarations():
        books = store.books.read()
        store.changes.mark_computed_before([row["gpu"]], row["changed_at"])
        names = {row["gpu"], *books.placements.aliases_of(row["gpu"])}
        _spread_names(store, books, params, filter(books.placements.is_label, sorted(names)))
        store.books.clear_pending_gpu(row)


def _spread_placements(store: LedgerStore, params: LedgerParams) -> None:
    """A label turned out to be another GPU: mark the cells of the requests that named it, under all
    its meanings."""
    for placement in store.books.pending_placements():
        books, label = store.books.read(), placement["label"]
        _spread_names(store, books, params, (label, *books.placements.aliases_of(label)))
        _spread_new_host(store, books, placement["gpu"])
        store.books.clear_pending_placement(placement)


def _spread_stays(store: LedgerStore) -> None:
    """A card of a UUID that is shared turned up on another host: requests there meant none until
    now."""
    for stay in store.books.pending_stays():
        _spread_new_host(store, store.books.read(), stay["gpu"])
        store.books.clear_pending_stay(stay)


def _spread_new_host(store: LedgerStore, books: Books, gpu: GpuId) -> None:
    if gpu in books.shared:
        store.changes.mark([Change(gpu, ChangeKind.ALL, None, None)])


def _spread_names(
    store: LedgerStore, books: Books, params: LedgerParams, names: Iterable[str]
) -> None:
    """What names mean changed, or may have."""
    for name in names:
        moved = NameMoved.of(name, store.raw.labelled_usage(name), books, params)
        if asked := moved.asks():
            before, since = (
                evidence_before(store.raw, books, asked),
                evidence_from(store.raw, books, asked),
            )
            store.changes.mark(moved.changes(before, since, books, params))


def _spread_prices(store: LedgerStore, raw_complete_for: timedelta) -> None:
    """A new price row: mark the cells it can concern, final ones too (they get a correction)."""
    for row in store.books.pending_prices():
        marked = store.changes.mark_priced(
            row, store.books.read().shared, store.now() - raw_complete_for
        )
        log.info("price row %s: %d cells are computed again", row["_id"], marked)
        store.books.clear_pending_price(row)
