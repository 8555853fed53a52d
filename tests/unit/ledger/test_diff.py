"""What a diff of timelines marks, and that it is enough: in whatever order events come, and however
closers interleave, every cell is in the end what all events say. No database."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.ledger.closing import Job, ModelLedger, document_of, expected_cells
from tests.unit.ledger.loaded import Document, Stored
from tests.unit.ledger.worlds import GPU, MINUTE, T0, price, sample, usage

from gpu_token_analytics.ledger.changes import Change, ChangeKind, all_of, intervals, silence
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.diff import NOTHING_AROUND, Around, Diff, StoredMinute
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.ledger.names_moved import NameMoved
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.placements import Placement
from gpu_token_analytics.ledger.shared import SharedUuids
from gpu_token_analytics.wire.times import from_us

LAST = 40  # minutes in which something happens
NOW = T0 + 120 * MINUTE
SPAN = range(T0 - 30 * MINUTE, NOW, MINUTE)


def at(minute: float) -> int:
    return T0 + round(minute * MINUTE)


def world(dice: random.Random) -> list[Document]:
    """Few events: a label that changes its GPU, prices, hosts, a card and its slices, silence,
    memory that is not known."""
    events: list[Document] = []
    for number in range(dice.randrange(3, 14)):
        second, gpu = float(dice.randrange(LAST * 60)), dice.choice(("GPU-a", "GPU-b", "GPU-c"))
        if dice.random() < 0.5:
            names = dice.choice(
                ([gpu], [gpu], ["h/0"], ["MIG-1"], ["GPU-a", "GPU-b"], ["GPU-a", "h/0"])
            )
            events.append(
                usage(f"u{number}", second, dice.choice((None, 0.0, 5.0, 100.0)), gpus=names)
            )
            continue
        values = sample(f"s{number}", second, gpu=gpu, mem_mb=dice.choice((None, 4.0, 80_000.0)))
        values |= {"name": f"name of {gpu}", "host": "h", "gpu_index": 0 if gpu != "GPU-c" else 1}
        if gpu == "GPU-b":
            values["host"] = dice.choice(("h", "h2"))
        if gpu == "GPU-c" and dice.random() < 0.5:
            values |= {"gpu": "MIG-1", "parent_uuid": "GPU-c", "mig_profile": "3g.40gb"}
        elif gpu == "GPU-c" or dice.random() < 0.3:
            values["price_per_hour_usd"] = dice.choice((None, 1.0, 2.0))
        events.append(values)
    return events


def _that_differ(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, value in expected.items() if stored.get(name) != value)


def differences(ledger: ModelLedger) -> list[str]:
    """Cells that are not what all events say, and owned ones that are missing."""
    expected = expected_cells(ledger.stored, ledger.now_us, SPAN)
    wrong = [
        f"{key} has no cell"
        for key, fields in expected.items()
        if fields["owned_us"] and key not in ledger.cells
    ]
    return wrong + [
        f"{key}: {_that_differ(expected[key], {**(cell.fields or {})})}"
        for key, cell in sorted(ledger.cells.items())
        if key in expected and cell.fields != expected[key]
    ]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.sampled_from([0, 2, 10, 1440]))
@example(196027191, 0)  # a GPU that moves to another host within its first minute
def test_any_order_and_any_closers_give_what_all_events_say(seed: int, owned_minutes: int) -> None:
    dice = random.Random(seed)
    params = LedgerParams(silent_owned_us=owned_minutes * MINUTE, model_kept_us=25 * MINUTE)
    ledger = ModelLedger(Stored(prices=[price("row-0", "0.85")], params=params), NOW)
    events = world(dice)
    jobs: list[Job] = []  # of closers that are at work
    for event in dice.sample(events, len(events)):
        ledger.ingest(event)
        if dice.random() < 0.5 and (due := ledger.due):
            jobs += ledger.take(dice.sample(due, dice.randrange(1, len(due) + 1)))
        dice.shuffle(jobs)
        while jobs and dice.random() < 0.6:
            job = jobs.pop()
            ledger.mark(job)
            if dice.random() < 0.2:
                ledger.let_go(job)  # it died
            else:
                ledger.write(job)
        if dice.random() < 0.2:
            ledger.spread()
    for job in jobs:
        ledger.mark(job)
        ledger.write(job)
    ledger.close()
    assert differences(ledger) == []


# -- one kind each ---------------------------------------------------------------------------------


def diff_of(
    stored: Stored, gpu: str, minutes: Sequence[int], before: Sequence[CellDocument] = ()
) -> Diff:
    """Of minutes of which `before`, documents of cells, were stored; the others never computed."""
    starts = [at(minute) for minute in minutes]
    (run,) = compute_runs([stored.timeline(gpu, starts, NOW)], stored.params)
    said = {cell["minute"]: cell for cell in before}
    marks = [
        said.get(from_us(start), document_of(gpu, start, None, revision=0)) for start in starts
    ]
    changed = {
        cell.content.start_us
        for cell, mark in zip(run.cells, marks, strict=True)
        if not cell.fields().items() <= mark.items()
    }
    return Diff(run, [StoredMinute.of(mark) for mark in marks], changed)


def cell_documents(diff: Diff) -> list[CellDocument]:
    return [document_of(diff.gpu, cell.content.start_us, cell.fields()) for cell in diff.run.cells]


def kinds(
    stored: Stored, diff: Diff, around: Around = NOTHING_AROUND
) -> list[tuple[str, ChangeKind, float | None, float | None]]:
    def minute(us: int | None) -> float | None:
        return None if us is None else (us - T0) / MINUTE

    changes = diff.changes(around, stored.books(), stored.params)
    return [
        (change.gpu, change.kind, minute(change.start_us), minute(change.end_us))
        for change in changes
    ]


def one_gpu(*samples: Document, owned_minutes: int = 10, usages: Sequence[Document] = ()) -> Stored:
    params = LedgerParams(silent_owned_us=owned_minutes * MINUTE)
    return Stored(usages, samples, [price("row-0", "0.85")], params=params)


def test_nothing_follows_from_the_newest_minute_that_says_what_was_said() -> None:
    stored = one_gpu(*(sample(f"{n}", 10 + 60 * n, mem_mb=4.0) for n in range(3)))
    diff = diff_of(stored, GPU, [2])
    assert kinds(stored, diff, Around(is_newest=True, before_us=at(1))) == []


def test_silence_is_opened_between_evidence_as_far_as_anybody_owns_it() -> None:
    stored = one_gpu(sample("a", 10), sample("b", 30 * 60 + 10), owned_minutes=10)
    around = Around(is_newest=True, before_us=at(0))
    diff = diff_of(stored, GPU, [30])
    assert diff.untold_before == diff.untold_after == at(30)
    assert kinds(stored, diff, around) == [(GPU, ChangeKind.NOT_OWNED, 1, 11)]
    (change,) = diff.changes(around, stored.books(), stored.params)
    assert change.opens
    assert kinds(stored, diff_of(stored, GPU, [30], cell_documents(diff)), around) == [], (
        "told before"
    )


def test_what_a_sample_says_is_carried_up_to_the_next_one_and_the_first_back() -> None:
    stored = one_gpu(sample("a", 5 * 60 + 10, usd_per_hour=2.0), owned_minutes=0)
    diff = diff_of(stored, GPU, [5])
    assert diff.asks_sample
    assert kinds(stored, diff, Around(sampled_us=at(9))) == [
        (GPU, ChangeKind.CARRIED, 6, 10),
        (GPU, ChangeKind.NAMED, None, 5),
    ]
    assert kinds(stored, diff) == [
        (GPU, ChangeKind.CARRIED, 6, None),
        (GPU, ChangeKind.NAMED, None, 5),
    ]
    (change, _) = diff.changes(NOTHING_AROUND, stored.books(), stored.params)
    assert change.carried == ("h", "H100", 2 * 10**9)
    assert kinds(stored, diff_of(stored, GPU, [5], cell_documents(diff))) == []


def test_the_first_sample_ever_speaks_for_the_time_before_it_not_the_newest_of_its_minute() -> None:
    moved = sample("a", 5 * 60 + 10), sample("b", 5 * 60 + 40) | {"host": "h2"}
    stored = one_gpu(*moved, owned_minutes=0)
    carried, named = diff_of(stored, GPU, [5]).changes(
        NOTHING_AROUND, stored.books(), stored.params
    )
    assert (carried.kind, carried.carried) == (ChangeKind.CARRIED, ("h2", "H100", None))
    assert (named.kind, named.carried) == (ChangeKind.NAMED, ("h", "H100", None))


def test_requests_tell_of_a_model_for_a_while() -> None:
    stored = one_gpu(usages=[usage("u", 130.0, 5.0)])
    assert kinds(stored, diff_of(stored, GPU, [2])) == [(GPU, ChangeKind.MEMORY, 3, 63)], (
        "nobody told of the GPU: nothing else"
    )


def test_a_new_slice_changes_its_card_and_siblings_and_a_card_prices_its_slices() -> None:
    parts = [
        sample(name, 10, gpu=f"MIG-{name}") | {"parent_uuid": GPU, "mig_profile": "3g.40gb"}
        for name in ("a", "b")
    ]
    card = sample("c", 70, usd_per_hour=2.0)
    stored = one_gpu(card, *parts, owned_minutes=0)
    newest = Around(is_newest=True)
    of_slice = kinds(stored, diff_of(stored, "MIG-a", [0]), newest)
    assert (GPU, ChangeKind.ALL, 0, 1) in of_slice
    assert ("MIG-b", ChangeKind.ALL, 0, 1) in of_slice
    of_card = kinds(stored, diff_of(stored, GPU, [1]), newest)
    assert [change for change in of_card if change[3] is None] == [
        ("MIG-a", ChangeKind.ALL, 1, None),
        ("MIG-b", ChangeKind.ALL, 1, None),
    ]


def test_a_label_that_moved_takes_its_silence_with_it() -> None:
    requests = [
        usage(f"u{n}", 60.0 * minute + 30, 5.0, gpus=["h/0"]) for n, minute in enumerate((10, 20))
    ]
    placed = [Placement("h/0", "GPU-a", at(0), at(12)), Placement("h/0", "GPU-b", at(15), at(30))]
    stored = Stored(requests, [sample("a", 10), sample("b", 1810, gpu="GPU-b")], placements=placed)
    books, params = stored.books(), LedgerParams(silent_owned_us=60 * MINUTE)
    moved = NameMoved.of("h/0", requests, books, params)
    assert moved.meant_us == {"h/0": set(), "GPU-a": {at(10)}, "GPU-b": {at(20)}}
    before, since = {("GPU-a", at(10)): at(0)}, {("GPU-b", at(21)): at(30)}
    changes = list(moved.changes(before, since, books, params))
    opened = [
        (change.gpu, change.start_us, change.end_us)
        for change in changes
        if change.kind is ChangeKind.NOT_OWNED and change.opens
    ]
    assert opened == [("GPU-a", at(1), at(10)), ("GPU-b", at(21), at(30))]
    again = [
        (change.gpu, change.start_us, change.end_us)
        for change in changes
        if change.kind is ChangeKind.NOT_OWNED and not change.opens
    ]
    assert again == [("GPU-a", at(11), at(71))], (
        "nothing is known to follow: only cells that are there"
    )
    lost_before, lost_since = {("GPU-a", at(21)): at(10)}, {("GPU-a", at(21)): at(40)}
    lost = [
        change for change in moved.changes(lost_before, lost_since, books, params) if change.opens
    ]
    assert Change("GPU-a", ChangeKind.NOT_OWNED, at(11), at(40), opens=True) in lost, (
        "around a request that is another's now"
    )
    assert {change.gpu for change in changes if change.kind is ChangeKind.SILENT} == {
        "h/0",
        "GPU-a",
        "GPU-b",
    }


def test_silence_after_the_last_evidence_is_looked_at_again_as_long_as_it_is_owned() -> None:
    stored = one_gpu(sample("a", 10), owned_minutes=10)
    diff = diff_of(stored, GPU, [0])
    changes = [
        change
        for change in diff.changes(NOTHING_AROUND, stored.books(), stored.params)
        if change.kind is ChangeKind.NOT_OWNED
    ]
    assert [(change.start_us, change.end_us, change.opens) for change in changes] == [
        (at(1), at(11), False)
    ]
    newest = Around(is_newest=True)
    assert [kind for _, kind, _, _ in kinds(stored, diff, newest)] == [ChangeKind.NAMED], (
        "no minute after it was ever computed"
    )


def test_what_is_stored_for_a_shared_uuid_opens_the_minutes_of_its_cards() -> None:
    stored = one_gpu(sample("a", 10), owned_minutes=0)
    books = replace(stored.books(), shared=SharedUuids({GPU: {"h1", "h2"}}))
    changes = list(
        diff_of(stored, GPU, [0, 1]).changes(Around(is_newest=True), books, stored.params)
    )
    cards = [
        Change(f"{host}/{GPU}", ChangeKind.ALL, at(0), at(2), opens=True) for host in ("h1", "h2")
    ]
    assert changes[:2] == cards
    assert not any(change.kind is ChangeKind.ALL for change in changes[2:])


def test_a_request_on_two_labels_changes_the_parts_of_the_other_one_too() -> None:
    request = usage("u", 630.0, 5.0, gpus=["h/0", "h/1"])
    placed = [Placement("h/0", "GPU-a", at(0), at(12)), Placement("h/1", "GPU-b", at(0), at(12))]
    stored = Stored([request], [sample("a", 10), sample("b", 10, gpu="GPU-b")], placements=placed)
    params = LedgerParams(silent_owned_us=0)
    moved = NameMoved.of("h/0", [request], stored.books(), params)
    assert moved.shared_us == {"GPU-a": {at(10)}, "GPU-b": {at(10)}}
    changes = moved.changes({}, {}, stored.books(), params)
    assert Change("GPU-b", ChangeKind.ALL, at(10), at(11)) in list(changes)


def test_nobody_moves_with_a_name_that_no_request_gave() -> None:
    moved = NameMoved.of("h/0", [], Stored().books(), LedgerParams())
    assert (moved.asks(), list(moved.changes({}, {}, Stored().books(), LedgerParams()))) == (
        set(),
        [],
    )


@pytest.mark.parametrize(
    ("minutes", "expected"), [([], []), ([3], [(3, 4)]), ([5, 1, 2, 7, 6], [(1, 3), (5, 8)])]
)
def test_minutes_are_joined_to_intervals(
    minutes: list[int], expected: list[tuple[int, int]]
) -> None:
    assert intervals(at(minute) for minute in minutes) == [
        (at(start), at(end)) for start, end in expected
    ]
    assert list(all_of(GPU, map(at, minutes))) == [
        Change(GPU, ChangeKind.ALL, at(start), at(end)) for start, end in expected
    ]


def test_no_silence_is_owned_where_none_may_be() -> None:
    assert list(silence(GPU, at(1), at(9), LedgerParams(silent_owned_us=0))) == []
    assert list(silence(GPU, at(1), at(1), LedgerParams())) == []
