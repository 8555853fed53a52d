"""Which cells are read and computed together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.closing.runs import cut_at_known, groups_of, runs_of
from gpu_token_analytics.documents import US_PER_MINUTE
from gpu_token_analytics.ledger.computed import ComputedCell, ComputedRun

LIMIT_US = 120 * US_PER_MINUTE

runs = st.dictionaries(
    st.integers(0, 200).map("GPU-{}".format),
    st.tuples(st.integers(0, 60), st.sets(st.integers(0, 200), min_size=1)).map(
        lambda drawn: runs_of((drawn[0] + minute) * US_PER_MINUTE for minute in drawn[1])[0]
    ),
)


@given(runs)
def test_groups_hold_every_run_once_and_are_bounded(found: dict[str, list[int]]) -> None:
    groups = groups_of(found, LIMIT_US)
    assert sorted((gpu, run) for group in groups for gpu, run in group.items()) == sorted(
        found.items()
    )
    for group in groups:
        span = (
            max(run[-1] for run in group.values())
            - min(run[0] for run in group.values())
            + US_PER_MINUTE
        )
        assert len(group) == 1 or len(group) * span <= LIMIT_US


def test_gpus_of_the_same_minutes_are_one_group_up_to_the_bound() -> None:
    minutes = [n * US_PER_MINUTE for n in range(8)]
    assert [
        len(group) for group in groups_of({f"GPU-{n}": minutes for n in range(32)}, LIMIT_US)
    ] == [15, 15, 2]
    assert len(groups_of({"GPU-a": minutes[:1], "GPU-b": [1000 * US_PER_MINUTE]}, LIMIT_US)) == 2, (
        "a day apart is two reads"
    )


@given(st.sets(st.integers(0, 100), min_size=1), st.sets(st.integers(0, 100)))
def test_a_run_is_cut_around_what_need_not_be_read(minutes: set[int], remembered: set[int]) -> None:
    run = [minute * US_PER_MINUTE for minute in sorted(minutes)]
    known = {minute * US_PER_MINUTE for minute in remembered}
    pieces = cut_at_known(run, known)
    assert [minute for piece in pieces for minute in piece] == run, "each minute once, in order"
    assert len(pieces) <= 3
    if len(pieces) > 1:
        whole = [
            piece
            for piece in pieces
            if known.issuperset(piece) and piece[-1] - piece[0] == (len(piece) - 1) * US_PER_MINUTE
        ]
        assert max(map(len, whole)) >= 4


def test_a_few_minutes_that_must_be_read_do_not_have_all_of_them_read() -> None:
    run = [n * US_PER_MINUTE for n in range(20)]
    assert cut_at_known(run, set(run)) == [run]
    assert cut_at_known(run, set()) == [run]
    assert cut_at_known(run, set(run[3:])) == [run[:3], run[3:]]
    assert cut_at_known(run, {*run[:8], *run[9:]}) == [run[:9], run[9:]]
    assert cut_at_known(run, set(run[5:9])) == [run[:5], run[5:9], run[9:]]
    assert cut_at_known(run, set(run[5:8])) == [run], "not worth a run"
    holed = [*run[:6], *run[8:]]
    assert cut_at_known(holed, set(run)) == [run[:6], run[8:]], (
        "events in a hole were not asked for"
    )


def test_a_run_tells_of_evidence_only_what_its_events_are_sure_of() -> None:
    def cell(minute: int) -> ComputedCell:
        return cast(
            "ComputedCell",
            SimpleNamespace(content=SimpleNamespace(start_us=minute * US_PER_MINUTE)),
        )

    def heard(run: ComputedRun, side: Any, minute: int) -> int | None:
        found: int | None = side(minute * US_PER_MINUTE)
        return None if found is None else found // US_PER_MINUTE

    run = ComputedRun(
        "GPU-a",
        [cell(10), cell(12), cell(20)],
        [minute * US_PER_MINUTE for minute in (8, 12, 14, 22)],
    )
    assert [heard(run, run.heard_before, minute) for minute in (10, 12, 20)] == [None, None, 14], (
        "9 may have a request"
    )
    assert [heard(run, run.heard_after, minute) for minute in (10, 12, 20)] == [12, 14, None], (
        "21 may have one"
    )
    run = ComputedRun("GPU-a", [cell(10)], [minute * US_PER_MINUTE for minute in (9, 11)])
    assert (heard(run, run.heard_before, 10), heard(run, run.heard_after, 10)) == (9, 11), (
        "nothing can lie between"
    )
