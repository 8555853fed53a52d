"""MIG: slices and card together cost exactly what the card costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.ledger.worlds import GPU, World, minutes, price, price_rows, sample, usage, usages

from gpu_token_analytics.ledger.inputs import CardShare, slice_sevenths
from gpu_token_analytics.units import MIG_SEVENTHS

CARD = "GPU-card"
SPANS = minutes(3)


def partition(slices: list[int]) -> tuple[CardShare, list[CardShare]]:
    denominator = max(MIG_SEVENTHS, sum(slices))
    return CardShare(denominator, child_parts=tuple(slices)), [
        CardShare(denominator, slice_parts=k) for k in slices
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 7]), min_size=1, max_size=7),
    price_rows(modes=("on_demand",)),
    st.lists(usages(gpus=("MIG-0", "MIG-1", CARD)), max_size=8, unique_by=lambda doc: doc["_id"]),
)
def test_slices_and_card_sum_to_the_card(
    slices: list[int], rows: list[dict[str, object]], events: list[dict[str, object]]
) -> None:
    """For every partition, also in the minute of a repartitioning (old and new slices, more than
    seven sevenths)."""
    world = World(events, [], rows)
    card, shares = partition(slices)
    whole = world.cells(SPANS, gpu="GPU-whole", priced_as=GPU)
    of_card = world.cells(SPANS, gpu=CARD, card=card, priced_as=GPU)
    of_slices = [
        world.cells(SPANS, gpu=f"MIG-{n}", card=share, priced_as=GPU)
        for n, share in enumerate(shares)
    ]
    for index in range(len(SPANS)):
        together = [found[index] for found in (of_card, *of_slices)]
        assert sum(cell.cost_nusd for cell in together) == whole[index].cost_nusd
        for cell in together:
            assert sum(cell.classes.values()) == cell.cost_nusd
            assert min(cell.classes.values()) >= 0
            assert sum(cell.class_us.values()) == cell.owned_us
            assert sum(line["cost_nusd"] or 0 for line in cell.lines) == cell.classes["attributed"]
    for found, share, gpu in [(of_card, card, CARD), (of_slices[0], shares[0], "MIG-0")]:
        expected = world.oracle(SPANS, gpu=gpu, card=share, priced_as=GPU)
        assert [cell.classes for cell in found] == [cell.classes for cell in expected]


def test_what_no_slice_uses_is_cold_idle_of_the_card() -> None:
    world = World([], [sample("s", 1, mem_mb=80_000, gpu=CARD)], [price("default", "4.2")])
    card, (first, second) = partition([3, 2])
    (cell,) = world.cells(minutes(1), gpu=CARD, card=card)
    assert cell.classes["cold_idle"] == cell.cost_nusd == 20_000_000, (
        "two sevenths, though the card holds memory"
    )
    costs = [
        world.cells(minutes(1), gpu="MIG", card=share)[0].cost_nusd for share in (first, second)
    ]
    assert costs == [30_000_000, 20_000_000]


def test_a_completely_partitioned_card_keeps_only_what_rounding_leaves() -> None:
    world = World([usage("r", 60, 60, gpus=[CARD])], [], [price("default", "1")])
    card, shares = partition([1] * 7)
    (cell,) = world.cells(minutes(1), gpu=CARD, card=card)
    (one,) = world.cells(minutes(1), gpu="MIG", card=shares[0])
    (whole,) = world.cells(minutes(1), gpu="GPU-whole")
    assert cell.cost_nusd == whole.cost_nusd - 7 * one.cost_nusd
    assert 0 <= cell.cost_nusd <= 6
    assert cell.classes["attributed"] == cell.cost_nusd, (
        "the request on the card itself was active all the time"
    )


@pytest.mark.parametrize(
    ("profile", "sevenths"), [("1g.10gb", 1), ("3g.40gb", 3), ("7g.80gb", 7), ("1g.5gb+me", 1)]
)
def test_profiles(profile: str, sevenths: int) -> None:
    assert slice_sevenths(profile) == sevenths
