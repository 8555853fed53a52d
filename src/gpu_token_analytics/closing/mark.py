"""Marking what changed: what lies around the runs is loaded, diffs say which intervals changed,
their cells are marked.

Before the cells are written that show the change: after a crash in between they are still due, and
all of it is done again.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu_token_analytics.closing.neighbours import evidence_before, evidence_from
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, minute_of
from gpu_token_analytics.ledger.books import Books
from gpu_token_analytics.ledger.diff import NOTHING_AROUND, Around, Diff
from gpu_token_analytics.ledger.params import LedgerParams


def mark_changes(
    store: LedgerStore, books: Books, params: LedgerParams, diffs: Sequence[Diff], own_lease: str
) -> None:
    """Mark what one run each of several GPUs changed beside its own cells. own_lease: what these
    were taken under."""
    for diff in diffs:
        # `host/12` is a label
        if diff.run.on_two_hosts and diff.gpu not in books.shared and not diff.gpu.isdecimal():
            store.books.note_shared(diff.gpu)
    around = load_around(store, books, params, [diff for diff in diffs if diff.tells])
    changes = [
        change
        for diff in diffs
        for change in diff.changes(around.get(diff.gpu, NOTHING_AROUND), books, params)
    ]
    if changes:
        store.changes.mark(changes, own_lease)


def load_around(
    store: LedgerStore, books: Books, params: LedgerParams, diffs: Sequence[Diff]
) -> dict[GpuId, Around]:
    """What lies around the runs, with a few commands for all of them. Read after their events: what
    is opened or taken from now on is read later, too."""
    if not diffs:
        return {}
    last = {diff.gpu: diff.run.last_us for diff in diffs}
    later = store.cells.minutes_after(last)
    following = {(gpu, minute) for gpu, minutes in later.items() for minute in minutes}
    before: dict[GpuId, int] = {}
    after: dict[GpuId, int] = {}
    if params.silent_owned_us:
        before = {diff.gpu: diff.untold_before for diff in diffs if diff.untold_before is not None}
        after = {
            diff.gpu: diff.untold_after + US_PER_MINUTE
            for diff in diffs
            if diff.untold_after is not None
        }
    next_to = {(gpu, minute - US_PER_MINUTE) for gpu, minute in before.items()} | after.items()
    states = store.cells.states(following | next_to)
    # A later cell that waits, never computed and nobody's, will be computed from all that these
    # were.
    waiting = {
        cell for cell, state in states.items() if state["revision"] == 0 and "lease" not in state
    }
    newest = {
        gpu for gpu, minutes in later.items() if all((gpu, minute) in waiting for minute in minutes)
    }
    # What the cell of the next minute says need not be looked for.
    heard = {
        cell
        for cell, state in states.items()
        if state.get("silent") is False and "due_at" not in state
    }
    ask_before = {
        (gpu, minute)
        for gpu, minute in before.items()
        if (gpu, minute - US_PER_MINUTE) not in heard
    }
    ask_after = {
        (gpu, minute)
        for gpu, minute in after.items()
        if (gpu, minute) not in heard and gpu not in newest
    }
    evidence_until = evidence_before(store.raw, books, ask_before) if ask_before else {}
    evidence_since = evidence_from(store.raw, books, ask_after) if ask_after else {}
    ask_sample = {
        (diff.gpu, last[diff.gpu] + US_PER_MINUTE)
        for diff in diffs
        if diff.asks_sample and diff.gpu not in newest
    }
    samples = store.raw.first_samples(ask_sample) if ask_sample else {}

    def around(gpu: GpuId) -> Around:
        start, end = before.get(gpu), after.get(gpu)
        sample = samples.get((gpu, last[gpu] + US_PER_MINUTE))
        heard_before = (
            None
            if start is None or (gpu, start - US_PER_MINUTE) not in heard
            else start - US_PER_MINUTE
        )
        return Around(
            is_newest=gpu in newest,
            before_us=heard_before
            if start is None or heard_before is not None
            else evidence_until.get((gpu, start)),
            after_us=end if end is None or (gpu, end) in heard else evidence_since.get((gpu, end)),
            sampled_us=None if sample is None else minute_of(sample["ts_us"]),
        )

    return {diff.gpu: around(diff.gpu) for diff in diffs}
