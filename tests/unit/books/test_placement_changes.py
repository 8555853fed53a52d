"""Whether a sighting can change what a label meant, against the ledger's own way of reading
labels."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from gpu_token_analytics.books.inventory import changes_meaning
from gpu_token_analytics.books.sightings import GpuDescription, Sighting
from gpu_token_analytics.ledger.placements import Placement, Placements

LABEL = "vm1/0"
SPAN = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair)))


def row(gpu: str, span: tuple[int, int]) -> dict[str, object]:
    return {"label": LABEL, "gpu": gpu, "first_us": span[0], "last_us": span[1]}


def sighting(gpu: str, span: tuple[int, int]) -> Sighting:
    return Sighting(GpuDescription(gpu, True, "vm1", 0, None, None, None, "nvml", True), *span)


@given(st.dictionaries(st.sampled_from("abc"), SPAN, min_size=1), st.sampled_from("abc"), SPAN)
def test_what_changes_no_meaning_changes_none(
    known: dict[str, tuple[int, int]], gpu: str, seen: tuple[int, int]
) -> None:
    """Sound: wherever it says no, every label at every time means what it meant before."""
    assume(gpu in known)
    rows = [row(name, span) for name, span in known.items()]
    if changes_meaning(sighting(gpu, seen), rows):
        return
    first, last = known[gpu]
    after = {**known, gpu: (min(first, seen[0]), max(last, seen[1]))}
    old = Placements(Placement(LABEL, name, *span) for name, span in known.items())
    new = Placements(Placement(LABEL, name, *span) for name, span in after.items())
    assert [old.resolve(LABEL, at) for at in range(-5, 40)] == [
        new.resolve(LABEL, at) for at in range(-5, 40)
    ]


@given(st.dictionaries(st.sampled_from("abc"), SPAN), st.sampled_from(["a", "b", "c", LABEL]))
def test_the_times_of_a_meaning_are_those_at_which_it_holds(
    known: dict[str, tuple[int, int]], gpu: str
) -> None:
    placements = Placements(Placement(LABEL, name, *span) for name, span in known.items())
    times = placements.times(LABEL, gpu)
    assert all(start < end for start, end in times)
    assert all(before[1] < after[0] for before, after in pairwise(times)), "joined, ascending"
    for at in (-(10**15), *range(-5, 40), 10**15):
        assert any(start <= at < end for start, end in times) == (
            placements.resolve(LABEL, at) == gpu
        )


def test_a_new_placement_changes_the_meaning() -> None:
    assert changes_meaning(sighting("a", (5, 5)), [])
    assert changes_meaning(sighting("a", (5, 5)), [row("b", (0, 3))])


def test_the_steady_state_changes_nothing() -> None:
    """A GPU that goes on after another one was replaced by it: this happens with every batch, and
    must stay cheap."""
    rows = [row("old", (0, 10)), row("new", (12, 20))]
    assert not changes_meaning(sighting("new", (21, 25)), rows)
    assert not changes_meaning(sighting("new", (13, 19)), rows)


def test_growing_towards_another_changes_the_meaning() -> None:
    rows = [row("old", (0, 10)), row("new", (20, 30))]
    assert changes_meaning(sighting("old", (11, 11)), rows), (
        "a late sample of the old one, in the gap between them"
    )
    assert changes_meaning(sighting("new", (19, 19)), rows)
