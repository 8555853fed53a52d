"""Which minutes have to be paid for, and which GPU a label meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.ledger.worlds import MINUTE, SECOND, T0

from gpu_token_analytics.ledger.ownership import owned_silent_minutes, owned_until
from gpu_token_analytics.ledger.placements import Placement, Placements

NOW = T0 + 100 * MINUTE + 20 * SECOND


def at(minute: int) -> int:
    return T0 + minute * MINUTE


@pytest.mark.parametrize(
    ("evidence", "silent", "live", "expected"),
    [
        ([0, 1, 2], 60, False, []),
        ([0, 4], 60, False, [1, 2, 3]),
        ([0, 50], 3, False, [1, 2, 3]),
        ([0, 4], 0, True, []),
        ([97], 60, True, [98, 99]),
        ([97], 60, False, []),
        ([0], 3, True, [1, 2, 3]),
        ([], 60, True, []),
    ],
)
def test_silent_minutes(evidence: list[int], silent: int, live: bool, expected: list[int]) -> None:
    found = owned_silent_minutes([at(m) for m in evidence], NOW, silent * MINUTE, live=live)
    assert found == [at(m) for m in expected]


@given(st.sets(st.integers(0, 99)), st.integers(0, 30), st.booleans())
def test_a_minute_by_itself_and_all_together_agree(
    evidence: set[int], silent: int, live: bool
) -> None:
    """The closer asks for one minute, the housekeeping for all: the same minutes must be owned."""
    together = {
        *(at(m) for m in evidence),
        *owned_silent_minutes(map(at, evidence), NOW, silent * MINUTE, live=live),
    }
    for minute in range(100):
        before = [m for m in evidence if m < minute]
        followed = any(m > minute for m in evidence)
        until = owned_until(
            at(minute),
            NOW,
            evidence_us=at(minute) if minute in evidence else None,
            before_us=at(max(before)) if before else None,
            followed=followed,
            live=live,
            silent_owned_us=silent * MINUTE,
        )
        assert (until > at(minute)) == (at(minute) in together)
        assert until in (at(minute), at(minute + 1)), "minutes that are over are owned as a whole"


def test_the_part_still_to_come_is_not_owned_yet() -> None:
    def until(evidence: int | None, *, live: bool) -> int:
        return owned_until(
            at(100),
            NOW,
            evidence_us=evidence,
            before_us=at(99),
            followed=False,
            live=live,
            silent_owned_us=MINUTE,
        )

    assert until(at(100) + SECOND, live=False) == NOW
    assert until(NOW + 5 * SECOND, live=True) == NOW + 5 * SECOND + 1, (
        "a clock ahead of ours has been there"
    )
    assert until(None, live=True) == NOW
    assert until(None, live=False) == at(100)


PLACED = [Placement("h/0", "GPU-old", at(0), at(10)), Placement("h/0", "GPU-new", at(20), at(30))]


@pytest.mark.parametrize(
    ("minute", "gpu"),
    [
        (-5, "GPU-old"),
        (5, "GPU-old"),
        (14, "GPU-old"),
        (15, "GPU-new"),
        (25, "GPU-new"),
        (99, "GPU-new"),
    ],
)
def test_a_label_means_the_nearest_gpu(minute: int, gpu: str) -> None:
    for placements in (Placements(PLACED), Placements(PLACED[::-1])):
        assert placements.resolve("h/0", at(minute)) == gpu


def test_names_without_placement_stand_for_themselves() -> None:
    placements = Placements(PLACED)
    assert placements.resolve("h/1", at(0)) == "h/1"
    assert placements.resolve("GPU-old", at(99)) == "GPU-old"
    assert placements.labels("GPU-old") == ["h/0"]
    assert placements.meanings("h/0") == ["GPU-new", "GPU-old"]
