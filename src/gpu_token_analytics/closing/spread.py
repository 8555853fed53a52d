"""What changed in the books is spread to the cells it concerns: GPUs, declarations, what names
mean, prices.

A row is `pending` until its cells are marked: after a crash in between it is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from gpu_token_analytics.closing.neighbours import evidence_before, evidence_from
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.names_moved import NameMoved, families
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.mongo.errors import Document

ROWS_AT_ONCE = 500

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
    """GPUs are new, or their card, profile, name or being live changed: mark what was computed
    without knowing."""
    for books, rows in _together(store, store.books.pending_gpus()):
        named = {name for row in rows for name in (row["_id"], row.get("parent_uuid")) if name}
        gpus = families(named, books)
        store.changes.mark_computed_before(gpus, max(row["changed_at"] for row in rows))
        aliases = {name for row in rows for name in books.placements.aliases_of(row["_id"])}
        for row in rows:
            if row["_id"] in books.shared:
                aliases |= store.books.names_like(row["_id"])  # which mean none of its cards now
        _spread_names(store, books, params, sorted(aliases))
        store.books.clear_pending_gpus(rows)


def _spread_declarations(store: LedgerStore, params: LedgerParams) -> None:
    """An operator declared GPUs, or changed or took back what he had declared: mark their cells."""
    for books, rows in _together(store, store.books.pending_declarations()):
        gpus = {row["gpu"] for row in rows}
        store.changes.mark_computed_before(sorted(gpus), max(row["changed_at"] for row in rows))
        names = gpus.union(*map(books.placements.aliases_of, gpus))
        _spread_names(store, books, params, filter(books.placements.is_label, sorted(names)))
        store.books.clear_pending_gpus(rows)


def _spread_placements(store: LedgerStore, params: LedgerParams) -> None:
    """A label turned out to be another GPU: mark the cells of the requests that named it, under all
    its meanings."""
    for books, placements in _together(store, store.books.pending_placements()):
        for placement in placements:
            label = placement["label"]
            _spread_names(store, books, params, (label, *books.placements.aliases_of(label)))
            _spread_new_host(store, books, placement["gpu"])
            store.books.clear_pending_placement(placement)


def _spread_stays(store: LedgerStore) -> None:
    """A card of a UUID that is shared turned up on another host: requests there meant none until
    now."""
    for books, stays in _together(store, store.books.pending_stays()):
        for stay in stays:
            _spread_new_host(store, books, stay["gpu"])
            store.books.clear_pending_stay(stay)


def _together(
    store: LedgerStore, pending: Sequence[Document]
) -> Iterator[tuple[Books, Sequence[Document]]]:
    """Pending rows, some at a time, with the books as they are after these rows were read: what a
    row says is in them, and what changes later is pending itself. Books are read once for all
    rows: a fleet that is new would else be read once for each of its GPUs."""
    if pending:
        books = store.books.read()
        for start in range(0, len(pending), ROWS_AT_ONCE):
            yield books, pending[start : start + ROWS_AT_ONCE]


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
    for books, rows in _together(store, store.books.pending_prices()):
        for row in rows:
            marked = store.changes.mark_priced(row, books.shared, store.now() - raw_complete_for)
            log.info("price row %s: %d cells are computed again", row["_id"], marked)
            store.books.clear_pending_price(row)
